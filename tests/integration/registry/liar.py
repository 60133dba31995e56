"""A registry on loopback that answers what a test tells it to, and remembers what it was asked."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace

from aiohttp import web
from aiohttp.test_utils import TestServer

from trainseal.registry.client import RegistryClient
from trainseal.registry.credentials import CredentialLookup, Credentials, anonymous
from trainseal.registry.references import Reference
from trainseal.registry.transport import Options

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

#: Patient enough for a loaded machine, where an answer is expected.
PATIENT = Options(deadline=30.0, first_pause=0.001, longest_pause=0.05)
#: Where none is expected.
HASTY = replace(PATIENT, deadline=0.3, attempts=2, minimum_rate=2**30)


@dataclass
class Asked:
    """One request that came in."""

    method: str
    path: str
    authorization: str | None
    body: bytes = b""


@dataclass
class Liar:
    """The server: its address, what it was asked, and the handler a test may exchange."""

    handler: Handler
    asked: list[Asked] = field(default_factory=list)
    address: str = ""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def repository(self) -> Reference:
        return Reference(self.address, "research/code")

    @property
    def pages(self) -> int:
        """How often it was asked for referrers by the API."""
        return sum("/referrers/" in asked.path for asked in self.asked)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(
            Asked(
                request.method,
                request.path_qs,
                request.headers.get("Authorization"),
                await request.read(),
            )
        )
        return await self.handler(request)


@asynccontextmanager
async def lying(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[Liar]:
    """A running liar; ``tls`` makes it one on https.

    Whatever it does, what is done within may take no longer than a minute.
    """
    liar = Liar(handler)
    app = web.Application(client_max_size=2**26)
    app.router.add_route("*", "/{path:.*}", liar.handle)
    server = TestServer(app, host="127.0.0.1")
    await server.start_server(ssl=tls)
    liar.address = f"127.0.0.1:{server.port}"
    try:
        async with asyncio.timeout(60):
            yield liar
    finally:
        liar.stopping.set()
        await server.close()


def client_of(
    *liars: Liar, options: Options = PATIENT, credentials: CredentialLookup = anonymous
) -> RegistryClient:
    """A client that speaks plain HTTP to these."""
    addresses = frozenset(liar.address for liar in liars)
    return RegistryClient(replace(options, plain_http=addresses), credentials)


def known(username: str = "ada", password: str | None = None) -> CredentialLookup:
    """Credentials for every registry that asks."""
    secret = password or "hunter2"

    async def lookup(_registry: str, _repository: str) -> Credentials | None:
        return Credentials(username, secret)

    return lookup


async def never(_request: web.Request) -> web.StreamResponse:
    raise AssertionError("this server must not be asked")


def refusal(status: int, code: str, **headers: str) -> web.Response:
    """An error as the distribution specification has it."""
    body = json.dumps({"errors": [{"code": code, "message": "as told"}]})
    return web.Response(
        status=status, text=body, content_type="application/json", headers=headers or None
    )
