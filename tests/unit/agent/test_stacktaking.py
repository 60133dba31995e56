"""Which processes of a pod are looked at, and what is said of those without stacks."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from trainseal.agent.observed import Process, WatchedContainer
from trainseal.agent.processes import Processes
from trainseal.agent.spying import SpyError
from trainseal.agent.stacktaking import POD_SECONDS, PROCESS_SECONDS, StackTaker, Taken
from trainseal.api.stackdump import MAX_PROCESSES

BOOT = datetime(2026, 11, 1, tzinfo=UTC)
CONTAINER = WatchedContainer(
    *("research", "char-lm-worker-0", "uid-0", "char-lm", "trainer", "c" * 64, 10),
    started=BOOT,
    mounts=(),
    env={},
)
STACKS = json.dumps(
    [{"thread_name": "MainThread", "os_thread_id": 1, "frames": [{"name": "f", "filename": "/f"}]}]
).encode()


def python(pid: int, executable: str = "/usr/bin/python3.11", after: int = 0) -> Process:
    started = BOOT + timedelta(seconds=after)
    return Process(pid, 1, started, executable, ("secret",), 0, "c" * 64)


class Node:
    """The processes of one container; ``maps`` by pid. What py-spy does is ``spy``."""

    def __init__(self) -> None:
        self.there: dict[int, Process] = {}
        self.maps: dict[int, bytes] = {}
        self.status = b"Uid:\t0\t0\t0\t0\nTracerPid:\t0\nNSpid:\t10\t1\n"
        self.now = 0.0
        self.asked: list[tuple[int, float]] = []
        self.spy: Any = lambda _: STACKS

    def add(self, *processes: Process) -> None:
        self.there |= {p.pid: p for p in processes}

    def members(self, containers: Sequence[WatchedContainer]) -> dict[str, list[Any]]:
        found = [SimpleNamespace(process=p) for p in self.there.values()]
        return {c.container_id: found for c in containers}

    def read(self, pid: int) -> Process | None:
        return self.there.get(pid)

    def file(self, pid: int, name: str, _most: int = 0) -> bytes:
        if pid not in self.there:
            raise ProcessLookupError(pid)
        return self.status if name == "status" else self.maps.get(pid, b"")

    def dump(self, pid: int, seconds: float) -> bytes:
        self.asked.append((pid, seconds))
        found: bytes = self.spy(pid)
        return found

    def take(self, *containers: WatchedContainer) -> Taken:
        taker = StackTaker(cast("Processes", self), self.dump, lambda: self.now)
        return taker.take(containers or (CONTAINER,))


@pytest.fixture
def node() -> Node:
    """One Python process, which can be read."""
    made = Node()
    made.add(python(10))
    return made


def test_a_python_process_is_told_with_its_container_program_and_threads(node: Node) -> None:
    taken = node.take()
    (found,) = taken.processes
    assert (found.pid, found.parent, found.container) == (10, 1, "trainer")
    assert found.executable == "/usr/bin/python3.11"
    assert [(t.name, t.main) for t in found.threads or ()] == [("MainThread", True)]
    assert (taken.omitted, taken.message) == (0, "")
    assert "secret" not in found.model_dump_json()


@pytest.mark.parametrize(
    "executable",
    ["/usr/bin/python3", "/opt/python", "/usr/bin/python3.13t", "/x/python3.12d (deleted)"],
)
def test_a_python_is_known_by_its_programs_name(node: Node, executable: str) -> None:
    node.add(python(10, executable))
    assert [p.pid for p in node.take().processes] == [10]


@pytest.mark.parametrize("executable", ["/bin/sh", "/usr/bin/python3-config", "/python3/sleep"])
def test_what_is_called_otherwise_is_passed_over(node: Node, executable: str) -> None:
    node.add(python(11, executable))
    assert [p.pid for p in node.take().processes] == [10]


def test_a_program_that_embeds_python_is_known_by_the_library(node: Node) -> None:
    node.add(python(11, "/usr/bin/server"))
    node.maps[11] = b"7f00-7f01 r-xp 0 08:01 77   /usr/lib/libpython3.11.so.1.0\n"
    assert [p.pid for p in node.take().processes] == [10, 11]


def test_without_a_python_process_the_answer_says_so(node: Node) -> None:
    node.there = {}
    taken = node.take()
    assert taken.processes == ()
    assert taken.message == "no Python stacks: no process of the pod's containers is Python"


def test_a_pod_whose_containers_only_start_says_so(node: Node) -> None:
    taker = StackTaker(cast("Processes", node), node.dump)
    assert taker.take([]).message == "no Python stacks: no container of the pod is watched yet"


def test_why_py_spy_has_nothing_is_said_and_the_others_are_read(node: Node) -> None:
    node.add(python(11, after=1))

    def spy(pid: int) -> bytes:
        if pid == 10:
            raise SpyError("Failed to find python version from target process")
        return STACKS

    node.spy = spy
    first, second = node.take().processes
    assert first.threads is None
    assert first.problem == ("no Python stacks: Failed to find python version from target process")
    assert second.threads
    assert second.problem is None


def test_an_answer_that_cannot_be_read_is_said(node: Node) -> None:
    node.spy = lambda _: b"nonsense"
    (found,) = node.take().processes
    assert (found.problem or "").startswith("no Python stacks: py-spy's answer is no JSON")


def test_what_was_read_of_another_process_with_the_same_number_is_not_told(node: Node) -> None:
    """It may be of another pod, whose people did not ask."""

    def spy(pid: int) -> bytes:
        node.there[pid] = python(pid, after=99)
        return STACKS

    node.spy = spy
    (found,) = node.take().processes
    assert found.threads is None
    assert found.problem == "no Python stacks: it ended meanwhile"


def test_a_process_that_ends_while_it_is_read_says_so(node: Node) -> None:
    def spy(pid: int) -> bytes:
        del node.there[pid]
        raise SpyError("Failed to get process executable name")

    node.spy = spy
    (found,) = node.take().processes
    assert found.problem == "no Python stacks: it ended meanwhile"


def test_a_kernel_that_names_no_inner_number_is_read_all_the_same(node: Node) -> None:
    node.status = b"Uid:\t0\t0\t0\t0\nTracerPid:\t0\n"
    (found,) = node.take().processes
    assert found.threads


def test_a_pods_time_is_bounded_and_what_is_not_read_says_so(node: Node) -> None:
    node.add(*(python(10 + n, after=n) for n in range(1, 5)))

    def spy(_: int) -> bytes:
        node.now += 4.0
        return STACKS

    node.spy = spy
    found = node.take().processes
    assert [seconds for _, seconds in node.asked] == [PROCESS_SECONDS, PROCESS_SECONDS, 2.0]
    assert [bool(p.threads) for p in found] == [True, True, True, False, False]
    assert f"{POD_SECONDS:.0f} s" in (found[-1].problem or "")


def test_the_oldest_processes_are_read_and_the_rest_counted(node: Node) -> None:
    node.there = {}
    node.add(*(python(n, after=-n) for n in range(1, MAX_PROCESSES + 3)))
    taken = node.take()
    assert (len(taken.processes), taken.omitted) == (MAX_PROCESSES, 2)
    assert taken.processes[0].pid == MAX_PROCESSES + 2


def test_a_path_that_is_no_utf_8_is_told_all_the_same(node: Node) -> None:
    node.add(python(10, "/scratch/\udcff/python3"))
    (found,) = node.take().processes
    assert found.executable == "/scratch/\\xff/python3"
    assert found.threads
