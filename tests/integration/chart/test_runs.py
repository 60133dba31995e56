"""One job from its admission to its end, on a real API server with the chart's own rights.

Nothing runs the pods: tests write what the Job controller would. The webhook is not there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

import pytest
from pydantic import JsonValue

from tests.integration.chart.conftest import Object
from tests.integration.chart.test_drift import (
    TEAM,
    Go,
    Stage,
    stage,  # noqa: F401 - a fixture
    team,  # noqa: F401 - a fixture
    until,
)
from tests.unit import world
from trainseal.api.model import API_VERSION, JsonObject
from trainseal.cluster.api import SECONDS, Kube, KubeError, Method, path_of
from trainseal.controller.runs import Runs
from trainseal.provenance.boundseals import bound_roles

#: Looks after which a job must have come to rest.
LOOKS = 64


class DiedError(Exception):
    """The controller was killed."""


class Mortal(Kube):
    """The controller's connection; after so many writes it is used no more."""

    def __init__(self, kube: Kube, dies_after: int | None = None) -> None:
        super().__init__(kube._connection)
        self.writes: list[str] = []
        self.dies_after = dies_after
        self.deaths = 0

    async def request(
        self,
        method: Method,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: JsonValue = None,
        content_type: str = "application/json",
        seconds: float = SECONDS,
    ) -> JsonObject:
        answer = await super().request(
            method, path, query=query, body=body, content_type=content_type, seconds=seconds
        )
        if method != "GET" and "dryRun" not in (query or {}):
            self.writes.append(f"{method} {path}")
            if len(self.writes) == self.dies_after:
                self.deaths += 1
                raise DiedError(path)
        return answer


async def settled(s: Stage, mortal: Mortal) -> None:
    """Controllers look, each new after the death of another, until there is nothing to do."""

    async def served() -> bool:
        # Of kinds that were just installed, the API server says for a while to ask again.
        with contextlib.suppress(KubeError):
            await s.kube.request("GET", path_of(API_VERSION, "sealedruns", TEAM))
            return True
        return False

    await until(served)
    for _ in range(LOOKS):
        before = len(mortal.writes)
        with contextlib.suppress(DiedError):
            await Runs(s.world(mortal)).reconcile((TEAM, s.name))
            if len(mortal.writes) == before:
                return
    raise AssertionError(f"it never comes to rest: {mortal.writes[-6:]}")


async def engine_says(s: Stage, **status: Any) -> None:
    """The Job controller's word."""
    path = path_of("batch/v1", "jobs", TEAM, f"{s.name}-worker", "status")
    await s.kube.patch(path, {"status": status})


def text(s: Stage) -> str:
    return s.clock().isoformat().replace("+00:00", "Z")


async def lived(s: Stage, mortal: Mortal) -> None:
    """The job's whole life."""
    await settled(s, mortal)
    await engine_says(s, startTime=text(s), active=2, ready=2)
    await settled(s, mortal)
    done = [
        {"type": kind, "status": "True", "lastTransitionTime": text(s)}
        for kind in ("SuccessCriteriaMet", "Complete")
    ]
    await engine_says(
        s, active=0, ready=0, succeeded=2, completedIndexes="0,1", completionTime=text(s),
        conditions=done,
    )  # fmt: skip
    await settled(s, mortal)


async def named(s: Stage, api: str, plural: str) -> list[Any]:
    """The job's objects of a kind, by its label."""
    query = {"labelSelector": f"trainseal.dev/job={s.name}"}
    found: Any = await s.kube.request("GET", path_of(api, plural, TEAM), query=query)
    items: list[Any] = found["items"]
    return items


async def told(s: Stage) -> list[str]:
    """Reasons of the job's Events, in the order in which they were made."""
    query = {"fieldSelector": f"involvedObject.name={s.name}"}
    found: Any = await s.kube.request("GET", path_of("v1", "events", TEAM), query=query)
    made = sorted(found["items"], key=lambda e: int(e["metadata"]["resourceVersion"]))
    return [event["reason"] for event in made]


async def outcome(s: Stage) -> Object:
    """What is there in the end, less names, UIDs and times."""
    (seal,) = await named(s, API_VERSION, "sealedruns")
    (engine,) = await named(s, "batch/v1", "jobs")
    (role,) = bound_roles(
        world.keyring(world.SEAL_KEY),
        cluster=world.CLUSTER,
        namespace=TEAM,
        name=seal["metadata"]["name"],
        seal=seal,
    )
    assert role.object_uid == engine["metadata"]["uid"]
    status: Any = await s.status()
    assert status["sealedRun"] == seal["metadata"]["name"]
    surroundings = [
        len(await named(s, api, plural))
        for api, plural in (
            ("v1", "configmaps"),
            ("v1", "services"),
            ("networking.k8s.io/v1", "networkpolicies"),
        )
    ]
    return {
        "run": seal["spec"]["run"],
        "seal": {k: seal["status"][k] for k in ("phase", "message", "completionTime")},
        "phase": status["phase"],
        "message": status["message"],
        "times": (status["startTime"], status["completionTime"]),
        "conditions": [(c["type"], c["status"], c["reason"]) for c in status["conditions"]],
        "suspended": engine["spec"]["suspend"],
        "surroundings": surroundings,
        "told": await told(s),
    }


def test_killed_after_any_write_it_comes_to_the_same_end(stage: Go) -> None:  # noqa: F811
    async def play(s: Stage) -> None:
        undisturbed = Mortal(s.controller)
        await lived(s, undisturbed)
        expected = await outcome(s)
        assert expected["told"] == ["Sealed", "Running", "Succeeded"]
        assert (expected["run"], expected["phase"]) == (1, "Succeeded")
        first = s.name
        for number in range(1, len(undisturbed.writes) + 1):
            s.name = f"{first}-{number}"
            await s.submit()
            mortal = Mortal(s.controller, dies_after=number)
            await lived(s, mortal)
            assert mortal.deaths == 1
            assert await outcome(s) == expected, undisturbed.writes[number - 1]

    stage(play)


# Placement ----------------------------------------------------------------------------------------


def placed(job: Any) -> Object:
    spec = job["spec"]["template"]["spec"]
    fields = ("nodeSelector", "tolerations", "affinity", "schedulingGates")
    return {k: spec[k] for k in fields if k in spec}


def condition(job: Any, type_: str) -> Any:
    (found,) = [c for c in job["status"]["conditions"] if c["type"] == type_]
    return found


async def edit(s: Stage, **spec: Any) -> None:
    await s.kube.patch(s.job_path, {"spec": spec})


WANTED: Object = {
    "nodeSelector": {"pool": "a100"},
    "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {
        "nodeAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": {
                "nodeSelectorTerms": [
                    {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["b"]}]}
                ]
            }
        }
    },
}
CLEARED: Object = dict.fromkeys(WANTED)


async def before_it_starts(s: Stage, mortal: Mortal) -> None:
    await edit(s, suspend=True)
    await settled(s, mortal)
    assert await s.suspended()


async def suspended_again(s: Stage, mortal: Mortal) -> None:
    await settled(s, mortal)
    await engine_says(s, startTime=text(s), active=2, ready=2)
    await settled(s, mortal)
    await edit(s, suspend=True)
    await settled(s, mortal)
    stopped = [{"type": "Suspended", "status": "True", "lastTransitionTime": text(s)}]
    await engine_says(s, active=0, ready=0, startTime=None, conditions=stopped)
    await settled(s, mortal)


@pytest.mark.parametrize("state", [before_it_starts, suspended_again])
def test_a_run_that_is_suspended_goes_where_its_scheduling_says_and_back(
    stage: Go,  # noqa: F811
    state: Callable[[Stage, Mortal], Any],
) -> None:
    async def play(s: Stage) -> None:
        mortal = Mortal(s.controller)
        await state(s, mortal)
        await edit(s, scheduling=WANTED)
        await settled(s, mortal)
        assert placed(await s.engine()) == WANTED
        assert condition(await s.job(), "Placed")["status"] == "True"
        assert (await s.status())["scheduling"] == WANTED
        await edit(s, scheduling=CLEARED)
        await settled(s, mortal)
        assert placed(await s.engine()) == {}
        assert (await s.status())["scheduling"] == {}

    stage(play)


def test_of_a_run_that_is_on_it_is_said_when_the_change_counts(stage: Go) -> None:  # noqa: F811
    async def play(s: Stage) -> None:
        mortal = Mortal(s.controller)
        await settled(s, mortal)
        await engine_says(s, startTime=text(s), active=2, ready=2)
        await edit(s, scheduling=WANTED)
        await settled(s, mortal)
        assert placed(await s.engine()) == {}
        waiting = condition(await s.job(), "Placed")
        assert (waiting["status"], waiting["reason"]) == ("False", "NextStart")
        assert (await told(s))[-1] == "NextStart"
        assert not await s.suspended()

    stage(play)


def test_what_no_job_lets_change_is_said(stage: Go) -> None:  # noqa: F811
    async def play(s: Stage) -> None:
        mortal = Mortal(s.controller)
        await before_it_starts(s, mortal)
        await edit(s, scheduling={"priorityClassName": "system-node-critical", **WANTED})
        await settled(s, mortal)
        assert placed(await s.engine()) == WANTED
        never = condition(await s.job(), "Placed")
        assert (never["status"], never["reason"]) == ("False", "NextRun")
        assert "priorityClassName" in never["message"]

    stage(play)


def test_a_queue_resumes_its_run_and_no_hold(stage: Go) -> None:  # noqa: F811
    label = "kueue.x-k8s.io/queue-name"

    async def play(s: Stage) -> None:
        mortal = Mortal(s.controller)
        await edit(s, scheduling={"queueName": "team-a"})
        await settled(s, mortal)
        engine: Any = await s.engine()
        assert engine["metadata"]["labels"][label] == "team-a"
        assert await s.suspended()
        path = path_of("batch/v1", "jobs", TEAM, f"{s.name}-worker")
        await s.kube.patch(path, {"spec": {"suspend": False}})
        s.clock.now += timedelta(seconds=1)
        await settled(s, mortal)
        assert not await s.suspended()
        await edit(s, suspend=True)
        await settled(s, mortal)
        engine = await s.engine()
        assert await s.suspended()
        assert label not in engine["metadata"]["labels"]
        await edit(s, scheduling={"queueName": "no label"}, suspend=False)
        await settled(s, mortal)
        assert condition(await s.job(), "Placed")["reason"] == "QueueRefused"

    stage(play)
