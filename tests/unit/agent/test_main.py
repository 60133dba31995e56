"""How an agent starts: it waits for an API server that is away, and is told to stop meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from trainseal.agent import main
from trainseal.cluster.api import KubeError

AWAY = KubeError(0, "Unreachable", "connection refused")


class Server:
    """Is away for so many questions."""

    def __init__(self, away: int) -> None:
        self.away = away
        self.asked = 0

    async def get(self, path: str) -> Any:
        assert path == "/api/v1/namespaces/kube-system"
        self.asked += 1
        if self.asked <= self.away:
            raise AWAY
        return {"metadata": {"uid": "the-cluster"}}


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(main, "_LONGEST_PAUSE", 0.002)


async def test_an_api_server_that_is_away_when_the_agent_starts_is_waited_for() -> None:
    server = Server(away=3)
    assert await main.cluster_uid(server, asyncio.Event()) == "the-cluster"  # type: ignore[arg-type]
    assert server.asked == 4


async def test_an_agent_that_is_told_to_stop_waits_no_longer() -> None:
    stop, server = asyncio.Event(), Server(away=10**9)
    waiting = asyncio.ensure_future(main.cluster_uid(server, stop))  # type: ignore[arg-type]
    while server.asked < 2:  # noqa: ASYNC110 nothing tells but the question itself
        await asyncio.sleep(0)
    stop.set()
    async with asyncio.timeout(5):
        assert await waiting is None
