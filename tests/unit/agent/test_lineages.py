"""Whose a process is that was ending when it was looked at: its groups say nothing any more."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from trainseal.agent.observed import WatchedContainer
from trainseal.agent.processes import Processes

ID, UID = "a1" * 32, "0f7a1c52-1111-4222-8333-000000000001"
FIRST, MIDDLE, CHILD = 10, 11, 12
IN_CONTAINER = f"1:pids:/kubepods/pod{UID}/{ID}\n"
EXITING = 0x4


@dataclass
class Proc:
    """A /proc with as much in it as is read of a process."""

    root: Path

    def put(
        self,
        pid: int,
        parent: int,
        *,
        group: str = IN_CONTAINER,
        flags: int = 0,
        namespaces: bool = True,
        session: int = FIRST,
    ) -> None:
        folder = self.root / str(pid)
        (folder / "ns").mkdir(parents=True, exist_ok=True)
        image = 0 if flags & EXITING else 700
        numbers = f"0 -1 {flags} 1 2 3 4 5 6 7 8 20 0 1 0 {1000 + pid} 10 20 30 {image} 200 300"
        rest = " 0" * 17 + " 0 0 0 400 500 600 700 800 900 1000 0"
        (folder / "stat").write_text(f"{pid} (python) R {parent} 1 {session} {numbers}{rest}\n")
        (folder / "status").write_text("Uid:\t0\t0\t0\t0\nTracerPid:\t0\n")
        (folder / "cgroup").write_text(group)
        (folder / "cmdline").write_bytes(b"" if flags & EXITING else b"python\0x.py\0")
        for name in ("mnt", "pid"):
            link = folder / "ns" / name
            link.unlink(missing_ok=True)
            if namespaces:
                link.symlink_to(f"{name}:[{1 if pid == 1 else 7}]")

    def ending(self, pid: int, parent: int, *, namespaces: bool = True) -> None:
        """Its memory is gone, and with v1 of control groups it has left its own."""
        self.put(pid, parent, group="1:pids:/\n", flags=EXITING, namespaces=namespaces)


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    """A container's first process, and one that it started."""
    proc = Proc(tmp_path)
    proc.put(1, 0, group="1:pids:/\n", session=1)
    proc.put(FIRST, 1)
    proc.put(MIDDLE, FIRST)
    proc.put(CHILD, MIDDLE)
    return proc


@pytest.fixture
def container() -> WatchedContainer:
    now = datetime(2026, 3, 1, tzinfo=UTC)
    return WatchedContainer("research", "w-0", UID, "seal", "trainer", ID, FIRST, now, (), {})


def session_of(proc: Proc, container: WatchedContainer, pid: int) -> int | None:
    lineage = Processes(proc.root).lineage(pid, container)
    assert lineage
    return lineage.session.pid if lineage.session else None


def test_who_has_left_the_containers_group_while_it_lives_has_entered(
    proc: Proc, container: WatchedContainer
) -> None:
    proc.put(MIDDLE, FIRST, group="1:pids:/\n")
    assert session_of(proc, container, CHILD) == MIDDLE


@pytest.mark.parametrize("namespaces", [True, False])
def test_a_child_of_one_that_is_ending_is_the_trainers(
    proc: Proc, container: WatchedContainer, namespaces: bool
) -> None:
    proc.ending(MIDDLE, FIRST, namespaces=namespaces)
    assert session_of(proc, container, CHILD) is None


def test_one_that_is_ending_when_it_is_first_looked_at_has_not_entered(
    proc: Proc, container: WatchedContainer
) -> None:
    proc.ending(MIDDLE, FIRST)
    assert session_of(proc, container, MIDDLE) is None


def test_one_that_was_looked_at_before_is_what_it_was_until_it_ends(
    proc: Proc, container: WatchedContainer
) -> None:
    proc.put(MIDDLE, FIRST, group="1:pids:/\n")
    processes = Processes(proc.root)
    before = processes.lineage(MIDDLE, container)
    assert before
    assert before.session
    proc.ending(MIDDLE, FIRST, namespaces=False)
    after = processes.lineage(CHILD, container)
    assert after
    assert after.session
    assert after.session.pid == MIDDLE


def test_one_that_is_ending_runs_no_more(proc: Proc) -> None:
    processes = Processes(proc.root)
    assert processes.runs(MIDDLE)
    proc.ending(MIDDLE, FIRST)
    assert processes.read(MIDDLE) is not None
    assert not processes.runs(MIDDLE)
    assert not processes.runs(4_000_000)


def test_one_that_is_ending_is_no_member(proc: Proc, container: WatchedContainer) -> None:
    proc.ending(MIDDLE, FIRST)
    members = Processes(proc.root).members([container])[ID]
    assert [m.process.pid for m in members] == [FIRST, CHILD]
    assert all(m.grouped for m in members)
