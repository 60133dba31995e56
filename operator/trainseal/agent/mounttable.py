"""The mount table of a process, and when it changes (proc_pid_mountinfo(5))."""

from __future__ import annotations

import os
import select
from pathlib import Path

from trainseal.agent.mounts import MAX_MOUNTINFO, Mount, MountInfoError, parse


def parsed(data: bytes) -> tuple[Mount, ...]:
    """The mounts in what was read of a mountinfo. OSError where it is none."""
    try:
        return parse(os.fsdecode(data))
    except MountInfoError as error:
        raise OSError(str(error)) from None


def mounts_of(pid: int) -> tuple[Mount, ...]:
    """Those of a process, now. OSError where it is gone."""
    with Path(f"/proc/{pid}/mountinfo").open("rb") as file:
        return parsed(file.read(MAX_MOUNTINFO))


class MountTable:
    """Of one process, while it lives: an open table keeps all that is mounted there. Close it."""

    def __init__(self, pid: int) -> None:
        """OSError; ProcessLookupError where the process has ended."""
        self._fds: list[int] = []
        self._poll = select.poll()
        self._ended = self._keep(os.pidfd_open(pid), select.POLLIN)
        try:
            # The kernel says it once to each: to who waits, and to who then asks.
            self._waited = self._keep(os.open(f"/proc/{pid}/mountinfo", os.O_RDONLY))
            self._asked = self._keep(os.open(f"/proc/{pid}/mountinfo", os.O_RDONLY), select.POLLPRI)
        except OSError as error:
            ended = self._happened()
            self.close()
            raise ProcessLookupError(pid) if ended else error from None

    @property
    def wakes(self) -> tuple[tuple[int, int], ...]:
        """Descriptors with what to wait for on them by epoll: then there are news."""
        return ((self._ended, select.EPOLLIN), (self._waited, select.EPOLLPRI))

    def news(self) -> tuple[Mount, ...] | None:
        """The mounts, where they changed since this was made or asked; None where not. OSError."""
        happened = self._happened()
        if self._ended in happened:
            self.close()
            return None
        try:
            return self.read() if self._asked in happened else None
        except OSError:
            if self._ended not in self._happened():
                raise
            self.close()  # it ended meanwhile
            return None

    def read(self) -> tuple[Mount, ...]:
        """The mounts, now. OSError."""
        os.lseek(self._asked, 0, os.SEEK_SET)
        data = b""
        while len(data) < MAX_MOUNTINFO and (part := os.read(self._asked, 64 * 1024)):
            data += part
        return parsed(data)

    def _happened(self) -> set[int]:
        return {fd for fd, _ in self._poll.poll(0)} if self._fds else set()

    def close(self) -> None:
        """Twice is fine."""
        while self._fds:
            os.close(self._fds.pop())

    def _keep(self, fd: int, events: int = 0) -> int:
        self._fds.append(fd)
        if events:
            self._poll.register(fd, events)
        return fd
