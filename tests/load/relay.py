"""What stands between who asks and who answers: a Service's choice of a replica, a slow network."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

_CHUNK = 65536


@asynccontextmanager
async def relay(
    targets: Callable[[], Sequence[int]], port: int, delay: float = 0.0
) -> AsyncIterator[None]:
    """Hands each connection to one of the loopback ports, in turn; closes it where none answers.

    ``delay``: seconds before each piece of an answer is handed on.
    """
    turns = itertools.count()
    open_now: set[asyncio.StreamWriter] = set()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            if ports := targets():
                chosen = ports[next(turns) % len(ports)]
                back, forth = await asyncio.open_connection("127.0.0.1", chosen)
                ends = {writer, forth}
                open_now.update(ends)
                await asyncio.gather(_pipe(reader, forth, 0.0), _pipe(back, writer, delay))
                open_now.difference_update(ends)

    server = await asyncio.start_server(connected, "127.0.0.1", port, backlog=1024)
    try:
        yield
    finally:
        server.close()
        for writer in open_now:
            writer.close()


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, delay: float) -> None:
    """Until one side closes; then the other is closed, too."""
    with contextlib.suppress(OSError), contextlib.closing(writer):
        while piece := await reader.read(_CHUNK):
            if delay:
                await asyncio.sleep(delay)
            writer.write(piece)
            await writer.drain()
