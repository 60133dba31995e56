"""A few requests at a time, in order, with the first failure as the failure of all."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


async def map_bounded(
    function: Callable[[A], Awaitable[B]], items: Iterable[A], width: int = 8
) -> list[B]:
    """``[await function(i) for i in items]``, at most ``width`` at once.

    The first exception is raised as it is (not in a group), after the others were cancelled.
    """
    slots = asyncio.Semaphore(width)

    async def one(item: A) -> B:
        async with slots:
            return await function(item)

    tasks = [asyncio.ensure_future(one(item)) for item in items]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
