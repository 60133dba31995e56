"""Verdicts on images and code artifacts: evidence fetched from registries, judged, remembered.

Remembered are ``verified`` and ``refuted`` verdicts, by reference with digest and by policies (name
and digest, which covers trust roots). ``undetermined`` is never remembered, and nothing is ever
remembered by tag. A refutation is forgotten sooner: somebody may sign in the meantime. One
verification is in flight for each key, however many ask.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from trainseal.api.sealedrun import PlatformImage, SealedCode, SealedImage
from trainseal.api.trainingjob import ArtifactKind
from trainseal.provenance.judgement import (
    Artifact,
    SignedTree,
    TreeSignatures,
    check_image,
    judge,
    read_bundle,
)
from trainseal.provenance.policies import CompiledPolicy, Requirement, UnavailableAuthority
from trainseal.provenance.verdicts import Outcome, Verdict
from trainseal.registry.client import RegistryClient
from trainseal.registry.code import CodeEvidence, fetch_evidence, list_evidence
from trainseal.registry.errors import RegistryError
from trainseal.registry.images import ImageEvidence, image_evidence, resolve_image
from trainseal.registry.references import Reference
from trainseal.verifier.room import Room

MAX_IMAGE_BUNDLE_BYTES = 256 * 1024
MAX_CODE_BUNDLE_BYTES = 8 * 1024 * 1024
#: Entries; one takes about 2 KiB, so the cache stays below 20 MiB.
MAX_ENTRIES = 8192
#: Bytes of code's evidence at once. Parsed, it takes about twice as much again, bundle by bundle.
CODE_ROOM = 48 * 1024 * 1024
#: Images whose evidence is gathered at once: each at most 64 pieces of 256 KiB.
IMAGES_AT_ONCE = 8
VERIFIED_SECONDS = 3600.0
REFUTED_SECONDS = 20.0


@dataclass(frozen=True, slots=True)
class ImageResult:
    """An image's verdict under each policy; ``sealed`` where its digests could be resolved."""

    verdicts: tuple[Verdict, ...]
    sealed: SealedImage | None


@dataclass(frozen=True, slots=True)
class CodeResult:
    """A code artifact's verdict under each policy; ``sealed`` where a signed tree was found."""

    verdicts: tuple[Verdict, ...]
    sealed: SealedCode | None


class ArtifactVerifier:
    """Verifies artifacts by digest, through one registry client."""

    def __init__(self, registry: RegistryClient, monotonic: Callable[[], float]) -> None:
        self._registry = registry
        self._monotonic = monotonic
        self._remembered: OrderedDict[tuple[str, ...], tuple[float, ImageResult | CodeResult]]
        self._remembered = OrderedDict()
        self._flights: dict[tuple[str, ...], asyncio.Task[ImageResult | CodeResult]] = {}
        self._room = Room(CODE_ROOM)
        self._images = asyncio.Semaphore(IMAGES_AT_ONCE)

    async def image(
        self, place: str, reference: str, policies: Sequence[CompiledPolicy], until: float
    ) -> ImageResult:
        """The verdicts on an image that stands by digest. ``until`` is the loop time to stop at."""
        key = ("image", reference, *_named(policies))
        found = await self._once(key, until, lambda: self._fetch_image(reference, policies))
        if isinstance(found, ImageResult):
            return ImageResult(_placed(found.verdicts, place), found.sealed)
        return ImageResult(_late("image", place, reference, policies), None)

    async def code(
        self, name: str, reference: str, policies: Sequence[CompiledPolicy], until: float
    ) -> CodeResult:
        """The verdicts on a code artifact that stands by digest."""
        key = ("code", reference, *_named(policies))
        found = await self._once(key, until, lambda: self._fetch_code(reference, policies))
        if isinstance(found, CodeResult):
            sealed = found.sealed.model_copy(update={"name": name}) if found.sealed else None
            return CodeResult(_placed(found.verdicts, name), sealed)
        return CodeResult(_late("code", name, reference, policies), None)

    async def _once(
        self,
        key: tuple[str, ...],
        until: float,
        work: Callable[[], Awaitable[ImageResult | CodeResult]],
    ) -> ImageResult | CodeResult | None:
        """The remembered result, or that of the one flight for this key; None if it is too late."""
        entry = self._remembered.get(key)
        if entry and entry[0] > self._monotonic():
            self._remembered.move_to_end(key)
            return entry[1]
        flight = self._flights.get(key)
        if flight is None:
            flight = asyncio.ensure_future(work())
            self._flights[key] = flight
            flight.add_done_callback(lambda done: self._landed(key, done))
        # The flight goes on when this caller's time is up: the next caller finds its result.
        done, _ = await asyncio.wait(
            {flight}, timeout=max(0.0, until - asyncio.get_running_loop().time())
        )
        return flight.result() if done else None

    def _landed(self, key: tuple[str, ...], flight: asyncio.Task[ImageResult | CodeResult]) -> None:
        self._flights.pop(key, None)
        if flight.cancelled() or flight.exception() is not None:
            return
        result = flight.result()
        outcomes = {v.outcome for v in result.verdicts}
        if Outcome.UNDETERMINED in outcomes:
            return
        life = REFUTED_SECONDS if Outcome.REFUTED in outcomes else VERIFIED_SECONDS
        self._remembered[key] = (self._monotonic() + life, result)
        self._remembered.move_to_end(key)
        while len(self._remembered) > MAX_ENTRIES:
            self._remembered.popitem(last=False)

    async def _fetch_image(self, reference: str, policies: Sequence[CompiledPolicy]) -> ImageResult:
        try:
            ref = Reference.parse(reference)
            async with self._images:
                resolved, evidence = await asyncio.gather(
                    resolve_image(self._registry, ref), image_evidence(self._registry, ref)
                )
                verdicts = await asyncio.to_thread(_judge_image, reference, evidence, policies)
        except RegistryError as error:
            return ImageResult(_unread("image", reference, policies, error), None)
        digest = _digest_of(reference)
        sealed = SealedImage(
            reference=reference,
            digest=digest,
            platforms=[
                PlatformImage(
                    platform=p.platform, manifest=p.manifest_digest, config=p.config_digest
                )
                for p in resolved.manifests
            ],
        )
        return ImageResult(verdicts, sealed)

    async def _fetch_code(self, reference: str, policies: Sequence[CompiledPolicy]) -> CodeResult:
        try:
            listing = await list_evidence(self._registry, Reference.parse(reference))
            async with self._room.held(listing.bundles.size):
                evidence = await fetch_evidence(self._registry, listing)
                # Manifests of large trees take a while to read; other requests do not wait for it.
                return await asyncio.to_thread(_judge_code, reference, evidence, policies)
        except RegistryError as error:
            return CodeResult(_unread("code", reference, policies, error), None)


def _judge_image(
    reference: str, evidence: ImageEvidence, policies: Sequence[CompiledPolicy]
) -> tuple[Verdict, ...]:
    pieces = [read_bundle(b, MAX_IMAGE_BUNDLE_BYTES) for b in evidence.bundles]
    check = check_image(pieces, evidence.simple_signings, _digest_of(reference))
    return tuple(
        judge(
            Artifact("image", reference, reference),
            policy.image,
            policy.name,
            len(pieces) + len(evidence.simple_signings),
            check,
            "sign it with `cosign sign`",
            evidence.set_aside,
        )
        for policy in policies
    )


def _judge_code(
    reference: str, evidence: CodeEvidence, policies: Sequence[CompiledPolicy]
) -> CodeResult:
    """The verdicts on the tree that satisfies most of the policies, those that enforce first."""
    pieces = [(d, read_bundle(b, MAX_CODE_BUNDLE_BYTES)) for d, b in evidence.bundles]
    signatures = TreeSignatures(pieces, evidence.tree_digest)
    authorities = [
        a for p in policies for a in p.code.authorities if not isinstance(a, UnavailableAuthority)
    ]

    def under(tree: SignedTree | None) -> tuple[Verdict, ...]:
        return tuple(
            judge(
                Artifact("code", reference, reference),
                policy.code,
                policy.name,
                len(pieces),
                signatures.check(tree),
                "sign it with `trainseal sign code`",
                evidence.set_aside,
            )
            for policy in policies
        )

    def missing(verdicts: Sequence[Verdict]) -> tuple[int, int]:
        bad = [v.policy for v in verdicts if v.outcome is not Outcome.VERIFIED]
        return sum(p.mode == "Enforce" for p in policies if p.name in bad), len(bad)

    trees: tuple[SignedTree | None, ...] = signatures.trees(authorities) or (None,)
    judged = [(under(tree), tree) for tree in trees]
    verdicts, tree = min(judged, key=lambda found: missing(found[0]))
    sealed = None
    if tree is not None:
        sealed = SealedCode(
            name="code",
            reference=reference,
            tree_digest=evidence.tree_digest,
            bundle=tree.bundles[0],
        )
    return CodeResult(verdicts, sealed)


def _named(policies: Sequence[CompiledPolicy]) -> Iterator[str]:
    """Names and digests: verdicts carry the name, and two policies may say the same."""
    for policy in policies:
        yield policy.name
        yield policy.digest


def _digest_of(reference: str) -> str:
    return reference.rpartition("@")[2]


def _placed(verdicts: Sequence[Verdict], place: str) -> tuple[Verdict, ...]:
    """The remembered verdicts under this job's name for the artifact."""
    return tuple(
        Verdict(
            v.artifact, place, v.subject, v.outcome, v.reason, v.found, v.wanted, v.remedy,
            v.signers, v.policy,
        )
        for v in verdicts
    )  # fmt: skip


def _requirement(kind: ArtifactKind, policy: CompiledPolicy) -> Requirement:
    return policy.image if kind == "image" else policy.code


def _unread(
    kind: ArtifactKind, reference: str, policies: Sequence[CompiledPolicy], error: RegistryError
) -> tuple[Verdict, ...]:
    """Evidence that could not be read, or bytes that contradict their digest: the error knows."""
    return tuple(
        Verdict(
            kind,
            reference,
            reference,
            error.outcome,
            error.reason,
            str(error),
            _requirement(kind, policy).wanted,
            policy=policy.name,
        )
        for policy in policies
    )


def _late(
    kind: ArtifactKind, place: str, reference: str, policies: Sequence[CompiledPolicy]
) -> tuple[Verdict, ...]:
    return tuple(
        Verdict(
            kind,
            place,
            reference,
            Outcome.UNDETERMINED,
            "DeadlineExceeded",
            "the registry did not answer in time",
            _requirement(kind, policy).wanted,
            "try again: what was fetched meanwhile is kept",
            policy=policy.name,
        )
        for policy in policies
    )
