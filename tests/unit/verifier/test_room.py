"""Room for evidence: never more bytes at once than there is room for, in the order asked."""

from __future__ import annotations

import asyncio

from trainseal.verifier.room import Room


class Visit:
    """Holds room from ``begin`` until ``end``."""

    def __init__(self, room: Room, size: int) -> None:
        self.inside = asyncio.Event()
        self._leave = asyncio.Event()
        self.task = asyncio.ensure_future(self._hold(room, size))

    async def _hold(self, room: Room, size: int) -> None:
        async with room.held(size):
            self.inside.set()
            await self._leave.wait()

    async def end(self) -> None:
        self._leave.set()
        await self.task


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_what_fits_is_held_together_and_what_does_not_waits_for_its_turn() -> None:
    room = Room(10)
    one, other, large, small = (Visit(room, size) for size in (4, 4, 8, 1))
    await settled()
    assert [v.inside.is_set() for v in (one, other, large, small)] == [True, True, False, False]
    await one.end()
    await other.end()
    await large.inside.wait()
    await small.inside.wait()
    await large.end()
    await small.end()


async def test_more_than_there_is_at_all_is_held_alone() -> None:
    room = Room(10)
    whole = Visit(room, 100)
    await whole.inside.wait()
    next_ = Visit(room, 1)
    await settled()
    assert not next_.inside.is_set()
    await whole.end()
    await next_.inside.wait()
    await next_.end()


async def test_who_is_cancelled_gives_back_what_was_held_and_waits_no_more() -> None:
    room = Room(10)
    holder, waiter = Visit(room, 10), Visit(room, 10)
    await holder.inside.wait()
    await settled()
    waiter.task.cancel()
    holder.task.cancel()
    await asyncio.gather(waiter.task, holder.task, return_exceptions=True)
    last = Visit(room, 10)
    await last.inside.wait()
    await last.end()
