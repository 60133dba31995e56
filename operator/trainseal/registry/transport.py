"""HTTP to registries: one connection pool, with bounds on everything a registry could stretch.

One *call* is: sign in where asked, follow at most five redirects (reads only, ``destinations`` has
the rules), try again on network errors, 429 and 5xx with growing pauses or the pause that
Retry-After asks for, and read at most ``limit`` bytes. Every call ends within a deadline, so that
a registry that drips a byte a second is as bounded as one that never answers.

Bodies are taken as they come (``Accept-Encoding: identity``): nothing is inflated. Cookies are not
kept, proxies and .netrc files from the environment are not used.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import TypeVar

import aiohttp
from multidict import CIMultiDictProxy
from yarl import URL

from trainseal import __version__

from .answers import describe, refusal
from .authentication import Authenticator, Scope, TokenAnswer
from .credentials import CredentialLookup, anonymous
from .destinations import GuardedResolver, check_destination, next_location
from .errors import RegistryMisbehaved, RegistryUnavailable, TooLarge
from .references import api_host

MOST_REDIRECTS = 5
ERROR_LIMIT = 16 * 1024
TOKEN_LIMIT = 256 * 1024
CHUNK = 512 * 1024

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_PASSING = frozenset({408, 429, 500, 502, 503, 504})

T = TypeVar("T")
Body = Callable[[], bytes | AsyncIterator[bytes]]


@dataclass(frozen=True, slots=True)
class Options:
    """How patient a client is, and whom it trusts. Times in seconds.

    ``plain_http`` names registries (``host[:port]``) that are spoken to without TLS; no other is.
    ``ca_file`` and ``ca_data`` (PEM) are authorities trusted beside the system's.
    ``deadline`` bounds each operation; large bodies get ``1/minimum_rate`` seconds a byte more.
    ``connections`` is for each host.
    """

    plain_http: frozenset[str] = frozenset()
    ca_file: Path | None = None
    ca_data: str = ""
    deadline: float = 20.0
    minimum_rate: int = 64 * 1024
    attempts: int = 4
    first_pause: float = 0.2
    longest_pause: float = 8.0
    connections: int = 16


@dataclass(frozen=True, slots=True)
class Call:
    """One call. ``subject`` is what messages name; ``statuses`` what the caller can use.

    ``body`` is called anew for each attempt. Without ``scope`` nobody signs in and no redirect is
    followed.
    """

    method: str
    url: URL
    subject: str
    scope: Scope | None
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    limit: int = ERROR_LIMIT
    statuses: frozenset[int] = frozenset({200})
    attempts: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer; ``url`` is where it came from after redirects."""

    status: int
    headers: CIMultiDictProxy[str]
    body: bytes
    url: URL


@asynccontextmanager
async def within(seconds: float, subject: str) -> AsyncIterator[None]:
    """A deadline. Raises RegistryUnavailable, naming ``subject``, when it passes."""
    try:
        async with asyncio.timeout(seconds) as scope:
            yield
    except TimeoutError:
        if not scope.expired():
            raise
        raise RegistryUnavailable(
            subject,
            f"the registry gave no whole answer within {seconds:.3g} s",
            remedy="try again; if it lasts, look at the registry and the network to it",
        ) from None


class Transport:
    """An open connection pool with its sign-in state. Close it."""

    def __init__(self, options: Options, credentials: CredentialLookup, tls: ssl.SSLContext):
        self.options = options
        self._auth = Authenticator(self._token, credentials, options.plain_http)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                ssl=tls,
                # By host: one registry that stalls must not hold up another.
                limit=0,
                limit_per_host=options.connections,
                resolver=GuardedResolver(),
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            headers={
                "User-Agent": f"trainseal/{__version__}",
                "Accept-Encoding": "identity",
            },
            timeout=aiohttp.ClientTimeout(
                total=None, sock_connect=options.deadline, sock_read=options.deadline
            ),
        )

    @classmethod
    async def open(cls, options: Options, credentials: CredentialLookup = anonymous) -> Transport:
        """A new pool. Raises OSError where ``ca_file`` or ``ca_data`` cannot be read."""
        tls = await asyncio.to_thread(_tls, options.ca_file, options.ca_data)
        return cls(options, credentials, tls)

    async def close(self) -> None:
        await self._session.close()

    def base(self, api_host: str) -> URL:
        """The root of a registry's API, ``http`` only for the hosts named so."""
        scheme = "http" if api_host in self.options.plain_http else "https"
        return URL(f"{scheme}://{api_host}", encoded=True)

    async def request(self, call: Call) -> Answer:
        """The whole answer, of at most ``call.limit`` bytes. Raises RegistryError.

        Without a deadline of its own: use ``within``.
        """

        async def consume(response: aiohttp.ClientResponse) -> Answer:
            body = await _read(response, call.limit, call.subject)
            return Answer(response.status, response.headers, body, response.url)

        return await self._persist(call, consume)

    async def open_stream(self, call: Call) -> aiohttp.ClientResponse:
        """The answer with its body unread; the caller closes it. Raises RegistryError."""

        async def consume(response: aiohttp.ClientResponse) -> aiohttp.ClientResponse:
            return response

        return await self._persist(call, consume)

    async def _persist(
        self, call: Call, consume: Callable[[aiohttp.ClientResponse], Awaitable[T]]
    ) -> T:
        attempts = self.options.attempts if call.attempts is None else call.attempts
        pause = self.options.first_pause
        while True:
            attempts -= 1
            wait: float | None = None
            try:
                response = await self._open(call)
                try:
                    if response.status not in _PASSING:
                        if response.status not in call.statuses:
                            body = await _first_bytes(response)
                            raise refusal(call.subject, call.scope, response, body)
                        return await consume(response)
                    wait = _retry_after(response.headers)
                    failure = describe(response.status, await _first_bytes(response))
                except BaseException:
                    response.close()
                    raise
            except aiohttp.ClientSSLError as error:
                raise RegistryUnavailable(
                    call.subject,
                    f"the registry's TLS certificate was not accepted ({_words(error)})",
                    remedy="give its CA certificate (--ca-file; in a cluster, the chart's"
                    " registries.caConfigMap), or correct the registry's",
                ) from None
            except aiohttp.InvalidURL:
                raise RegistryMisbehaved(call.subject, "it sent us to no valid URL") from None
            except (aiohttp.ClientError, OSError) as error:
                failure = f"the registry cannot be reached ({_words(error)})"
            if attempts <= 0 or (wait is not None and wait > self.options.longest_pause):
                asked = "" if wait is None else f" and asks to wait {wait:.0f} s"
                raise RegistryUnavailable(
                    call.subject,
                    failure + asked,
                    remedy="try again; if it lasts, look at the registry and the network to it",
                )
            # Jitter, or all clients of a registry that restarts come back together.
            jittered = pause * (0.5 + random.random() / 2)  # noqa: S311 (no secret)
            await asyncio.sleep(jittered if wait is None else wait)
            pause = min(pause * 2, self.options.longest_pause)

    async def _open(self, call: Call) -> aiohttp.ClientResponse:
        """One attempt: signed in, redirects followed, body unread."""
        home = None if call.scope is None else self.base(api_host(call.scope.registry)).origin()
        url, hops, signed_in = call.url, 0, False
        check_destination(url, call.subject)
        while True:
            ours = call.scope is not None and url.origin() == home
            headers = dict(call.headers)
            if ours and call.scope and (known := self._auth.header(call.scope)) is not None:
                headers["Authorization"] = known
            response = await self._session.request(
                call.method,
                url,
                headers=headers,
                data=None if call.body is None else call.body(),
                allow_redirects=False,
            )
            try:
                if response.status == 401 and ours and not signed_in and call.scope and home:
                    signed_in = True
                    await _first_bytes(response)
                    challenges = response.headers.getall("WWW-Authenticate", [])
                    response.release()
                    await self._auth.answer(
                        call.scope, home, challenges, headers.get("Authorization")
                    )
                    continue
                follows = call.method in ("GET", "HEAD") and call.scope is not None
                if response.status not in _REDIRECTS or not follows:
                    return response
                hops += 1
                if hops > MOST_REDIRECTS:
                    raise RegistryMisbehaved(
                        call.subject,
                        f"it redirected us more than {MOST_REDIRECTS} times",
                        remedy="check the registry's configuration and any proxy before it",
                    )
                url = next_location(url, response.headers.get("Location"), call.subject)
                response.close()
            except BaseException:
                response.close()
                raise

    async def _token(
        self, url: URL, *, authorization: str | None, form: dict[str, str] | None, subject: str
    ) -> TokenAnswer:
        headers = {"Accept": "application/json"}
        if authorization is not None:
            headers["Authorization"] = authorization
        body: Body | None = None
        if form is not None:
            encoded = URL.build(query=form).raw_query_string.encode()
            body = lambda: encoded  # noqa: E731
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        answer = await self.request(
            Call(
                "GET" if form is None else "POST",
                url,
                f"{subject} (token service {url.host_port_subcomponent})",
                scope=None,
                headers=headers,
                body=body,
                limit=TOKEN_LIMIT,
                statuses=frozenset({200, 400, 401, 403, 404}),
            )
        )
        return TokenAnswer(answer.status, answer.body)


async def _read(response: aiohttp.ClientResponse, limit: int, subject: str) -> bytes:
    length = response.content_length
    if length is not None and length > limit and response.method != "HEAD":
        raise too_large(subject, f"{length} bytes", limit)
    pieces, size = [], 0
    while piece := await response.content.read(256 * 1024):
        size += len(piece)
        if size > limit:
            raise too_large(subject, f"more than {limit} bytes", limit)
        pieces.append(piece)
    response.release()
    return b"".join(pieces)


async def next_chunk(response: aiohttp.ClientResponse, subject: str) -> bytes:
    """Some of a body, in pieces worth a hand-over; empty at its end. Raises RegistryUnavailable."""
    pieces, size = [], 0
    try:
        while size < CHUNK and (piece := await response.content.read(CHUNK - size)):
            pieces.append(piece)
            size += len(piece)
    except (aiohttp.ClientError, OSError) as error:
        raise RegistryUnavailable(
            subject,
            f"the connection was lost midway ({_words(error)})",
            remedy="try again; if it lasts, look at the registry and the network to it",
        ) from None
    return b"".join(pieces)


def too_large(subject: str, found: str, limit: int) -> TooLarge:
    """The error for a body beyond ``limit`` bytes."""
    return TooLarge(
        subject,
        f"the registry serves {found}",
        expected=f"at most {limit} bytes",
        remedy="check what was pushed there",
    )


async def _first_bytes(response: aiohttp.ClientResponse) -> bytes:
    """An error's body as far as it is worth reading; frees the connection when it ends there."""
    read = b""
    while len(read) < ERROR_LIMIT:
        piece = await response.content.read(ERROR_LIMIT - len(read))
        if not piece:
            response.release()
            return read
        read += piece
    response.close()
    return read


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds that the server asks to wait (RFC 9110 section 10.2.3).

    A date counts from the answer's own Date, so that no clock of ours is needed.
    """
    value = headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit() and len(value) < 10:
        return float(value)
    try:
        until, since = parsedate_to_datetime(value), parsedate_to_datetime(headers.get("Date", ""))
        return max(0.0, (until - since).total_seconds())
    except (ValueError, TypeError):
        return None


def _words(error: BaseException) -> str:
    if isinstance(error, TimeoutError):
        return "it did not answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return type(error).__name__


def _tls(ca_file: Path | None, ca_data: str) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if ca_file is not None:
        context.load_verify_locations(cafile=str(ca_file))
    if ca_data:
        context.load_verify_locations(cadata=ca_data)
    return context
