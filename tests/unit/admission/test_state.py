"""What the webhook knows: a seal that is looked for, and in which order it reads at its start."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from cryptography import x509
from prometheus_client import REGISTRY

from tests.unit import world
from trainseal.admission.state import State
from trainseal.cluster.api import KubeError, NotFoundError
from trainseal.controller.certificate_rotation import issue


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


_OTHERS = ("configmaps", "trustroots", "provenancepolicies", "breakglasses", "secrets")


class Starting:
    """Answers lists, the keyring's once it is let; watches go on for ever and tell nothing."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.keyring, self.others, self.seals = (asyncio.Event() for _ in range(3))

    async def request(self, _method: str, path: str, **_: Any) -> Any:
        self.asked.append(path.rpartition("/")[2])
        if {*_OTHERS} <= {*self.asked}:
            self.others.set()
        if self.asked[-1] == "sealedruns":
            self.seals.set()
        if self.asked[-1] == "configmaps":
            await self.keyring.wait()
        return {"metadata": {"resourceVersion": "1"}, "items": []}

    async def watch(self, *_: Any) -> AsyncIterator[tuple[str, Any]]:
        await asyncio.Event().wait()
        yield "", {}


def test_seals_are_read_once_their_keyring_is_known_so_that_each_is_verified_once() -> None:
    async def play() -> None:
        api = Starting()
        state = State(api, "home", "tls", world.CLUSTER, lambda: world.NOW)  # type: ignore[arg-type]
        running = asyncio.ensure_future(state.run())
        await api.others.wait()
        assert "sealedruns" not in api.asked
        api.keyring.set()
        await api.seals.wait()
        running.cancel()

    asyncio.run(asyncio.wait_for(play(), 10))


def test_the_end_of_the_certificate_that_is_served_is_a_metric() -> None:
    serving = issue(("trainseal-webhook.home.svc",), world.NOW)
    secret: Any = {
        "metadata": {"namespace": "home", "name": "tls"},
        "data": {
            "tls.crt": base64.b64encode(serving.certificate).decode(),
            "tls.key": base64.b64encode(serving.private_key).decode(),
        },
    }
    state = State(Starting(), "home", "tls", world.CLUSTER, lambda: world.NOW)  # type: ignore[arg-type]
    state._on_certificate("ADDED", ("home", "tls"), secret)
    name = "trainseal_certificate_expiry_timestamp_seconds"
    end = x509.load_pem_x509_certificate(serving.certificate).not_valid_after_utc
    assert REGISTRY.get_sample_value(name) == end.timestamp()
