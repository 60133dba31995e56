"""The watch of a node, over groups in a folder: who is looked for, and what is read last."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from trainseal.agent import watch as watch_module
from trainseal.agent.containers import SealedPod
from trainseal.agent.freezing import KILLED
from trainseal.agent.observed import (
    Observation,
    Process,
    Profile,
    RoleMount,
    WatchedContainer,
)
from trainseal.agent.watch import Eyes, NodeWatch
from trainseal.api.driftreport import ContainerProfile
from trainseal.api.findings import FindingId
from trainseal.api.model import Condition
from trainseal.provenance.freezeorders import Order

UID = "6a6956fe-0000-4000-8000-000000000000"
PAUSE, TRAINER = "a" * 64, "b" * 64
NOW = datetime(2026, 11, 23, 21, 0, tzinfo=UTC)
TRAINING = WatchedContainer("research", "w-0", UID, "seal", "trainer", TRAINER, 4712, NOW, (), {})


class Looks:
    """Counts how often a first process was asked for."""

    lacking: Sequence[str] = ()
    sweeping = "research/w-0 trainer"

    def __init__(self) -> None:
        self.asked = 0

    def process(self, pid: int) -> Process | None:
        del pid
        self.asked += 1
        return None

    def runs(self, pid: int) -> bool:
        return self.process(pid) is not None

    def eyes(self, container: WatchedContainer) -> Eyes:
        raise OSError(container.container)

    def sweep(
        self, containers: Sequence[WatchedContainer]
    ) -> Iterable[tuple[WatchedContainer, Observation]]:
        del containers
        return ()


class Told:
    """What the reports were told."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def see(self, _uid: str, _container: str | None, seen: Observation) -> None:
        self.seen.append(seen.message)

    def __getattr__(self, _: str) -> Any:
        return lambda *_, **__: None


@pytest.fixture
def group(tmp_path: Path) -> Path:
    """The control group of a pod whose pause container runs."""
    folder = tmp_path / "kubepods" / f"pod{UID}"
    for name in (folder, folder / PAUSE):
        name.mkdir(parents=True, exist_ok=True)
        (name / "cgroup.procs").write_text("4711\n")
    return folder


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Looks:
    monkeypatch.setattr(watch_module, "_LOOK_SECONDS", 0.05)
    monkeypatch.setattr(watch_module, "recognise", lambda *a: a[3](4711))
    return Looks()


class Conditions(Told):
    """Also what was said of the watch of the pod."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[tuple[str, str]] = []

    def say(self, _uid: str, _what: str, status: str, _reason: str, words: str) -> None:
        self.said.append((status, words))


async def watching(looks: Looks, group: Path, told: Told) -> NodeWatch:
    found = NodeWatch(cast("Any", looks), group.parents[1])
    pods = type("Pods", (), {"pods": {UID: type("Pod", (), {"order": None, "ends": None})()}})
    found.connect(cast("Any", pods), cast("Any", told))
    found._enter(UID, group)
    await looked(found)
    return found


async def looked(watch: NodeWatch) -> None:
    """Until nobody is looked for."""
    while tasks := list(watch._looking.values()):
        await asyncio.gather(*tasks)
        await asyncio.sleep(0)


async def test_who_is_none_of_the_templates_is_looked_at_once_a_pass_and_no_longer(
    looks: Looks, group: Path
) -> None:
    watch = await watching(looks, group, Told())
    first = looks.asked
    assert first > 1
    for passes in (1, 2, 3):
        watch._look_again(UID)
        await looked(watch)
        assert looks.asked == first + passes


async def test_what_a_node_comes_to_lack_is_said_of_its_pods_and_taken_back_later(
    looks: Looks, group: Path
) -> None:
    told = Conditions()
    watch = await watching(looks, group, told)
    for lacking in ((), ("the driver's library is not here",), ()):
        looks.lacking = lacking
        watch._everything_again()
    await looked(watch)
    assert [status for status, _ in told.said[-3:]] == ["True", "False", "True"]
    assert "library is not here" in told.said[-2][1]


async def test_what_is_seen_late_of_a_container_is_said_of_its_pod(
    looks: Looks, group: Path
) -> None:
    told = Conditions()
    watch = await watching(looks, group, told)
    slow = type("Slow", (), {"lacking": ("what lies in a large layer",)})()
    watch._watched[TRAINER] = watch_module._Watched(TRAINING, slow)
    watch._tell_whether_whole(UID)
    slow.lacking = ()
    watch._tell_whether_whole(UID)
    assert [status for status, _ in told.said[-2:]] == ["False", "True"]
    assert "large layer" in told.said[-2][1]


@pytest.mark.parametrize("moved", [True, False])
async def test_one_that_has_other_mounts_than_before_is_marked_anew(
    looks: Looks, group: Path, monkeypatch: pytest.MonkeyPatch, moved: bool
) -> None:
    watch = await watching(looks, group, Told())
    (group / TRAINER).mkdir()
    (group / TRAINER / "cgroup.procs").write_text("4712\n")
    monkeypatch.setattr(watch, "_lives", lambda _: True)
    monkeypatch.setattr(looks, "runs", lambda _: True)
    mounts = (RoleMount("/mesh/code", "code", "code-trainer"),) if moved else ()
    found = replace(TRAINING, mounts=mounts)
    containers = {"trainer": type("Known", (), {"mounts": mounts})()}
    pod = type("Pod", (), {"order": None, "ends": None, "containers": containers})()
    cast("Any", watch._pods).pods[UID] = pod
    monkeypatch.setattr(watch_module, "recognise", lambda *a: found if a[1] == TRAINER else None)
    watched = watch_module._Watched(TRAINING, None)
    watch._watched[TRAINER] = watched
    watch.pod_changed(UID)
    await looked(watch)
    assert watch._watched[TRAINER].container.mounts == mounts
    assert (watch._watched[TRAINER] is watched) is not moved


async def test_another_container_of_the_pod_is_looked_for_with_all_patience(
    looks: Looks, group: Path
) -> None:
    watch = await watching(looks, group, Told())
    before = looks.asked
    (group / TRAINER).mkdir()
    (group / TRAINER / "cgroup.procs").write_text("4712\n")
    watch._look_again(UID)
    await looked(watch)
    assert looks.asked > before + 2


async def test_the_profile_that_a_sweep_ends_with_is_for_the_report_and_no_finding(
    looks: Looks, group: Path
) -> None:
    told = Told()
    given: list[ContainerProfile] = []
    told.compare_by = lambda _, profile: given.append(profile)  # type: ignore[attr-defined]
    watch = await watching(looks, group, told)
    seen = Observation(FindingId.MAP_FOREIGN, "foreign")
    swept = [(TRAINING, seen), (TRAINING, Profile({"/a": "removed"}, {}, {}))]
    cast("Any", looks).sweep = lambda _: iter(swept)
    watch._watched[TRAINER] = watch_module._Watched(TRAINING, None)
    await watch._sweep()
    await asyncio.sleep(0)
    assert told.seen == ["foreign"]
    assert [(p.container, p.files and p.files.count) for p in given] == [("trainer", 1)]


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_module, "SWEEP_SECONDS", 0.02)
    monkeypatch.setattr(watch_module, "HANGS_SECONDS", 0.1)


async def until(there: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not there():  # noqa: ASYNC110 - another thread comes to it
            await asyncio.sleep(0.01)


@pytest.mark.usefixtures("impatient")
async def test_a_sweep_that_hangs_is_said_of_all_that_it_keeps_unseen_until_it_goes_on(
    looks: Looks, group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, answers = Conditions(), threading.Event()
    watch = await watching(looks, group, told)
    watch._watched[TRAINER] = watch_module._Watched(TRAINING, None)
    cast("Any", watch._pods).pods[UID] = None  # lives on, whatever its processes are
    monkeypatch.setattr(watch, "pod_changed", lambda _: None)

    def waits(_: object) -> Iterable[object]:
        answers.wait(10)
        return ()

    cast("Any", looks).sweep = waits
    sweep = asyncio.ensure_future(watch._sweep())
    await until(lambda: bool(told.seen))
    assert "it is at research/w-0 trainer" in told.seen[0]
    looks.sweeping = "secret/w-0 trainer"
    before = len(told.seen)
    await until(lambda: len(told.seen) > before)
    assert "it is at a pod of another namespace" in told.seen[-1]
    assert told.said[-1][0] == "False"
    assert "a sweep is not done" in told.said[-1][1]
    answers.set()
    await sweep
    watch._everything_again()
    assert told.said[-1][0] == "True"


@pytest.mark.usefixtures("impatient")
async def test_a_sweep_that_ends_in_time_says_nothing(
    looks: Looks, group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "HANGS_SECONDS", 100.0)
    told = Conditions()
    watch = await watching(looks, group, told)
    cast("Any", looks).sweep = lambda _: time.sleep(0.1) or ()  # type: ignore[func-returns-value]
    await watch._sweep()
    assert told.seen == []
    assert {status for status, _ in told.said} <= {"True"}


@pytest.mark.usefixtures("impatient")
async def test_a_container_whose_marking_hangs_is_said_not_to_be_watched(
    looks: Looks, group: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, answers = Conditions(), threading.Event()

    def hangs(_: WatchedContainer) -> Eyes:
        answers.wait(10)
        raise OSError("it ended")

    monkeypatch.setattr(looks, "eyes", hangs)
    watch = await watching(looks, group, told)
    opening = asyncio.ensure_future(watch._open(TRAINING))

    def asked() -> bool:
        watch._everything_again()
        return bool(told.seen)

    await until(asked)
    assert "files of container trainer" in told.seen[0]
    assert told.said[-1][0] == "False"
    answers.set()
    await opening
    watch._everything_again()
    assert told.said[-1][0] == "True"
    await looked(watch)


async def test_what_eyes_put_off_is_told_when_the_container_ends(looks: Looks, group: Path) -> None:
    told = Told()
    watch = await watching(looks, group, told)

    class PutsOff:
        lacking = ()

        def open(self) -> Iterable[Observation]:
            return ()

        def filenos(self) -> Sequence[int]:
            return ()

        def read(self, *, final: bool = False) -> Iterable[Observation]:
            return [Observation(FindingId.FILE_CREATED, "late")] if final else []

        def close(self) -> None:
            pass

    watch._watched[TRAINER] = watch_module._Watched(TRAINING, PutsOff())
    watch._close(TRAINER)
    assert told.seen == ["late"]


TRAINER_PROCESS = Process(4712, 1, NOW, "/bin/python3", ("python3",), 0, TRAINER)


class HalfBlind:
    """Could not set each mark, and found a file."""

    lacking = ()

    def open(self) -> Iterable[Observation]:
        return [
            Observation(FindingId.WATCH_BLIND, "/dev/shm is not watched"),
            Observation(FindingId.FILE_CREATED, "a file"),
        ]

    def filenos(self) -> Sequence[int]:
        return ()

    def read(self, *, final: bool = False) -> Iterable[Observation]:
        del final
        return ()

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    ("there", "runs", "told"),
    [
        (True, True, ["/dev/shm is not watched", "a file"]),
        (True, False, ["a file"]),  # not yet waited for
        (False, False, ["a file"]),
    ],
)
async def test_of_a_container_that_ends_while_it_is_marked_nobody_is_told_that_marks_are_missing(
    looks: Looks,
    group: Path,
    monkeypatch: pytest.MonkeyPatch,
    there: bool,
    runs: bool,
    told: list[str],
) -> None:
    found = Told()
    watch = await watching(looks, group, found)
    monkeypatch.setattr(looks, "eyes", lambda _: HalfBlind())
    monkeypatch.setattr(looks, "process", lambda _: TRAINER_PROCESS if there else None)
    monkeypatch.setattr(looks, "runs", lambda _: runs)
    await watch._open(TRAINING)
    assert found.seen == told


async def test_a_frozen_pod_that_is_deleted_can_end_once_its_time_is_over(
    looks: Looks, group: Path
) -> None:
    """Also with an order to freeze that still stands: its run's, which goes with it."""
    state = group / PAUSE / "freezer.state"
    state.write_text("FROZEN")
    ends = NOW + timedelta(seconds=30)
    times = [ends, ends + KILLED]
    watch = NodeWatch(cast("Any", looks), group.parents[1], clock=lambda: times.pop(0))
    pod = SealedPod("research", "w-0", UID, "seal", {}, order=Order("Frozen", NOW), ends=ends)
    frozen = Condition(type="Frozen", status="True", reason="Frozen", last_transition_time=NOW)
    told = Told()
    told.condition = lambda *_: frozen  # type: ignore[attr-defined]
    told.is_known = lambda _: True  # type: ignore[attr-defined]
    watch.connect(cast("Any", type("Pods", (), {"pods": {UID: pod}})), cast("Any", told))
    watch._groups[UID] = group
    for expected in ("FROZEN", "THAWED"):
        watch.pod_changed(UID)
        await asyncio.gather(*watch._freezing()._acts)
        assert state.read_text() == expected
    await looked(watch)
