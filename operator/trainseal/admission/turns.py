"""Work that keeps a processor busy, in a thread of its own: one piece at a time, users in turn.

Judging a TrainingJob costs up to tenths of a second before any signature is looked at. In the event
loop it would hold up the pods of the whole cluster; and whoever asks a thousand times must wait for
themselves, not have others wait for them.
"""

from __future__ import annotations

import asyncio
import functools
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

T = TypeVar("T")

#: Bytes of requests that wait, of one user and of all. A job has 20 KiB as a rule, 1 MiB at most.
MOST_OF_A_USER = 8 * 1024 * 1024
MOST_OF_ALL = 32 * 1024 * 1024


class BusyError(Exception):
    """Too much of it waits already; the words are for whoever asked."""


@dataclass(frozen=True, slots=True)
class _Piece:
    size: int
    work: Callable[[], object]
    done: asyncio.Future[object]


class Turns:
    """See the module."""

    def __init__(self, of_a_user: int = MOST_OF_A_USER, of_all: int = MOST_OF_ALL) -> None:
        self._of_a_user, self._of_all = of_a_user, of_all
        self._waiting: OrderedDict[str, deque[_Piece]] = OrderedDict()
        self._worker = ThreadPoolExecutor(1, "judge")
        self._at_work = False

    async def take(self, user: str, size: int, work: Callable[[], T]) -> T:
        """What ``work`` returns or raises, once it was its turn; ``size`` in bytes is what it holds
        in memory while it waits. Raises BusyError where too much waits.
        """
        own = sum(p.size for p in self._waiting.get(user, ()))
        every = sum(p.size for pieces in self._waiting.values() for p in pieces)
        if (own and own + size > self._of_a_user) or (every and every + size > self._of_all):
            raise BusyError(
                f"found {(own if own + size > self._of_a_user else every) // 1024} KiB of requests "
                "that wait already, expected fewer at once; try again in a moment"
            )
        piece = _Piece(size, work, asyncio.get_running_loop().create_future())
        self._waiting.setdefault(user, deque()).append(piece)
        self._next()
        return await piece.done  # type: ignore[return-value]  # what work returned

    def _next(self) -> None:
        while self._waiting and not self._at_work:
            user, pieces = self._waiting.popitem(last=False)
            piece = pieces.popleft()
            if pieces:
                self._waiting[user] = pieces  # behind all others
            if piece.done.cancelled():
                continue
            self._at_work = True
            running = asyncio.get_running_loop().run_in_executor(self._worker, piece.work)
            running.add_done_callback(functools.partial(self._ended, piece))

    def _ended(self, piece: _Piece, ended: asyncio.Future[object]) -> None:
        self._at_work = False
        if not piece.done.cancelled():
            error = ended.exception()
            if error is not None:
                piece.done.set_exception(error)
            else:
                piece.done.set_result(ended.result())
        self._next()
