"""How a registry is told who asks: Basic, and the Bearer token flow of container registries.

Source: RFC 9110 section 11.6.1 (challenges); the distribution project's token authentication
specification (GET with Basic) and its OAuth2 form (POST with a refresh token). Tokens are asked
for the one repository and action at hand, never for the scope a challenge names, are kept per
client, and are renewed when a registry refuses them.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import Awaitable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from yarl import URL

from .credentials import CredentialLookup, Credentials, InvalidCredentials
from .descriptors import parse_object
from .destinations import realm_url
from .errors import AccessDenied, MalformedContent, RegistryMisbehaved

PULL = "pull"
PUSH = "pull,push"

LONGEST_CHALLENGE = 4096
MOST_KEPT = 512

_TOKEN68 = re.compile(r"[\x21-\x7e]{1,65536}")
_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9-]*)(?=\s|,|$)")
_PARAMETER = re.compile(r'\s*([A-Za-z_]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))\s*(?:,|$)')


@dataclass(frozen=True, slots=True)
class Scope:
    """What a token is for: a repository at a registry (the reference's words), and actions."""

    registry: str
    repository: str
    actions: str

    def __str__(self) -> str:
        return f"repository:{self.repository}:{self.actions}"


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge: scheme in lower case, parameter names in lower case."""

    scheme: str
    parameters: dict[str, str]


@dataclass(frozen=True, slots=True)
class TokenAnswer:
    """What a token service answered."""

    status: int
    body: bytes


class TokenRequest(Protocol):
    """One request to a token service, without redirects; ``form`` makes it a POST."""

    def __call__(
        self, url: URL, *, authorization: str | None, form: dict[str, str] | None, subject: str
    ) -> Awaitable[TokenAnswer]: ...


def parse_challenges(headers: Sequence[str]) -> list[Challenge]:
    """The challenges in WWW-Authenticate headers; what cannot be read is left out."""
    challenges: list[Challenge] = []
    for header in headers[:4]:
        rest = header[:LONGEST_CHALLENGE]
        while match := _SCHEME.match(rest):
            rest = rest[match.end() :]
            parameters: dict[str, str] = {}
            while found := _PARAMETER.match(rest):
                name, quoted_value, bare = found.groups()
                value = bare if quoted_value is None else re.sub(r"\\(.)", r"\1", quoted_value)
                parameters.setdefault(name.lower(), value)
                rest = rest[found.end() :]
            challenges.append(Challenge(match[1].lower(), parameters))
            rest = rest.lstrip(" ,")
    return challenges


class Authenticator:
    """Keeps Authorization headers by scope, and makes new ones from challenges."""

    def __init__(
        self,
        request: TokenRequest,
        credentials: CredentialLookup,
        plain_http: Collection[str],
    ) -> None:
        self._request = request
        self._credentials = credentials
        self._plain_http = plain_http
        self._headers: dict[Scope, str] = {}
        self._locks: dict[Scope, asyncio.Lock] = {}

    def header(self, scope: Scope) -> str | None:
        """The Authorization header that last worked, if any."""
        return self._headers.get(scope)

    async def answer(
        self, scope: Scope, home: URL, challenges: Sequence[str], rejected: str | None
    ) -> str:
        """A new header after ``rejected`` was refused by the registry at ``home``.

        Several requests refused at once make one token request. Raises AccessDenied,
        RegistryUnavailable.
        """
        lock = self._locks.setdefault(scope, asyncio.Lock())
        async with lock:
            kept = self._headers.get(scope)
            if kept is not None and kept != rejected:
                return kept
            header = await self._new_header(scope, home, parse_challenges(challenges))
            if header == rejected:  # a static credential that was just refused
                raise denied(scope, "the registry refused the credentials")
            self._headers[scope] = header
            while len(self._headers) > MOST_KEPT:
                oldest = next(iter(self._headers))
                del self._headers[oldest]
                self._locks.pop(oldest, None)
            return header

    async def _new_header(self, scope: Scope, home: URL, challenges: list[Challenge]) -> str:
        try:
            credentials = await self._credentials(scope.registry, scope.repository)
        except InvalidCredentials as error:
            raise AccessDenied(
                f"{scope.registry}/{scope.repository}",
                f"the credentials for it cannot be read: {error}",
                expected="a docker config with credentials for this registry",
                remedy="correct the file or the pull secret",
            ) from None
        if credentials is not None and credentials.registry_token:
            return f"Bearer {credentials.registry_token}"
        for challenge in challenges:
            if challenge.scheme == "bearer" and "realm" in challenge.parameters:
                return await self._bearer(scope, home, challenge, credentials)
        if any(challenge.scheme == "basic" for challenge in challenges):
            if credentials is None or not credentials.username:
                raise denied(scope, "the registry wants a user and a password")
            return _basic(credentials)
        raise denied(scope, "the registry refused us and named no way to sign in")

    async def _bearer(
        self, scope: Scope, home: URL, challenge: Challenge, credentials: Credentials | None
    ) -> str:
        subject = f"{scope.registry}/{scope.repository}"
        url = realm_url(home, challenge.parameters["realm"], self._plain_http, subject)
        query = {"scope": str(scope)}
        if service := challenge.parameters.get("service"):
            query["service"] = service
        authorization, form = None, None
        if credentials is not None and credentials.identity_token:
            form = {
                **query,
                "grant_type": "refresh_token",
                "client_id": "trainseal",
                "refresh_token": credentials.identity_token,
            }
        else:
            url = url.extend_query(query)
            if credentials is not None and credentials.username:
                authorization = _basic(credentials)
        answer = await self._request(url, authorization=authorization, form=form, subject=subject)
        if answer.status != 200:
            raise denied(
                scope, f"the token service {url.host_port_subcomponent} answered {answer.status}"
            )
        return "Bearer " + _token(
            answer.body, f"{subject} (token service {url.host_port_subcomponent})"
        )


def denied(scope: Scope, found: str) -> AccessDenied:
    """The refusal in words."""
    what = "push to" if scope.actions == PUSH else "read"
    name = f"{scope.registry}/{scope.repository}"
    return AccessDenied(
        name,
        found,
        expected=f"access to {what} it",
        remedy=f"sign in to {scope.registry} with an account that may {what} it (a pull secret,"
        " for TrainSeal in a cluster), and check that the repository exists",
    )


def _basic(credentials: Credentials) -> str:
    pair = f"{credentials.username}:{credentials.password}"
    return "Basic " + base64.b64encode(pair.encode()).decode()


def _token(body: bytes, subject: str) -> str:
    try:
        document = parse_object(body, subject)
    except MalformedContent as error:
        raise RegistryMisbehaved(
            subject, error.found, expected="a JSON object with a token", remedy=error.remedy
        ) from None
    token = document.get("token") or document.get("access_token")
    if not isinstance(token, str) or not _TOKEN68.fullmatch(token):
        raise RegistryMisbehaved(
            subject,
            "its answer has no usable token",
            expected="a JSON object with a token",
            remedy="check the token service behind the registry",
        )
    return token
