"""Hands in the memory of a container's process for a moment, seen by events: beside its own."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.integration.agent.sweeplab import PYTHON, Lab, started
from trainseal.agent.eyes import Eyes
from trainseal.agent.fanotify import probe
from trainseal.agent.ledger import key_of
from trainseal.agent.observed import Observation
from trainseal.agent.processes import Processes
from trainseal.agent.sweep_memory import MemorySweep
from trainseal.api.findings import FindingId

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not shutil.which("unshare"), reason="needs root: namespaces"
)
_WRITE = """
import sys, time
maps = [line.split() for line in open(f"/proc/{sys.argv[1]}/maps")]
start = next(int(m[0].split("-")[0], 16) for m in maps if m[-1] == "[heap]")
with open(f"/proc/{sys.argv[1]}/mem", "r+b", buffering=0) as memory:
    memory.seek(start)
    held = memory.read(8)
    memory.seek(start)
    memory.write(held)
    time.sleep(float(sys.argv[2]))
"""
_OPEN = "import sys; open(f'/proc/{sys.argv[1]}/mem', 'r+b').close()"
_READ = "import sys; open(f'/proc/{sys.argv[1]}/mem', 'rb').close()"
_OTHERS = """
for path in ("/proc/self/oom_score_adj", "/proc/self/comm", "/proc/self/coredump_filter"):
    text = open(path).read()
    for _ in range(100):
        open(path, "w").write(text)
"""


@dataclass
class Watched:
    """A container with eyes on it."""

    lab: Lab
    eyes: Eyes
    processes: Processes
    found: list[Observation] = field(default_factory=list)

    def read(self, until: Callable[[], object]) -> list[Observation]:
        """What is seen of processes' memory until something holds, and all that was queued."""
        end = time.monotonic() + 20
        while not until():
            assert time.monotonic() < end
            if select.select(self.eyes.filenos(), [], [], 0.05)[0]:
                self._take()
        self._take()
        return self.found

    def one(self) -> Observation:
        """The one finding, told by the write or by the closing, or by both."""
        seen = self.read(lambda: self.found)
        assert len({key_of("trainer", one) for one in seen}) == 1
        return seen[0]

    def _take(self) -> None:
        seen = self.eyes.read()
        self.found += [o for o in seen if o.finding is FindingId.PROCESS_MEMORY_OPENED]
        assert not [o for o in seen if o.finding is FindingId.WATCH_OVERFLOW]

    def entering(self, *words: str) -> subprocess.Popen[bytes]:
        """A Python program in the container's namespaces."""
        target = f"--target={self.lab.watched.pid}"
        return subprocess.Popen(["nsenter", target, "--mount", "--pid", PYTHON, "-c", *words])


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    with started(tmp_path / "layers") as lab:
        processes = Processes()
        eyes = Eyes(
            lab.watched,
            probe(),
            lambda pid: processes.lineage(pid, lab.watched),
            node=lab.node,
        )
        with contextlib.closing(eyes):
            assert eyes.open() == []
            yield Watched(lab, eyes, processes)


@pytest.mark.parametrize("script", [_WRITE, _OPEN])
def test_memory_of_another_that_was_open_for_writing_for_a_moment_is_found(
    watched: Watched, script: str
) -> None:
    pid = watched.lab.enter(PYTHON, "-c", script, "1", "0")
    found = watched.one()
    assert found.lineage
    assert (found.lineage.chain[0].pid, found.lineage.session is not None) == (pid, True)
    assert found.evidence["memory of"].startswith("1 in the container: ")


def test_it_is_found_though_who_did_it_is_gone(watched: Watched) -> None:
    assert watched.entering(_WRITE, "1", "0").wait(20) == 0
    assert watched.one()


def test_from_the_node_through_the_containers_own_files_it_is_found(watched: Watched) -> None:
    root = f"{watched.lab.watched.pid}/root/proc/1"
    with watched.lab.aside(PYTHON, "-c", _OPEN, root) as other:
        found = watched.one()
    assert found.lineage
    assert (found.lineage.chain[0].pid, found.lineage.session) == (other.pid, None)


def test_held_it_is_the_finding_that_the_sweep_makes(watched: Watched) -> None:
    watched.lab.child(PYTHON, "-c", _WRITE, "1", "100")
    found = watched.one()
    container = watched.lab.watched
    members = watched.processes.members([container])
    (swept,) = [seen[1] for seen in MemorySweep(watched.processes).run(members) if seen]
    assert key_of("trainer", swept) == key_of("trainer", found)


@pytest.mark.parametrize(
    ("script", "whose"),
    [(_WRITE, "self"), (_OPEN, "self"), (_OPEN, "thread-self"), (_READ, "1"), (_OTHERS, "1")],
)
@pytest.mark.parametrize("late", [False, True], ids=["while it lives", "when it has ended"])
def test_ones_own_memory_reading_and_other_files_of_proc_are_silent(
    watched: Watched, script: str, whose: str, late: bool
) -> None:
    with watched.entering(script, whose, "0.2") as process:
        if late:
            process.wait(20)
        assert watched.read(lambda: process.poll() is not None) == []
    assert process.returncode == 0
