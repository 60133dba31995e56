"""Who writes into another process's memory by the container's own ``/proc``, as it happens.

One mark on that file system tells of each of its files that is written, or closed after being open
for writing, which few ever are; openings are not asked for, for programs open files there all the
time. The node's ``/proc`` is another file system: that is left to the sweep.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from contextlib import suppress

from trainseal.agent.fanotify import (
    CLOSE_WRITE,
    MARK_FILESYSTEM,
    MODIFY,
    Q_OVERFLOW,
    DecodeError,
    Group,
)
from trainseal.agent.files import Tree
from trainseal.agent.observed import Lineage, Observation, Process, WatchedContainer
from trainseal.agent.procfiles import ProcFileError, parse_status, words
from trainseal.agent.sweep_memory import memory_opened

_MEMORY = re.compile(r"/proc/([0-9]+)(?:/task/[0-9]+)?/mem")
#: Events a call, at most; a read counts as some.
_MOST, _READ = 512, 8
_COMMAND = 64 * 1024


class MemoryWrites:
    """Of one container. Close it."""

    def __init__(self, container: WatchedContainer, root: Tree) -> None:
        """OSError where its ``/proc`` cannot be marked."""
        #: Whether there may be more to take.
        self.behind = False
        self._container = container
        self._root = root
        self._depth = len(_numbers(container.pid)) - 1
        self._group = Group(names=False)
        try:
            fd = root.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
            try:
                self._group.mark(MARK_FILESYSTEM, MODIFY | CLOSE_WRITE, fd)
            finally:
                os.close(fd)
        except BaseException:
            self.close()
            raise

    def fileno(self) -> int:
        """Readable where there is something to take."""
        return self._group.fileno()

    def close(self) -> None:
        """Twice is fine."""
        self._group.close()

    def take(self, who: Callable[[int], Lineage | None]) -> tuple[list[Observation], bool]:
        """What is queued, bounded; and whether more came than the queue holds."""
        found: dict[tuple[int, int], Observation] = {}
        lost = False
        left = _MOST
        self.behind = True
        while left > 0:
            left -= _READ
            # A read fails where an event's process has ended: with it its memory is gone.
            with suppress(OSError, DecodeError), self._group.taken() as events:
                left -= len(events)
                for event in events:
                    lost |= bool(event.mask & Q_OVERFLOW)
                    number = self._memory_of(event.fd)
                    if number is None or self._owns(event.pid, number):
                        continue
                    key = event.pid, number
                    if key not in found:
                        where = f"{number} in the container"
                        victim = self._process(number)
                        found[key] = memory_opened(event.pid, who(event.pid), "had", where, victim)
                if not events:
                    self.behind = False
                    break
        return [*found.values()], lost

    def _memory_of(self, fd: int) -> int | None:
        """Whose it is, as the container counts."""
        if fd < 0:
            return None
        match = _MEMORY.fullmatch(os.readlink(f"/proc/self/fd/{fd}"))  # noqa: PTH115 text only
        return int(match[1]) if match else None

    def _owns(self, pid: int, number: int) -> bool:
        """Its own memory a process can write anyway; also one that ended just now."""
        numbers = _numbers(pid)
        if not numbers:
            return self._root.status(f"/proc/{number}") is None
        return len(numbers) > self._depth and numbers[self._depth] == number

    def _process(self, number: int) -> Process:
        """What there is to say of a process, as the container counts."""
        command = words(self._root.read(f"/proc/{number}/cmdline", _COMMAND) or b"")
        executable = self._root.link_target(f"/proc/{number}/exe") or "unknown"
        container = self._container
        return Process(
            number, 0, container.started, executable, command, -1, container.container_id
        )


def _numbers(pid: int) -> tuple[int, ...]:
    """Those of a process, from the node's inwards; none once it is gone."""
    try:
        with open(f"/proc/{pid}/status", "rb") as file:  # noqa: PTH123 as often as there are events
            return parse_status(file.read(64 * 1024)).pids
    except (OSError, ProcFileError):
        return ()
