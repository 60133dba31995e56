"""Findings on their way into reports: nothing lost while the API server is away, nothing twice."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from trainseal.agent import reports as module
from trainseal.agent.ledger import Person
from trainseal.agent.observed import Lineage, Observation, Process, Profile
from trainseal.agent.profiles import report_of
from trainseal.agent.reports import Reports, Subject
from trainseal.api.driftreport import ContainerProfile, DriftReport, Finding
from trainseal.api.findings import FindingId
from trainseal.api.policy import DriftRules
from trainseal.cluster.api import ConflictError, Kube, KubeError, NotFoundError
from trainseal.provenance.drift import CompiledDrift, compile_drift

Object = dict[str, Any]
NOW = datetime(2026, 11, 1, tzinfo=UTC)
POD = Subject("research", "char-lm-worker-0-x", "0aa3b1c2-1111-2222-3333-444455556666", "char-lm-1")
SED = Process(4711, 1, NOW, "/usr/bin/sed", ("sed",), 1000, "c" * 64)


def edit(path: str = "/torch/optim/sgd.py", **changes: Any) -> Observation:
    fields: Object = {"lineage": Lineage((SED,), session=SED)}
    return Observation(FindingId.FILE_CHANGED, "it was written", path, **(fields | changes))


class Server:
    """An API server's DriftReports; ``away`` makes every request fail."""

    def __init__(self) -> None:
        self.stored: dict[str, Object] = {}
        self.away = False
        self.refuses: KubeError | None = None
        self.writes = 0

    def _check(self) -> None:
        if self.away:
            raise KubeError(0, "Unreachable", "gone fishing")
        if self.refuses:
            raise self.refuses

    async def create(self, path: str, obj: Object) -> Object:
        self._check()
        name = f"{path}/{obj['metadata']['name']}"
        if name in self.stored:
            raise ConflictError(409, "AlreadyExists", "it is there")
        stored = copy.deepcopy(obj)
        stored["metadata"]["generation"] = 1
        self.stored[name] = stored
        return copy.deepcopy(stored)

    async def get(self, path: str) -> Object:
        self._check()
        return copy.deepcopy(self.stored[path])

    async def patch(self, path: str, patch: Object) -> Object:
        self._check()
        name = path.removesuffix("/status")
        if name not in self.stored:
            raise NotFoundError(404, "NotFound", "no such report")
        self.writes += 1
        self.stored[name]["status"] = self.stored[name].get("status", {}) | patch["status"]
        DriftReport.parse(self.stored[name])
        return self.stored[name]

    @property
    def findings(self) -> list[Object]:
        return [f for r in self.stored.values() for f in r.get("status", {}).get("findings", [])]

    @property
    def conditions(self) -> dict[str, Object]:
        (report,) = self.stored.values()
        return {c["type"]: c for c in report["status"]["conditions"]}


class World:
    """A server, an agent's reports, and what the agent is told to freeze."""

    def __init__(self) -> None:
        self.server = Server()
        self.frozen: list[str] = []
        self.policies: Sequence[CompiledDrift] = ()
        self.people: dict[int, Person] = {}
        self.now = NOW
        self.reports = self.agent()

    def agent(self) -> Reports:
        return Reports(
            cast("Kube", self.server),
            "node-1",
            policies=lambda _: self.policies,
            join=lambda _pod, _finding, session: self.people.get(session.pid if session else 0),
            freeze=self._freeze,
            clock=lambda: self.now,
        )

    def _freeze(self, _: Subject, finding: Finding) -> None:
        self.frozen.append(finding.path or "")

    def begin(self) -> None:
        self.reports.begin(POD)
        self.reports.say(POD.uid, "Watching", "True", "Watching", "Everything is seen.")

    def see(self, *observations: Observation) -> None:
        for observation in observations:
            self.reports.see(POD.uid, "trainer", observation)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    for name in ("PAUSE_SECONDS", "COUNTS_SECONDS", "_FIRST_RETRY", "_LONGEST_RETRY"):
        monkeypatch.setattr(module, name, 0.001)
    return World()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition is a fake server's state
            await asyncio.sleep(0.001)


def policy(**rules: Any) -> CompiledDrift:
    return compile_drift(DriftRules.model_validate(rules))


EXCEPTED = policy(
    exceptions=[{"name": "x", "reason": "y", "findings": ["file.changed"], "paths": ["/torch/**"]}]
)


async def test_a_report_is_there_before_anything_is_found(world: World) -> None:
    world.begin()
    await until(lambda: bool(world.server.stored) and world.server.writes > 0)
    (report,) = world.server.stored.values()
    assert report["metadata"]["name"] == "char-lm-worker-0-x-0aa3b1c2"
    assert report["spec"]["pod"]["uid"] == POD.uid
    assert world.server.conditions["Watching"]["status"] == "True"
    assert world.server.conditions["Watching"]["observedGeneration"] == 1
    await world.reports.close()


async def test_what_is_found_while_the_api_server_is_away_arrives_later(world: World) -> None:
    world.begin()
    await until(lambda: world.server.writes > 0)
    world.server.away = True
    world.see(edit("/a"), edit("/b"), edit("/a"))
    await asyncio.sleep(0.02)
    assert world.server.findings == []
    world.server.away = False
    await until(lambda: len(world.server.findings) == 2)
    assert [(f["path"], f["count"]) for f in world.server.findings] == [("/a", 2), ("/b", 1)]
    await world.reports.close()


async def test_a_report_that_cannot_be_made_at_first_is_made_in_the_end(world: World) -> None:
    world.server.away = True
    world.begin()
    world.see(edit())
    await asyncio.sleep(0.01)
    world.server.away = False
    await until(lambda: len(world.server.findings) == 1)
    await world.reports.close()


async def test_what_is_on_its_way_when_the_agent_stops_is_not_cut_off(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.begin()
    await until(lambda: world.server.writes > 0)
    patch = world.server.patch

    async def slow(path: str, body: Object) -> Object:
        await asyncio.sleep(0.2)
        return await patch(path, body)

    monkeypatch.setattr(world.server, "patch", slow)
    world.see(edit())
    await world.reports.close()
    assert len(world.server.findings) == 1


async def test_a_restart_loses_nothing_and_repeats_nothing(world: World) -> None:
    world.begin()
    world.see(edit("/a"), edit("/b"))
    await world.reports.close()
    world.reports = world.agent()
    world.begin()
    world.see(edit("/b"), edit("/c"))
    await world.reports.close()
    found = [(f["path"], f["count"]) for f in world.server.findings]
    assert found == [("/a", 1), ("/b", 2), ("/c", 1)]


async def test_a_report_that_is_taken_away_comes_again_with_all_that_was_in_it(
    world: World,
) -> None:
    world.begin()
    world.see(edit("/a"))
    await until(lambda: len(world.server.findings) == 1)
    world.server.stored.clear()
    world.see(edit("/b"))
    await until(lambda: len(world.server.findings) == 2)
    await world.reports.close()


async def test_what_the_server_refuses_as_it_is_does_not_keep_it_busy(world: World) -> None:
    world.begin()
    await until(lambda: world.server.writes > 0)
    world.server.refuses = KubeError(422, "Invalid", "a bug of ours")
    world.see(edit("/a"))
    await asyncio.sleep(0.02)
    world.server.refuses = None
    world.see(edit("/b"))
    await until(lambda: len(world.server.findings) == 2)
    await world.reports.close()


async def test_an_excepted_finding_is_not_reported_and_its_twin_is(world: World) -> None:
    world.policies = (EXCEPTED,)
    world.begin()
    world.see(edit("/torch/cache"), edit("/usr/lib/x"))
    await until(lambda: len(world.server.findings) == 1)
    assert world.server.findings[0]["path"] == "/usr/lib/x"
    await world.reports.close()


async def test_a_second_policy_that_excepts_nothing_has_it_reported(world: World) -> None:
    world.policies = (EXCEPTED, CompiledDrift())
    world.begin()
    world.see(edit("/torch/cache"))
    await until(lambda: len(world.server.findings) == 1)
    await world.reports.close()


async def test_who_opened_the_session_is_named_once_the_record_arrives(world: World) -> None:
    world.begin()
    world.see(edit())
    await until(lambda: len(world.server.findings) == 1)
    assert "user" not in world.server.findings[0]
    world.people[SED.pid] = Person("mallory@example.org", "exec-1")
    world.reports.people_changed(POD.uid)
    await until(lambda: world.server.findings[0].get("user") == "mallory@example.org")
    await world.reports.close()


@pytest.mark.parametrize("response", ["Freeze", "Quarantine"])
async def test_a_policy_that_says_so_freezes_for_what_is_new_alone(
    world: World, response: str
) -> None:
    world.policies = (policy(responses={"critical": response}),)
    world.begin()
    await until(lambda: world.server.writes > 0)
    world.see(edit("/a"), edit("/a"))
    assert world.frozen == ["/a"]
    await world.reports.close()
    # Thawed by a person since, then restarted: what was known stays thawed.
    world.reports = world.agent()
    world.begin()
    world.see(edit("/a"), edit("/b"))
    await until(lambda: len(world.frozen) == 2)
    assert world.frozen == ["/a", "/b"]
    await world.reports.close()


async def test_what_the_same_person_does_after_the_thaw_freezes_again(world: World) -> None:
    world.policies = (policy(responses={"critical": "Freeze"}),)
    world.people[SED.pid] = Person("ann@example.org", "exec-1")
    world.begin()
    await until(lambda: world.server.writes > 0)
    world.see(edit("/a"))
    world.reports.say(POD.uid, "Frozen", "True", "Frozen", "by the agent")
    world.now += timedelta(minutes=1)
    world.reports.say(POD.uid, "Frozen", "False", "Thawed", "by order of the operator")
    world.now += timedelta(minutes=1)
    world.see(edit("/a"), edit("/a"))
    assert world.frozen == ["/a", "/a"]
    await world.reports.close()
    assert [(f["path"], f["count"]) for f in world.server.findings] == [("/a", 1), ("/a", 2)]


async def test_by_default_nothing_is_frozen(world: World) -> None:
    world.begin()
    world.see(edit())
    await until(lambda: len(world.server.findings) == 1)
    assert world.frozen == []
    await world.reports.close()


async def test_a_pod_that_ended_has_its_last_findings_written_and_its_report_left(
    world: World,
) -> None:
    world.begin()
    world.see(edit())
    world.reports.end(POD.uid)
    await until(lambda: len(world.server.findings) == 1)
    await until(lambda: world.server.conditions["Watching"]["reason"] == "PodEnded")
    await world.reports.close()
    assert world.server.stored


async def test_a_condition_keeps_the_time_since_which_it_holds(world: World) -> None:
    world.begin()
    await world.reports.close()
    since = world.server.conditions["Watching"]["lastTransitionTime"]
    (report,) = world.server.stored.values()
    report["status"]["conditions"][0]["lastTransitionTime"] = "2026-10-01T00:00:00Z"
    report["metadata"]["generation"] = 4
    world.reports = world.agent()
    world.begin()
    await world.reports.close()
    assert world.server.conditions["Watching"]["lastTransitionTime"] == "2026-10-01T00:00:00Z"
    assert world.server.conditions["Watching"]["observedGeneration"] == 4
    assert since != "2026-10-01T00:00:00Z"


async def test_a_flood_is_written_seldom_and_within_bounds(world: World) -> None:
    world.begin()
    await until(lambda: world.server.writes > 0)
    for number in range(5000):
        world.see(Observation(FindingId.FILE_CREATED, "new", f"/new-{number}"))
    world.see(edit())
    await until(lambda: any(f["id"] == "file.changed" for f in world.server.findings))
    assert len(world.server.findings) <= 256
    (report,) = world.server.stored.values()
    assert report["status"]["dropped"] == 5001 - len(world.server.findings)
    await world.reports.close()


# What the ranks are compared by -------------------------------------------------------------------


def profile(**files: str) -> ContainerProfile:
    return report_of("trainer", NOW, Profile({f"/{n}": v for n, v in files.items()}, {}, {}))


def profiles(world: World) -> list[Object]:
    return [p for r in world.server.stored.values() for p in r["status"].get("profiles", [])]


async def test_a_profile_is_written_once_and_again_when_it_changed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROFILE_SECONDS", 0.0)
    world.begin()
    world.reports.compare_by(POD.uid, profile())
    await until(lambda: bool(world.server.writes and profiles(world)))
    assert profiles(world)[0]["files"]["count"] == 0
    writes = world.server.writes
    for _ in range(20):
        world.reports.compare_by(POD.uid, profile())
        await asyncio.sleep(0.002)
    assert world.server.writes == writes
    world.reports.compare_by(POD.uid, profile(evil="sha256:aa"))
    await until(lambda: profiles(world)[0]["files"]["count"] == 1)
    await world.reports.close()


async def test_a_profile_that_changes_all_the_time_is_written_seldom(world: World) -> None:
    world.begin()
    world.reports.compare_by(POD.uid, profile())
    await until(lambda: bool(world.server.writes and profiles(world)))
    writes = world.server.writes
    for number in range(50):
        world.reports.compare_by(POD.uid, profile(log=str(number)))
        await asyncio.sleep(0.001)
    assert world.server.writes == writes
    world.see(edit("/a"))  # what is written anyway takes it along
    await until(lambda: bool(world.server.findings))
    assert profiles(world)[0]["files"]["entries"] == [{"name": "/log", "value": "49"}]
    await world.reports.close()


async def test_an_agent_that_is_replaced_takes_no_profile_back(world: World) -> None:
    world.begin()
    world.reports.compare_by(POD.uid, profile(evil="sha256:aa"))
    await until(lambda: bool(world.server.writes and profiles(world)))
    await world.reports.close()
    world.reports = world.agent()
    world.begin()
    world.see(edit("/a"))
    await until(lambda: bool(world.server.findings))
    assert profiles(world)[0]["files"]["count"] == 1
    await world.reports.close()
