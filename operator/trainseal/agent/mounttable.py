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
        """OSError where the process is gone."""
        self._fds: list[int] = []
        try:
            self._ended = self._keep(os.pidfd_open(pid))
            # The kernel says it once to each: to who waits, and to who then asks.
            self._waited = self._keep(os.open(f"/proc/{pid}/mountinfo", os.O_RDONLY))
            self._asked = self._keep(os.open(f"/proc/{pid}/mountinfo", os.O_RDONLY))
        except BaseException:
            self.close()
            raise
        self._poll = select.poll()
        self._poll.register(self._ended, select.POLLIN)
        self._poll.register(self._asked, select.POLLPRI)

    @property
    def wakes(self) -> tuple[tuple[int, int], ...]:
        """Descriptors with what to wait for on them by epoll: then there are news."""
        return ((self._ended, select.EPOLLIN), (self._waited, select.EPOLLPRI))

    def news(self) -> tuple[Mount, ...] | None:
        """The mounts, where they changed since this was made or asked; None where not. OSError."""
        happened = {fd for fd, _ in self._poll.poll(0)} if self._fds else set()
        if self._ended in happened:
            self.close()
            return None
        if self._asked not in happened:
            return None
        os.lseek(self._asked, 0, os.SEEK_SET)
        data = b""
        while len(data) < MAX_MOUNTINFO and (part := os.read(self._asked, 64 * 1024)):
            data += part
        return parsed(data)

    def close(self) -> None:
        """Twice is fine."""
        while self._fds:
            os.close(self._fds.pop())

    def _keep(self, fd: int) -> int:
        self._fds.append(fd)
        return fd
