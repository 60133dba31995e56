"""How the client signs in, and to whom it never gives a credential."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web

from trainseal.provenance.verdicts import Outcome
from trainseal.registry.credentials import CredentialLookup, Credentials
from trainseal.registry.descriptors import OCI_MANIFEST, sha256_digest
from trainseal.registry.errors import AccessDenied, RegistryMisbehaved, RegistryUnavailable

from .liar import client_of, known, lying, never, refusal

BLOB = b"weights"
DIGEST = sha256_digest(BLOB)
BASIC = "Basic " + base64.b64encode(b"ada:hunter2").decode()


@dataclass
class TokenRegistry:
    """A registry and its token service in one: the world that each test breaks one thing of."""

    realm: str = ""
    tokens_given: int = 0
    valid: set[str] = field(default_factory=set)
    scopes: list[str] = field(default_factory=list)
    forms: list[Mapping[str, str]] = field(default_factory=list)
    anonymous_pull: bool = True
    token_answer: object = None

    async def __call__(self, request: web.Request) -> web.Response:
        if request.path == "/token":
            return await self.token(request)
        if request.headers.get("Authorization", "").removeprefix("Bearer ") not in self.valid:
            realm = self.realm or f"http://{request.host}/token"
            # The scope named here is wider than what is asked for: it must not be taken over.
            challenge = f'Bearer realm="{realm}",service="hub",scope="registry:catalog:*"'
            return refusal(401, "UNAUTHORIZED", **{"WWW-Authenticate": challenge})
        if request.method == "PUT":
            return web.Response(status=201)
        return web.Response(body=BLOB, content_type=OCI_MANIFEST)

    async def token(self, request: web.Request) -> web.Response:
        assert request.method == "GET" or request.content_type.endswith("urlencoded")
        if request.method == "POST":
            self.forms.append({key: str(value) for key, value in (await request.post()).items()})
        signed_in = request.headers.get("Authorization") == BASIC or bool(self.forms)
        if not signed_in and not self.anonymous_pull:
            return refusal(401, "UNAUTHORIZED")
        self.scopes.append(request.query.get("scope", ""))
        self.tokens_given += 1
        token = f"token-{self.tokens_given}"
        self.valid.add(token)
        answer = {"token": token} if self.token_answer is None else self.token_answer
        return web.json_response(answer)


@pytest.fixture
def world() -> TokenRegistry:
    return TokenRegistry()


async def test_an_anonymous_token_is_asked_for_the_one_repository_and_kept(
    world: TokenRegistry,
) -> None:
    async with lying(world) as liar, client_of(liar) as client:
        for _again in range(3):
            assert await client.blob(liar.repository, DIGEST, 100) == BLOB
    assert world.scopes == ["repository:research/code:pull"]


async def test_many_requests_at_once_make_one_token_request(world: TokenRegistry) -> None:
    async with lying(world) as liar, client_of(liar) as client:
        blobs = await asyncio.gather(*(client.blob(liar.repository, DIGEST, 100) for _ in range(8)))
    assert blobs == [BLOB] * 8
    assert world.tokens_given == 1


async def test_a_token_that_ran_out_is_renewed(world: TokenRegistry) -> None:
    async with lying(world) as liar, client_of(liar) as client:
        await client.blob(liar.repository, DIGEST, 100)
        world.valid.clear()
        assert await client.blob(liar.repository, DIGEST, 100) == BLOB
    assert world.tokens_given == 2


async def test_a_password_goes_to_the_token_service_and_not_to_the_registry(
    world: TokenRegistry,
) -> None:
    world.anonymous_pull = False
    async with lying(world) as liar, client_of(liar, credentials=known()) as client:
        assert await client.blob(liar.repository, DIGEST, 100) == BLOB
        sent = {asked.path.partition("?")[0]: asked.authorization for asked in liar.asked}
        assert sent["/token"] == BASIC
        assert [a.authorization for a in liar.asked if a.path != "/token"].count(BASIC) == 1


async def test_pushing_asks_for_push_rights(world: TokenRegistry) -> None:
    async with lying(world) as liar, client_of(liar, credentials=known()) as client:
        await client.push_manifest(liar.repository.tagged("v1"), b"{}", OCI_MANIFEST)
    assert world.scopes == ["repository:research/code:pull,push"]


async def test_an_identity_token_is_exchanged_by_form(world: TokenRegistry) -> None:
    async def identity(_registry: str, _repository: str) -> Credentials | None:
        return Credentials(identity_token="s3cret")

    async with lying(world) as liar, client_of(liar, credentials=identity) as client:
        assert await client.blob(liar.repository, DIGEST, 100) == BLOB
    (form,) = world.forms
    assert form["grant_type"] == "refresh_token"
    assert form["refresh_token"] == "s3cret"
    assert form["scope"] == "repository:research/code:pull"


@pytest.mark.parametrize("credentials", [known(), None])
async def test_a_realm_on_another_host_over_plain_http_is_never_asked(
    world: TokenRegistry, credentials: CredentialLookup | None
) -> None:
    async with lying(never) as thief, lying(world) as liar:
        world.realm = f"http://{thief.address}/token"
        options: dict[str, Any] = {} if credentials is None else {"credentials": credentials}
        async with client_of(liar, **options) as client:
            with pytest.raises(AccessDenied, match="over plain http"):
                await client.blob(liar.repository, DIGEST, 100)
        assert thief.asked == []


async def test_a_realm_on_a_host_that_was_named_as_plain_is_asked(world: TokenRegistry) -> None:
    async with lying(world) as service, lying(world) as liar:
        world.realm = f"http://{service.address}/token"
        async with client_of(liar, service, credentials=known()) as client:
            assert await client.blob(liar.repository, DIGEST, 100) == BLOB
        assert [asked.authorization for asked in service.asked] == [BASIC]


async def test_a_realm_at_a_metadata_service_is_refused(world: TokenRegistry) -> None:
    world.realm = "http://169.254.169.254/latest/api/token"
    async with lying(world) as liar, client_of(liar, credentials=known()) as client:
        with pytest.raises(RegistryMisbehaved):
            await client.blob(liar.repository, DIGEST, 100)


@pytest.mark.parametrize("answer", [{}, [], {"token": 1}, {"token": "a\r\nX-Evil: 1"}])
async def test_a_token_service_that_gives_no_token_is_undetermined(
    world: TokenRegistry, answer: object
) -> None:
    world.token_answer = answer
    async with lying(world) as liar, client_of(liar) as client:
        with pytest.raises(RegistryUnavailable) as error:
            await client.blob(liar.repository, DIGEST, 100)
        assert error.value.outcome is Outcome.UNDETERMINED


async def test_a_refused_password_is_undetermined_and_told_with_no_secret(
    world: TokenRegistry,
) -> None:
    world.anonymous_pull = False
    wrong = known("ada", "wr0ng-secret")
    async with lying(world) as liar, client_of(liar, credentials=wrong) as client:
        with pytest.raises(AccessDenied) as error:
            await client.blob(liar.repository, DIGEST, 100)
    assert error.value.outcome is Outcome.UNDETERMINED
    said = repr(error.value) + str(error.value)
    assert "wr0ng-secret" not in said
    assert base64.b64encode(b"ada:wr0ng-secret").decode() not in said
    assert "sign in" in error.value.remedy


async def test_a_token_that_is_refused_again_ends_the_matter(world: TokenRegistry) -> None:
    async def deny(request: web.Request) -> web.Response:
        if request.path == "/token":
            return await world.token(request)
        challenge = f'Bearer realm="http://{request.host}/token"'
        return refusal(401, "UNAUTHORIZED", **{"WWW-Authenticate": challenge})

    async with lying(deny) as liar, client_of(liar) as client:
        with pytest.raises(AccessDenied, match="answered 401"):
            await client.blob(liar.repository, DIGEST, 100)
        assert len(liar.asked) == 3


async def basic(request: web.Request) -> web.Response:
    if request.headers.get("Authorization") != BASIC:
        return refusal(401, "UNAUTHORIZED", **{"WWW-Authenticate": 'Basic realm="x"'})
    return web.Response(body=BLOB)


async def test_a_basic_challenge_is_answered_where_credentials_are_known() -> None:
    async with lying(basic) as liar:
        async with client_of(liar, credentials=known()) as client:
            assert await client.blob(liar.repository, DIGEST, 100) == BLOB
        async with client_of(liar) as client:
            with pytest.raises(AccessDenied, match="user and a password"):
                await client.blob(liar.repository, DIGEST, 100)
        async with client_of(liar, credentials=known("eve", "x")) as client:
            with pytest.raises(AccessDenied):
                await client.blob(liar.repository, DIGEST, 100)


async def test_credentials_are_not_sent_before_they_are_asked_for() -> None:
    async def open_to_all(_request: web.Request) -> web.Response:
        return web.Response(body=BLOB)

    async with lying(open_to_all) as liar, client_of(liar, credentials=known()) as client:
        await client.blob(liar.repository, DIGEST, 100)
        assert [asked.authorization for asked in liar.asked] == [None]


async def test_forbidden_is_access_denied_with_the_registrys_words() -> None:
    async def forbidding(_request: web.Request) -> web.Response:
        return refusal(403, "DENIED")

    async with lying(forbidding) as liar, client_of(liar) as client:
        with pytest.raises(AccessDenied, match=r"403 \(DENIED: as told\)"):
            await client.blob(liar.repository, DIGEST, 100)
