"""The Python stacks of one pod: which of its processes are Python's, each read by py-spy.

One process after the other, each and all with a deadline. A process is named by its number, and a
number may pass to another container's process while it is read: what was read counts only if the
same process is there before and after.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from trainseal.agent import spying
from trainseal.agent.observed import Process, WatchedContainer
from trainseal.agent.processes import Processes
from trainseal.agent.procfiles import ProcFileError, parse_status
from trainseal.agent.pystacks import StackFormatError, fitted, read_stacks
from trainseal.agent.spying import SpyError
from trainseal.api.stackdump import MAX_PROCESSES, NO_STACKS, ProcessStacks

#: For one process; for all processes of a pod.
PROCESS_SECONDS, POD_SECONDS = 5.0, 10.0
_MAPS = 4 * 1024 * 1024
_EXECUTABLE = 1024
_PYTHON = re.compile(r"(python|pypy)[0-9.]*[a-z]*( \(deleted\))?")
_LIBRARY = re.compile(rb"/libpython[0-9][^/\n]*\n")

#: py-spy's answer on the process with that number, within so many seconds. Raises SpyError.
Dump = Callable[[int, float], bytes]


@dataclass(frozen=True, slots=True)
class Taken:
    """What was read of a pod. ``message`` says why there are no processes, and is else empty."""

    processes: tuple[ProcessStacks, ...]
    omitted: int = 0
    message: str = ""


class StackTaker:
    """Takes the stacks of a pod. Takes its time; runs in a thread."""

    def __init__(
        self,
        processes: Processes,
        dump: Dump = spying.dump,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._processes = processes
        self._dump = dump
        self._monotonic = monotonic

    def take(self, containers: Sequence[WatchedContainer]) -> Taken:
        """Of the pod whose watched containers these are."""
        if not containers:
            return Taken((), message=f"{NO_STACKS}: no container of the pod is watched yet")
        names = {c.container_id: c.container for c in containers}
        found: list[tuple[str, Process]] = [
            (names[container_id], member.process)
            for container_id, members in self._processes.members(containers).items()
            for member in members
            if self._is_python(member.process)
        ]
        if not found:
            return Taken((), message=f"{NO_STACKS}: no process of the pod's containers is Python")
        found.sort(key=lambda f: (f[1].started, f[1].pid))
        deadline = self._monotonic() + POD_SECONDS
        read = [self._read(name, p, deadline) for name, p in found[:MAX_PROCESSES]]
        return Taken(tuple(fitted(read)), max(0, len(found) - MAX_PROCESSES))

    def _read(self, container: str, process: Process, deadline: float) -> ProcessStacks:
        stacks = ProcessStacks(
            pid=process.pid,
            parent=max(0, process.parent),
            container=container,
            executable=_printable(process.executable)[:_EXECUTABLE],
        )
        seconds = min(PROCESS_SECONDS, deadline - self._monotonic())
        if seconds <= 0:
            return _without(stacks, f"the {POD_SECONDS:.0f} s that a pod has were over before it")
        try:
            numbers = parse_status(self._processes.file(process.pid, "status")).pids
            inner = numbers[-1] if numbers else process.pid
            found = read_stacks(self._dump(process.pid, seconds), inner)
        except (OSError, ProcFileError, SpyError, StackFormatError) as error:
            words = str(error) if self._is_there(process) else "it ended meanwhile"
            return _without(stacks, words)
        if not self._is_there(process):
            return _without(stacks, "it ended meanwhile")
        return stacks.model_copy(
            update={"threads": list(found.threads), "threads_omitted": found.omitted or None}
        )

    def _is_there(self, process: Process) -> bool:
        now = self._processes.read(process.pid)
        return now is not None and now.started == process.started

    def _is_python(self, process: Process) -> bool:
        """By its program's name; or by the interpreter's library, where a program embeds one."""
        if _PYTHON.fullmatch(PurePosixPath(process.executable).name):
            return True
        try:
            return _LIBRARY.search(self._processes.file(process.pid, "maps", _MAPS)) is not None
        except OSError:
            return False


def _printable(path: str) -> str:
    """A path as UTF-8, which on Linux it need not be."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def _without(stacks: ProcessStacks, words: str) -> ProcessStacks:
    return stacks.model_copy(update={"problem": f"{NO_STACKS}: {words}"[:_EXECUTABLE]})
