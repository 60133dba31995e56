"""Many requests at once, each until it is judged; what came of each is counted."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import aiohttp

from bench.load import ApiClient
from tests.chaos.answers import NO_ANSWER, Answer, meaning, reason, told

#: Until an answer is given up; between two tries; until a request must be judged. Seconds.
_NO_ANSWER, _AGAIN, _PATIENCE = 30.0, 0.2, 120.0


@dataclass(frozen=True, slots=True)
class Ask:
    """One creation, and whether it must be let in."""

    path: str
    body: bytes
    good: bool
    headers: Mapping[str, str]


@dataclass(slots=True)
class Counts:
    """Of all requests; ``seconds`` of each attempt that was judged."""

    admitted: int = 0
    refused: int = 0
    wrongly_admitted: list[str] = field(default_factory=list)
    wrongly_refused: list[str] = field(default_factory=list)
    retried: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)

    def add(self, ask: Ask, answer: Answer, text: str) -> None:
        """One that was judged."""
        if answer is Answer.MADE:
            self.admitted += 1
            if not ask.good:
                self.wrongly_admitted.append(text)
        else:
            self.refused += 1
            if ask.good:
                self.wrongly_refused.append(text)

    def wrong(self) -> list[str]:
        """What must not be, in words."""
        found = []
        if self.wrongly_admitted:
            found.append(f"{len(self.wrongly_admitted)} let in, such as {self.wrongly_admitted[0]}")
        if self.wrongly_refused:
            found.append(f"{len(self.wrongly_refused)} refused: {self.wrongly_refused[0]}")
        return found

    def words(self) -> str:
        """All counts; times are of the attempts that were judged."""
        ordered = sorted(self.seconds)
        median, slow = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)]
        return (
            f"{self.admitted} admitted, {self.refused} refused; tried again: {told(self.retried)}; "
            f"median {median * 1000:.0f} ms, p99 {slow * 1000:.0f} ms"
        )


async def ask_all(
    client: ApiClient,
    asks: Iterable[Ask],
    concurrency: int,
    counts: Counts,
    over: Callable[[], bool] = lambda: False,
) -> None:
    """All, ``concurrency`` under way at any time, until there are none or it is ``over``.

    Raises AssertionError where one is not judged within two minutes.
    """
    waiting = iter(asks)

    async def worker() -> None:
        for ask in waiting:
            if over():
                return
            await _judged(client, ask, counts)

    async with asyncio.TaskGroup() as group:
        for _ in range(concurrency):
            group.create_task(worker())


async def _judged(client: ApiClient, ask: Ask, counts: Counts) -> None:
    end = time.monotonic() + _PATIENCE
    while True:
        began = time.monotonic()
        try:
            async with asyncio.timeout(_NO_ANSWER):
                status, body = await client.post(ask.path, ask.body, ask.headers)
                text = body.decode(errors="replace")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            status, text = NO_ANSWER, repr(error)
        answer = meaning(status, text)
        if answer is not Answer.AGAIN:
            counts.seconds.append(time.monotonic() - began)
            counts.add(ask, answer, text[:600])
            return
        assert time.monotonic() < end, f"nobody judges it: {status} {text[:600]}"
        counts.retried[reason(status, text)] += 1
        await asyncio.sleep(_AGAIN)
