"""Load is counted rightly: what nobody judged is tried again, what was judged wrongly is told."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import cast

import aiohttp
import pytest

from bench.load import ApiClient
from tests.cluster.ports import free_ports
from tests.load import asking
from tests.load.asking import Ask, Counts, ask_all
from tests.load.relay import relay

GOOD, BAD = Ask("good", b"", True, {}), Ask("bad", b"", False, {})
_REFUSED = (403, b"admission webhook denied the request")


class Answering:
    """Gives these answers, in turn; an exception is raised."""

    def __init__(self, *answers: tuple[int, bytes] | Exception) -> None:
        self._answers: Iterator[tuple[int, bytes] | Exception] = iter(answers)

    async def post(
        self, _path: str, _body: bytes, _headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        answer = next(self._answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


def counted(ask: Ask, *answers: tuple[int, bytes] | Exception) -> Counts:
    counts = Counts()
    client = cast("ApiClient", Answering(*answers))
    asyncio.run(ask_all(client, [ask], 1, counts))
    return counts


def test_what_nobody_judged_is_tried_again_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asking, "_AGAIN", 0.0)
    unasked = (500, b"Internal error occurred: failed calling webhook")
    counts = counted(GOOD, aiohttp.ServerDisconnectedError(), unasked, unasked, (201, b""))
    assert counts.retried == Counter({"the webhook could not be asked": 2, "no answer": 1})
    assert (counts.admitted, counts.wrong()) == (1, [])


def test_what_was_judged_wrongly_is_told() -> None:
    assert counted(BAD, _REFUSED).wrong() == counted(GOOD, (201, b"")).wrong() == []
    assert "1 let in" in counted(BAD, (201, b"the pod")).wrong()[0]
    assert "1 refused" in counted(GOOD, _REFUSED).wrong()[0]


def test_a_relay_hands_connections_to_the_ports_in_turn_and_closes_where_none_answers() -> None:
    front, *backs, nobody = free_ports(4)

    async def asked() -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", front)
        found = await reader.read()
        writer.close()
        return found

    def saying(port: int) -> asyncio.Future[asyncio.Server]:
        async def say(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(str(port).encode())
            writer.close()

        return asyncio.ensure_future(asyncio.start_server(say, "127.0.0.1", port))

    async def in_turn() -> list[bytes]:
        servers = [await saying(port) for port in backs]
        async with relay(lambda: [*backs, nobody], front):
            found = [await asked() for _ in range(4)]
        for server in servers:
            server.close()
        return found

    first, second = (str(port).encode() for port in backs)
    assert asyncio.run(in_turn()) == [first, second, b"", first]
