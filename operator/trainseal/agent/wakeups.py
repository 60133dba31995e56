"""One descriptor for an event loop: readable when there are events or news, or when it is time.

Events that come thick are worth waiting for: the kernel merges those of one file, and reading many
at once costs less. So the groups can be left alone for a while, and a timer ends it.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
from collections.abc import Iterable, Sequence
from contextlib import suppress

_CLOCK_MONOTONIC = 1
_TIMER_FLAGS = os.O_NONBLOCK | os.O_CLOEXEC
_libc = ctypes.CDLL(None, use_errno=True)


class Wakeups:
    """An epoll set of event queues and a timer (timerfd_create(2)). Close it."""

    def __init__(self, queues: Sequence[int], news: Iterable[tuple[int, int]] = ()) -> None:
        """``news``: further descriptors, with what to wait for on them; they never rest. OSError
        where the node has no descriptors left.
        """
        self._queues = tuple(queues)
        self._resting = False
        self._timer: int = _libc.timerfd_create(_CLOCK_MONOTONIC, _TIMER_FLAGS)
        if self._timer < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._epoll = select.epoll()
        for fd in (*self._queues, self._timer):
            self._epoll.register(fd, select.EPOLLIN)
        for fd, events in news:
            self._epoll.register(fd, events)

    def fileno(self) -> int:
        """What to wait for."""
        return self._epoll.fileno()

    def begin(self) -> None:
        """Forgets the timer and listens to the queues again."""
        with suppress(BlockingIOError):
            os.read(self._timer, 8)
        if self._resting:
            self._listen(select.EPOLLIN)

    def wake_in(self, seconds: float, *, rest: bool) -> None:
        """Readable after ``seconds`` at the latest; with ``rest`` not before."""
        nanoseconds = max(1, int(seconds * 1e9))
        value = struct.pack("=4q", 0, 0, *divmod(nanoseconds, 1_000_000_000))
        if _libc.timerfd_settime(self._timer, 0, value, None) < 0:
            raise OSError(ctypes.get_errno(), "timerfd_settime failed")
        if rest:
            self._listen(0)

    def close(self) -> None:
        """Twice is fine."""
        if self._timer >= 0:
            self._epoll.close()
            os.close(self._timer)
            self._timer = -1

    def _listen(self, to: int) -> None:
        self._resting = not to
        for fd in self._queues:
            self._epoll.modify(fd, to)
