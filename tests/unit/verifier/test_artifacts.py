"""Evidence from registries: fetched once, judged, and remembered only as long as it may be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit import world
from tests.unit.provenance.test_judgement import renamed
from trainseal.provenance.bundles import encode_bundle, make_bundle_dsse
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE
from trainseal.provenance.keys import PrivateKey
from trainseal.provenance.manifests import TreeManifest
from trainseal.provenance.policies import CompiledPolicy
from trainseal.provenance.verdicts import Outcome, Unusable
from trainseal.registry.errors import ContentMismatch, RegistryError, RegistryUnavailable
from trainseal.verifier import artifacts
from trainseal.verifier.artifacts import ArtifactVerifier, CodeResult

TREE = TreeManifest.of("code", {"train.py": "1" * 64, "evil.py": "2" * 64})


def bundle(key: PrivateKey, manifest: TreeManifest = TREE) -> bytes:
    return encode_bundle(make_bundle_dsse(key, manifest.to_statement(), IN_TOTO_PAYLOAD_TYPE))


class Registry:
    """What a registry has of the code; counts how often it is asked."""

    def __init__(self) -> None:
        self.bundles: list[tuple[str, bytes]] = [("sha256:" + "5" * 64, bundle(world.ALICE))]
        self.set_aside: tuple[Unusable, ...] = ()
        self.fails: RegistryError | None = None
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()
        self.now = 0.0

    async def code(self, *_: object) -> Any:
        self.asked += 1
        await self.answers.wait()
        if self.fails:
            raise self.fails
        return SimpleNamespace(
            bundles=tuple(self.bundles), tree_digest=TREE.root_digest, set_aside=self.set_aside
        )

    async def listing(self, *_: object) -> Any:
        return SimpleNamespace(bundles=SimpleNamespace(size=1))


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> Registry:
    found = Registry()
    monkeypatch.setattr(artifacts, "list_evidence", found.listing)
    monkeypatch.setattr(artifacts, "fetch_evidence", found.code)
    return found


@pytest.fixture
def code(registry: Registry) -> Callable[..., Awaitable[CodeResult]]:
    """Asks for the verdicts on one code artifact."""
    verifier = ArtifactVerifier(None, lambda: registry.now)  # type: ignore[arg-type]

    async def ask(*policies: CompiledPolicy, seconds: float = 5.0) -> CodeResult:
        until = asyncio.get_running_loop().time() + seconds
        return await verifier.code("trainer", world.CODE, policies or (world.policy(),), until)

    return ask


def outcomes(found: CodeResult) -> Sequence[Outcome]:
    return [v.outcome for v in found.verdicts]


Ask = Callable[..., Awaitable[CodeResult]]


async def test_signed_code_is_verified_and_sealed(code: Ask) -> None:
    found = await code()
    assert outcomes(found) == [Outcome.VERIFIED]
    assert found.sealed
    assert (found.sealed.name, found.sealed.tree_digest) == ("trainer", TREE.root_digest)


async def test_what_is_verified_is_asked_once_an_hour(code: Ask, registry: Registry) -> None:
    await code()
    registry.now = artifacts.VERIFIED_SECONDS - 1
    await code()
    assert registry.asked == 1
    registry.now = artifacts.VERIFIED_SECONDS + 1
    await code()
    assert registry.asked == 2


async def test_a_refutation_is_forgotten_sooner(code: Ask, registry: Registry) -> None:
    signed, registry.bundles = registry.bundles, []
    assert outcomes(await code()) == [Outcome.REFUTED]
    registry.bundles, registry.now = signed, artifacts.REFUTED_SECONDS + 1
    assert outcomes(await code()) == [Outcome.VERIFIED]


async def test_what_could_not_be_read_is_never_remembered(code: Ask, registry: Registry) -> None:
    registry.fails = RegistryUnavailable("registry.example", "no answer")
    assert outcomes(await code()) == [Outcome.UNDETERMINED]
    registry.fails = None
    assert outcomes(await code()) == [Outcome.VERIFIED]


async def test_bytes_that_contradict_their_digest_are_refuted(
    code: Ask, registry: Registry
) -> None:
    registry.fails = ContentMismatch("registry.example", "other bytes")
    found = await code()
    assert (outcomes(found), found.sealed) == ([Outcome.REFUTED], None)


async def test_a_policy_of_another_name_gets_verdicts_of_its_own(
    code: Ask, registry: Registry
) -> None:
    """A renamed policy says the same, and must not be answered in the other's name."""
    registry.bundles = []
    await code(world.policy("one"))
    found = await code(world.policy("other"))
    assert [(v.policy, v.outcome) for v in found.verdicts] == [("other", Outcome.REFUTED)]


async def test_a_changed_policy_is_judged_anew(code: Ask) -> None:
    await code()
    bob = {"authorities": ["bob"]}
    changed = world.policy(requirements={"job": bob, "image": bob, "code": bob})
    assert outcomes(await code(changed)) == [Outcome.REFUTED]


async def test_many_who_ask_at_once_cost_one_look(code: Ask, registry: Registry) -> None:
    found = await asyncio.gather(*(code() for _ in range(20)))
    assert registry.asked == 1
    assert {tuple(outcomes(f)) for f in found} == {(Outcome.VERIFIED,)}


async def test_who_cannot_wait_is_told_so_and_the_next_finds_the_result(
    code: Ask, registry: Registry
) -> None:
    registry.answers.clear()
    late = await code(seconds=0)
    assert [v.reason for v in late.verdicts] == ["DeadlineExceeded"]
    assert outcomes(late) == [Outcome.UNDETERMINED]
    registry.answers.set()
    assert outcomes(await code()) == [Outcome.VERIFIED]
    assert registry.asked == 1


async def test_one_who_gives_up_takes_nobody_with_him(code: Ask, registry: Registry) -> None:
    registry.answers.clear()
    first = asyncio.ensure_future(code())
    second = asyncio.ensure_future(code())
    await asyncio.sleep(0)
    first.cancel()
    registry.answers.set()
    assert outcomes(await second) == [Outcome.VERIFIED]


async def test_the_sealed_bundle_is_one_of_the_tree_that_the_policy_accepts(
    code: Ask, registry: Registry
) -> None:
    """Mallory signs other names for the same contents, under a digest that comes first."""
    both = {"authorities": ["alice", "bob"], "threshold": 2}
    policy = world.policy(requirements={"job": both, "image": both, "code": both})
    registry.bundles = [
        ("sha256:" + "0" * 64, bundle(world.BOB, renamed())),
        ("sha256:" + "5" * 64, bundle(world.ALICE)),
    ]
    assert outcomes(await code(policy)) == [Outcome.REFUTED]
    registry.bundles.append(("sha256:" + "6" * 64, bundle(world.BOB)))
    registry.now += artifacts.REFUTED_SECONDS + 1
    found = await code(policy)
    assert outcomes(found) == [Outcome.VERIFIED]
    assert found.sealed
    assert found.sealed.bundle == "sha256:" + "5" * 64


async def test_an_enforcing_policys_tree_goes_before_an_auditing_ones(
    code: Ask, registry: Registry
) -> None:
    def only(who: str) -> dict[str, Any]:
        return {k: {"authorities": [who]} for k in ("job", "image", "code")}

    audits = world.policy("audits", mode="Audit", requirements=only("bob"))
    enforces = world.policy("enforces", requirements=only("alice"))
    registry.bundles.append(("sha256:" + "0" * 64, bundle(world.BOB, renamed())))
    found = await code(audits, enforces)
    assert outcomes(found) == [Outcome.REFUTED, Outcome.VERIFIED]
    assert found.sealed
    assert found.sealed.bundle == "sha256:" + "5" * 64
