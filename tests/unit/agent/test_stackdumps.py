"""A request of a person becomes one dump for each pod of the run on this node."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from trainseal.agent import stackdumps as module
from trainseal.agent.containers import SealedPod
from trainseal.agent.observed import WatchedContainer
from trainseal.agent.stackdumps import StackDumps
from trainseal.agent.stacktaking import Taken
from trainseal.api.stackdump import ProcessStacks, StackDump, ThreadStack
from trainseal.cluster.api import ConflictError, Kube, KubeError, NotFoundError

Object = dict[str, Any]
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
SEAL = "char-lm-01234567-89abcdef"
UID = "0aa3b1c2-1111-2222-3333-444455556666"
DUMPS = "/apis/trainseal.dev/v1alpha1/namespaces/research/stackdumps"
NAME = "char-lm-worker-0-x-0aa3b1c2"
READ = ProcessStacks(
    pid=7, parent=1, container="trainer", executable="/usr/bin/python3", threads=[ThreadStack()]
)


def pod(name: str = "char-lm-worker-0-x", uid: str = UID, seal: str = SEAL) -> SealedPod:
    return SealedPod("research", name, uid, seal, {})


def request(minute: int = 0, seal: str = SEAL, namespace: str = "research") -> Object:
    made = NOW + timedelta(minutes=minute)
    return {
        "metadata": {
            "name": f"{seal}-{made:%Y%m%d%H%M}",
            "namespace": namespace,
            "uid": f"request-{namespace}-{seal}-{minute}",
            "creationTimestamp": made.isoformat(),
        },
        "spec": {"sealedRun": seal, "user": "ann@example.org"},
    }


class Server:
    """The API server's StackDumps; the next writes end as ``answers`` say."""

    def __init__(self) -> None:
        self.stored: dict[str, Object] = {}
        self.answers: list[KubeError] = []
        self.writes = 0

    async def create(self, path: str, obj: Object) -> Object:
        name = f"{path}/{obj['metadata']['name']}"
        if name in self.stored:
            raise ConflictError(409, "AlreadyExists", "it is there")
        self.stored[name] = copy.deepcopy(obj)
        return obj

    async def patch(self, path: str, patch: Object) -> Object:
        self.writes += 1
        if self.answers:
            raise self.answers.pop(0)
        name = path.removesuffix("/status")
        if name not in self.stored:
            raise NotFoundError(404, "NotFound", "no such dump")
        status = self.stored[name].get("status", {}) | patch["status"]
        self.stored[name]["status"] = {k: v for k, v in status.items() if v is not None}
        StackDump.parse(self.stored[name])
        return self.stored[name]


class World:
    """An agent's part, its pods and what is read of them."""

    def __init__(self) -> None:
        self.server = Server()
        self.pods = [pod()]
        self.taken: Taken | Exception = Taken((READ,))
        self.asked: list[str] = []
        self.now = 0.0
        self.looks = 0
        self.dumps = StackDumps(
            cast("Kube", self.server),
            "node-1",
            pods=self._pods,
            containers=self._containers,
            take=self._take,
            clock=lambda: NOW,
            monotonic=lambda: self.now,
        )

    def _pods(self) -> list[SealedPod]:
        self.looks += 1
        return self.pods

    def _containers(self, uid: str) -> list[WatchedContainer]:
        self.asked.append(uid)
        return []

    def _take(self, _: Sequence[WatchedContainer]) -> Taken:
        if isinstance(self.taken, Exception):
            raise self.taken
        return self.taken

    def tell(self, obj: Object) -> None:
        metadata = obj["metadata"]
        self.dumps.on_request("ADDED", (metadata["namespace"], metadata["name"]), obj)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not condition():  # noqa: ASYNC110 - what changes is the server's
                await asyncio.sleep(0.001)

    @property
    def status(self) -> Object:
        found: Object = self.server.stored[f"{DUMPS}/{NAME}"].get("status", {})
        return found

    def is_written(self) -> bool:
        return bool(self.server.stored) and bool(self.status)


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.001)
    made = World()
    running = asyncio.ensure_future(made.dumps.run())
    yield made
    assert not running.done()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_request_is_answered_by_a_dump_that_names_it(world: World) -> None:
    world.tell(request())
    await world.until(world.is_written)
    dump = world.server.stored[f"{DUMPS}/{NAME}"]
    assert dump["spec"] == {
        "sealedRun": SEAL,
        "node": "node-1",
        "pod": {"name": "char-lm-worker-0-x", "uid": UID},
    }
    assert dump["metadata"]["labels"] == {"trainseal.dev/seal": SEAL}
    assert world.status == {
        "request": f"{SEAL}-202611231200",
        "takenAt": "2026-11-23T12:00:00Z",
        "processes": [READ.wire()],
    }


async def test_a_dump_goes_with_the_request_that_it_was_made_for(world: World) -> None:
    world.tell(request())
    await world.until(world.is_written)
    (owner,) = world.server.stored[f"{DUMPS}/{NAME}"]["metadata"]["ownerReferences"]
    assert (owner["kind"], owner["uid"]) == ("StackRequest", f"request-research-{SEAL}-0")
    assert "blockOwnerDeletion" not in owner


async def test_the_next_requests_answer_takes_the_place_of_the_last(world: World) -> None:
    world.tell(request())
    await world.until(world.is_written)
    world.taken = Taken((), message="no Python stacks: none")
    world.tell(request(1))
    await world.until(lambda: world.status["request"] == f"{SEAL}-202611231201")
    assert world.status["message"] == "no Python stacks: none"
    assert "processes" not in world.status
    assert len(world.server.stored) == 1


async def test_a_request_that_is_told_again_is_answered_once(world: World) -> None:
    for _ in range(3):
        world.tell(request())
    await world.until(world.is_written)
    world.tell(request())
    world.pods.append(pod("other", "1bb3b1c2-1111-2222-3333-444455556666"))
    await world.until(lambda: len(world.server.stored) == 2)
    assert world.asked.count(UID) == 1


@pytest.mark.parametrize(
    "obj",
    [request(seal="another-01234567-89abcdef"), request(namespace="other"), request(-3)],
    ids=["another run", "another namespace", "minutes old"],
)
async def test_what_does_not_concern_a_pod_of_this_node_is_not_answered(
    world: World, obj: Object
) -> None:
    world.tell(obj)
    world.tell(request())
    await world.until(world.is_written)
    assert world.status["request"] == f"{SEAL}-202611231200"
    assert world.asked == [UID]


async def test_a_request_without_a_run_is_passed_over(world: World) -> None:
    broken = request()
    del broken["spec"]["sealedRun"]
    broken["metadata"]["uid"] = "another"
    world.tell(broken)
    world.tell(request())
    await world.until(world.is_written)


async def test_a_pod_that_comes_into_the_watch_a_moment_later_is_answered_too(world: World) -> None:
    world.pods = []
    world.tell(request())
    await world.until(lambda: world.looks > 1)
    world.pods = [pod()]
    await world.until(world.is_written)


async def test_a_pod_that_comes_much_later_is_not(world: World) -> None:
    other = pod("other", "1bb3b1c2-1111-2222-3333-444455556666", "other-01234567-89abcdef")
    world.pods = []
    world.tell(request())
    await world.until(lambda: world.looks > 1)
    world.now = module.PATIENCE_SECONDS + 1
    world.pods = [pod(), other]
    world.tell(request(seal=other.seal))
    await world.until(lambda: bool(world.server.stored))
    assert world.asked == [other.uid]


async def test_a_flood_of_requests_for_other_runs_pushes_none_of_ours_out(world: World) -> None:
    world.tell(request())
    for number in range(3 * module.MOST_REQUESTS):
        world.tell(request(seal=f"flood-{number:08}-89abcdef"))
    await world.until(world.is_written)


@pytest.mark.parametrize("status", [0, 429, 500, 503])
async def test_a_server_that_is_away_for_a_moment_is_asked_again(world: World, status: int) -> None:
    world.server.answers = [KubeError(status, "Unreachable", "gone fishing")]
    world.tell(request())
    await world.until(world.is_written)


async def test_a_dump_that_is_refused_is_not_written_again_and_again(world: World) -> None:
    world.server.answers = [KubeError(403, "Forbidden", "no") for _ in range(5)]
    world.tell(request())
    await world.until(lambda: world.server.writes == 1)
    world.server.answers = []
    world.tell(request(1))
    await world.until(world.is_written)
    assert world.server.writes == 3  # one refused; then one in vain, and one after it was made


async def test_whatever_happens_while_reading_is_said_and_ends_nothing(world: World) -> None:
    world.taken = ValueError("odd bytes")
    world.tell(request())
    await world.until(world.is_written)
    assert world.status["message"] == "no Python stacks: reading failed: odd bytes"
