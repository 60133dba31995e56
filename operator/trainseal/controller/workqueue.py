"""Keys waiting to be reconciled: each at most once, failures later and later.

A key that is added while it is being worked on is worked on again afterwards, so that no change is
missed and no key is worked on twice at once.

Where much waits, three of four workers take keys that are new first: two hundred jobs that were
submitted at once all start before most of them are looked at again. The others take what is known
first, so that a flood of new keys keeps nothing from being looked at.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Awaitable, Callable

Key = tuple[str, str]
#: Reconciles a key; returns seconds until it wants to be called again, or None.
Work = Callable[[Key], Awaitable[float | None]]

_log = logging.getLogger(__name__)
_FIRST_PAUSE = 0.5
_LONGEST_PAUSE = 60.0


class WorkQueue:
    """Runs ``work`` for added keys with a number of workers."""

    def __init__(self, work: Work, workers: int = 8) -> None:
        self._work = work
        self._workers = workers
        self._ready = asyncio.Semaphore(0)
        #: Keys that are new, and those that work was done for before; each in their order.
        self._new: deque[Key] = deque()
        self._known: deque[Key] = deque()
        self._done: set[Key] = set()
        self._waiting: set[Key] = set()
        self._active: set[Key] = set()
        self._again: set[Key] = set()
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}

    def add(self, key: Key) -> None:
        """Wants the key reconciled soon."""
        timer = self._timers.pop(key, None)
        if timer:
            timer.cancel()
        if key in self._active:
            self._again.add(key)
        elif key not in self._waiting:
            self._waiting.add(key)
            (self._known if key in self._done else self._new).append(key)
            self._ready.release()

    def add_after(self, key: Key, seconds: float) -> None:
        """Wants the key reconciled in a while, unless something else wants it sooner."""
        timer = self._timers.get(key)
        loop = asyncio.get_running_loop()
        if timer and timer.when() <= loop.time() + seconds:
            return
        if timer:
            timer.cancel()
        self._timers[key] = loop.call_later(seconds, self.add, key)

    async def run(self) -> None:
        """Works for ever."""
        async with asyncio.TaskGroup() as group:
            for number in range(self._workers):
                lanes = (self._known, self._new) if number % 4 == 3 else (self._new, self._known)
                group.create_task(self._worker(lanes))

    async def _worker(self, lanes: tuple[deque[Key], deque[Key]]) -> None:
        first, second = lanes
        while True:
            await self._ready.acquire()
            key = (first or second).popleft()
            self._waiting.discard(key)
            self._active.add(key)
            try:
                again = await self._work(key)
                self._failures.pop(key, None)
                if again is None:
                    self._done.discard(key)
                else:
                    self._done.add(key)
                    self.add_after(key, again)
            except Exception as error:  # noqa: BLE001 - whatever it was, the key is tried again
                count = self._failures.get(key, 0)
                self._failures[key] = count + 1
                pause = min(_FIRST_PAUSE * 2**count, _LONGEST_PAUSE)
                _log.warning(
                    "reconciling %s/%s: %s: %s; again in %.1f s",
                    *key, type(error).__name__, error, pause,
                )  # fmt: skip
                # What changed meanwhile is seen then: to go on at once would be a busy loop where
                # the work itself causes the change.
                self._again.discard(key)
                self.add_after(key, pause)
            finally:
                self._active.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)
