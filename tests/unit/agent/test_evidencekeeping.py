"""Evidence on its way into EvidenceItems: after the finding, within bounds, once."""

from __future__ import annotations

import asyncio
import contextlib
import copy
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from trainseal.agent import evidencekeeping as module
from trainseal.agent import reports as reports_module
from trainseal.agent.evidenceitems import Taken, TakenProcess
from trainseal.agent.evidencekeeping import EvidenceKeeper
from trainseal.agent.files import Content
from trainseal.agent.observed import Lineage, Observation, Process
from trainseal.agent.reports import Reports, Subject
from trainseal.api.driftreport import DriftReport
from trainseal.api.evidenceitem import EvidenceItem
from trainseal.api.findings import FindingId
from trainseal.cluster.api import ConflictError, Kube, KubeError, NotFoundError

Object = dict[str, Any]
NOW = datetime(2026, 11, 26, tzinfo=UTC)
POD = Subject("research", "char-lm-worker-0-x", "0aa3b1c2-1111-2222-3333-444455556666", "char-lm-1")
SED = Process(4711, 1, NOW, "/usr/bin/sed", ("sed",), 1000, "c" * 64)


def edit(path: str = "/torch/optim/sgd.py", **changed: Any) -> Observation:
    digest = "sha256:" + "0" * 64
    fields: Object = {
        "finding": FindingId.FILE_CHANGED,
        "message": "it was written",
        "path": path,
        "lineage": Lineage((SED,), session=SED),
        "content": Content(digest, 3, 0o644, b"now", steady=True),
    }
    return Observation(**(fields | changed))


class Server:
    """DriftReports and EvidenceItems; ``away`` fails every request, ``refuses`` the items."""

    def __init__(self) -> None:
        self.stored: dict[str, Object] = {}
        self.made: list[str] = []
        self.away = False
        self.refuses: KubeError | None = None
        self.refused = 0

    def _check(self) -> None:
        if self.away:
            raise KubeError(0, "Unreachable", "gone fishing")

    async def create(self, path: str, obj: Object) -> Object:
        self._check()
        if obj["kind"] == "EvidenceItem" and self.refuses:
            self.refused += 1
            raise self.refuses
        name = f"{path}/{obj['metadata']['name']}"
        if name in self.stored:
            raise ConflictError(409, "AlreadyExists", "it is there")
        self.stored[name] = copy.deepcopy(obj)
        self.made.append(obj["metadata"]["name"])
        return obj

    async def get(self, path: str) -> Object:
        self._check()
        return copy.deepcopy(self.stored[path])

    async def patch(self, path: str, patch: Object) -> Object:
        self._check()
        name = path.removesuffix("/status")
        if name not in self.stored:
            raise NotFoundError(404, "NotFound", "no such report")
        self.stored[name]["status"] = self.stored[name].get("status", {}) | patch["status"]
        DriftReport.parse(self.stored[name])
        return self.stored[name]

    def of(self, kind: str) -> list[Object]:
        return [o for o in self.stored.values() if o["kind"] == kind]

    @property
    def items(self) -> list[EvidenceItem]:
        return [EvidenceItem.parse(o) for o in self.of("EvidenceItem")]

    @property
    def status(self) -> Object:
        (report,) = self.of("DriftReport")
        found: Object = report.get("status", {})
        return found

    @property
    def named(self) -> dict[str, str | None]:
        """What the findings say of their evidence, by path."""
        return {f["path"]: f.get("evidenceItem") for f in self.status.get("findings", [])}


class World:
    """A server, and an agent that can be started again. ``taken`` are the paths, in order."""

    def __init__(self) -> None:
        self.server = Server()
        self.taken: list[str] = []
        self.unready = False
        self.start()

    def start(self) -> None:
        kube = cast("Kube", self.server)
        self.keeper = EvidenceKeeper(kube, "node-1", self._take, lambda: NOW)
        self.reports = Reports(
            kube,
            "node-1",
            policies=lambda _: (),
            join=lambda *_: None,
            freeze=lambda *_: None,
            clock=lambda: NOW,
            evidence=self.keeper,
        )
        self.keeper.connect(self.reports)
        self.running = asyncio.ensure_future(self.keeper.run())
        self.reports.begin(POD)

    def _take(self, _uid: str, container: str | None, seen: Observation) -> Taken:
        assert container == "trainer"
        if self.unready:
            raise OSError("out of descriptors")
        self.taken.append(seen.path or "")
        return Taken(NOW, "Kept", seen.content, [TakenProcess(SED, acting=True, ended=True)])

    def see(self, *observations: Observation) -> None:
        for observation in observations:
            self.reports.see(POD.uid, "trainer", observation)

    async def stop(self) -> None:
        await self.keeper.close(0.5)
        await self.reports.close(0.5)
        self.running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.running


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    for name in ("PAUSE_SECONDS", "COUNTS_SECONDS", "_FIRST_RETRY", "_LONGEST_RETRY"):
        monkeypatch.setattr(reports_module, name, 0.001)
    for name in ("_FIRST_PAUSE", "_LONGEST_PAUSE"):
        monkeypatch.setattr(module, name, 0.001)
    found = World()
    yield found
    await found.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the condition is a fake server's state
            await asyncio.sleep(0.001)


async def test_evidence_of_a_finding_is_written_and_named_in_the_report(world: World) -> None:
    world.see(edit())
    await until(lambda: bool(world.server.named.get("/torch/optim/sgd.py")))
    (item,) = world.server.items
    (finding,) = world.server.status["findings"]
    assert item.metadata.name == finding["evidenceItem"]
    assert item.spec.finding.key == finding["key"]
    assert item.spec.file is not None
    assert item.spec.file.path == "/torch/optim/sgd.py"
    assert "evidenceDropped" not in world.server.status


async def test_the_finding_is_told_before_its_evidence_is_taken(world: World) -> None:
    gate = asyncio.Event()
    loop, take = asyncio.get_running_loop(), world._take

    def slow(uid: str, container: str | None, seen: Observation) -> Taken:
        asyncio.run_coroutine_threadsafe(gate.wait(), loop).result()
        return take(uid, container, seen)

    world.keeper._take = slow
    world.see(edit())
    await until(lambda: bool(world.server.status.get("findings")))
    assert world.server.items == []
    gate.set()
    await until(lambda: bool(world.server.items))


async def test_the_same_thing_seen_again_has_no_further_evidence(world: World) -> None:
    world.see(edit())
    await until(lambda: len(world.server.items) == 1)
    world.see(edit(), edit())
    await until(lambda: [f["count"] for f in world.server.status.get("findings", [])] == [3])
    assert world.taken == ["/torch/optim/sgd.py"]


async def test_what_is_only_information_has_none(world: World) -> None:
    world.see(edit(finding=FindingId.BYTECODE_WRITTEN), edit("/other"))
    await until(lambda: len(world.server.items) == 1)
    assert world.taken == ["/other"]


async def test_beyond_the_bound_findings_are_told_and_their_evidence_is_counted(
    world: World,
) -> None:
    world.see(*(edit(f"/{number}") for number in range(20)))
    await until(lambda: sum(map(bool, world.server.named.values())) == 16)
    assert len(world.server.named) == 20
    assert world.server.status["evidenceDropped"] == 4


async def test_a_flood_of_lesser_findings_leaves_room_for_a_critical_one(world: World) -> None:
    lesser = FindingId.FILE_ATTRIBUTES
    world.see(*(edit(f"/{number}", finding=lesser) for number in range(20)), edit("/critical"))
    await until(lambda: bool(world.server.named.get("/critical")))
    await until(lambda: len(world.server.items) == 9)
    assert world.server.status["evidenceDropped"] == 12


async def test_the_most_severe_is_taken_and_written_first(world: World) -> None:
    await until(lambda: bool(world.server.of("DriftReport")))
    lesser = FindingId.FILE_ATTRIBUTES
    world.see(edit("/a", finding=lesser), edit("/b", finding=lesser), edit("/critical"))
    await until(lambda: len(world.server.items) == 3)
    assert world.taken == ["/critical", "/a", "/b"]
    first = world.server.items[0].spec.file
    assert first is not None
    assert first.path == "/critical"


async def test_evidence_taken_while_the_api_server_is_away_is_written_later(world: World) -> None:
    await until(lambda: bool(world.server.of("DriftReport")))
    world.server.away = True
    world.see(edit())
    await until(lambda: world.taken == ["/torch/optim/sgd.py"])
    await asyncio.sleep(0.02)
    world.server.away = False
    await until(lambda: bool(world.server.named.get("/torch/optim/sgd.py")))


@pytest.mark.parametrize(("status", "tries"), [(422, 1), (403, 5)])
async def test_evidence_that_is_refused_is_counted_and_holds_nothing_up(
    world: World, status: int, tries: int
) -> None:
    world.server.refuses = KubeError(status, "No", "exceeded quota")
    world.see(edit())
    await until(lambda: world.server.status.get("evidenceDropped") == 1)
    assert world.server.refused == tries
    world.server.refuses = None
    world.see(edit("/next"))
    await until(lambda: bool(world.server.named.get("/next")))


async def test_evidence_that_cannot_be_taken_is_counted(world: World) -> None:
    world.unready = True
    world.see(edit())
    await until(lambda: world.server.status.get("evidenceDropped") == 1)
    assert world.server.items == []


async def test_a_restart_repeats_nothing_and_goes_on_counting(world: World) -> None:
    world.see(*(edit(f"/{number}") for number in range(15)))
    await until(lambda: len([n for n in world.server.named.values() if n]) == 15)
    await world.stop()
    before = list(world.server.made)
    world.taken.clear()
    world.start()
    world.see(edit("/0"), edit("/new"), edit("/newer"))
    await until(lambda: "/newer" in world.server.named)
    await until(lambda: world.server.status.get("evidenceDropped") == 1)
    await until(lambda: sum(map(bool, world.server.named.values())) == 16)
    assert len(world.server.made) == len(before) + 1


async def test_what_a_walk_finds_after_a_restart_is_not_taken_for_new(world: World) -> None:
    world.see(edit())
    await until(lambda: bool(world.server.named.get("/torch/optim/sgd.py")))
    await world.stop()
    world.server.away = True
    world.start()
    world.see(edit(lineage=None))  # as it finds the trace of it, before it knows
    await until(lambda: len(world.taken) == 2)
    world.server.away = False
    await until(lambda: world.server.status["findings"][0]["count"] == 2)
    await world.stop()
    assert len(world.server.items) == 1
    assert "evidenceDropped" not in world.server.status


async def test_what_was_not_written_before_a_restart_is_written_after_it(world: World) -> None:
    world.server.refuses = KubeError(503, "Unavailable", "a moment")
    world.see(edit())
    await until(lambda: bool(world.server.named) and world.server.refused > 0)
    world.running.cancel()
    await world.reports.close(0.5)
    world.server.refuses = None
    world.start()
    await until(lambda: world.reports.is_known(POD.uid))
    world.see(edit(lineage=None))  # a walk finds the trace
    await until(lambda: bool(world.server.named.get("/torch/optim/sgd.py")))
    (item,) = world.server.items
    assert item.spec.finding.key == world.server.status["findings"][0]["key"]


async def test_an_item_that_an_earlier_agent_wrote_and_did_not_name_is_named(world: World) -> None:
    world.see(edit())
    await until(lambda: bool(world.server.named.get("/torch/optim/sgd.py")))
    await world.stop()
    del world.server.status["findings"][0]["evidenceItem"]
    world.start()
    await until(lambda: world.reports.is_known(POD.uid))
    world.see(edit())
    await until(lambda: bool(world.server.named.get("/torch/optim/sgd.py")))
    assert len(world.server.items) == 1


async def test_an_item_of_another_node_under_that_name_is_not_taken_for_ours(world: World) -> None:
    world.see(edit())
    await until(lambda: bool(world.server.named.get("/torch/optim/sgd.py")))
    await world.stop()
    (there,) = world.server.of("EvidenceItem")
    there["spec"]["node"] = "node-2"
    del world.server.status["findings"][0]["evidenceItem"]
    world.start()
    world.see(edit())
    await until(lambda: world.server.status.get("evidenceDropped") == 1)
    assert world.server.named == {"/torch/optim/sgd.py": None}


async def test_a_pod_that_ended_is_remembered_until_its_evidence_is_written(world: World) -> None:
    world.server.refuses = KubeError(503, "Unavailable", "a moment")
    world.see(edit())
    world.reports.end(POD.uid)
    await until(lambda: world.server.refused > 1)
    world.server.refuses = None
    await until(lambda: bool(world.server.named.get("/torch/optim/sgd.py")))
    await until(lambda: not world.keeper._pods)
