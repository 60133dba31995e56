"""A seal that is looked for: whether it is known then."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.unit import world
from trainseal.admission.state import State
from trainseal.cluster.api import KubeError, NotFoundError


@dataclass
class ApiServer:
    """Stands in for Kube; what it answers with, or raises. ``gate`` is waited for."""

    answer: Any
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def get(self, path: str, *, seconds: float) -> Any:
        assert path.startswith("/apis/trainseal.dev/v1alpha1/namespaces/research/sealedruns/")
        assert seconds <= 2
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize(
    ("answer", "known"),
    [
        (NotFoundError(404, "NotFound", "no such seal"), True),
        (KubeError(0, "Unreachable", "away"), False),
        ({"metadata": {}, "status": {"phase": "Failed"}}, True),
    ],
    ids=["no such seal", "unreachable", "ended"],
)
def test_a_seal_is_known_once_the_api_server_has_answered(answer: Any, known: bool) -> None:
    async def play() -> None:
        api = ApiServer(answer)
        api.gate.set()
        state = State(api, "home", "tls", world.CLUSTER, lambda: world.NOW)  # type: ignore[arg-type]
        assert await state.look("research", "char-lm-1") is known
        # Asked again at once, it is not read again, and is known as before.
        assert await state.look("research", "char-lm-1") is known

    asyncio.run(play())


def test_what_a_flood_leaves_unread_is_not_known() -> None:
    async def play() -> None:
        api = ApiServer(NotFoundError(404, "NotFound", "no such seal"))
        state = State(api, "home", "tls", world.CLUSTER, lambda: world.NOW)  # type: ignore[arg-type]
        flood = [asyncio.ensure_future(state.look("research", f"s-{n}")) for n in range(8)]
        await asyncio.sleep(0)
        assert await state.look("research", "char-lm-1") is False
        api.gate.set()
        assert all(await asyncio.gather(*flood))
        assert await state.look("research", "char-lm-1") is True

    asyncio.run(play())
