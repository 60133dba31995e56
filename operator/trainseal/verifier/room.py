"""Bytes of evidence that are in memory at once, over all verifications of a process."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Room:
    """``total`` bytes, given out in the order they were asked for.

    Who asks for more than there is at all gets everything, alone: its own bounds are elsewhere.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._left = total
        self._turn = asyncio.Lock()
        self._freed = asyncio.Condition()

    @asynccontextmanager
    async def held(self, size: int) -> AsyncIterator[None]:
        """Waits for ``size`` bytes and holds them."""
        wanted = min(size, self._total)
        # One waits at a time: small ones that come later do not keep a large one out for ever.
        async with self._turn, self._freed:
            await self._freed.wait_for(lambda: self._left >= wanted)
            self._left -= wanted
        try:
            yield
        finally:
            # Not awaited on the lock: a cancelled task must give back what it held.
            self._left += wanted
            asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        async with self._freed:
            self._freed.notify_all()
