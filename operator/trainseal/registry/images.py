"""What a registry knows about an image: its parts by digest, and the signatures attached to it.

Signatures made by cosign: bundles attached as referrers (cosign 3), the same under the fallback
tag, and the older ``sha256-<hex>.sig`` tag whose layers are "simple signing" payloads with the
signature in an annotation. Nothing is judged here.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import NamedTuple

from trainseal.provenance.bundles import MAX_BUNDLE_BYTES
from trainseal.provenance.statements import COSIGN_SIGN_PREDICATE
from trainseal.provenance.verdicts import Outcome, Unusable

from .bundles import PIECE_ERRORS, attached_bundles, check_count, unusable
from .client import RegistryClient
from .concurrency import map_bounded
from .descriptors import (
    Descriptor,
    ImageIndex,
    ImageManifest,
    Manifest,
    parse_manifest,
    parse_object,
    platform_name,
)
from .errors import MalformedContent, NotFound, TooLarge
from .references import Reference
from .referrers import fallback_tag
from .transport import within

MOST_PIECES = 64
MAX_PIECE_BYTES = MAX_BUNDLE_BYTES
MOST_PLATFORMS = 32
CONFIG_LIMIT = 4 * 1024 * 1024

SIMPLE_SIGNING_TYPE = "application/vnd.dev.cosign.simplesigning.v1+json"
SIGNATURE_ANNOTATION = "dev.cosignproject.cosign/signature"


class SimpleSigning(NamedTuple):
    """An older cosign signature: the signed payload, and the signature in base64 as it stands."""

    payload: bytes
    signature_b64: str


@dataclass(frozen=True, slots=True)
class ImageEvidence:
    """All that may be a signature over an image; ``set_aside`` says what was not usable, and why.

    ``bundles`` are Sigstore bundles as JSON bytes.
    """

    bundles: tuple[bytes, ...]
    simple_signings: tuple[SimpleSigning, ...]
    set_aside: tuple[Unusable, ...] = ()


class PlatformImage(NamedTuple):
    """One platform's image: ``linux/amd64[/variant]``, and its digests (``sha256:…``)."""

    platform: str
    manifest_digest: str
    config_digest: str


@dataclass(frozen=True, slots=True)
class ResolvedImage:
    """An image by every digest that a runtime may report for it.

    ``index_digest`` is None for an image that has no index.
    """

    reference: Reference
    index_digest: str | None
    manifests: tuple[PlatformImage, ...]

    @property
    def digest(self) -> str:
        """What the tag or digest stood for: the index's digest, else the manifest's."""
        return self.index_digest or self.manifests[0].manifest_digest


async def resolve_image(client: RegistryClient, reference: Reference) -> ResolvedImage:
    """The image's digests, by platform. Raises RegistryError.

    Entries of an index without a real platform (build attestations) are left out.
    """
    async with within(client.options.deadline, str(reference)):
        top = await client.manifest(reference)
        parsed = await _parse(top, str(reference))
        pinned = reference.at(top.digest)
        if isinstance(parsed, ImageManifest):
            platform = await _config_platform(client, pinned, parsed.config)
            image = PlatformImage(platform, top.digest, parsed.config.digest)
            return ResolvedImage(pinned, None, (image,))
        entries = [entry for entry in parsed.manifests if _is_image(entry)]
        if not entries:
            raise _wrong(reference, "an index without an image for any platform")
        if len(entries) > MOST_PLATFORMS:
            raise TooLarge(
                str(reference),
                f"an index of {len(entries)} platforms",
                expected=f"at most {MOST_PLATFORMS}",
                remedy="sign and name the image of one platform",
            )

        async def one(entry: Descriptor) -> PlatformImage:
            target = reference.at(entry.digest)
            manifest = await _parse(await client.manifest(target), str(target))
            if isinstance(manifest, ImageIndex):
                raise _wrong(target, "an index within an index")
            platform = entry.platform or await _config_platform(client, target, manifest.config)
            return PlatformImage(platform, entry.digest, manifest.config.digest)

        return ResolvedImage(pinned, top.digest, tuple(await map_bounded(one, entries)))


async def image_evidence(client: RegistryClient, reference: Reference) -> ImageEvidence:
    """The signatures attached to what ``reference`` names by digest, at most 64 of 256 KiB.

    Raises RegistryError where they cannot be listed or read; TooLarge where there are more.
    """
    if reference.digest is None:
        raise ValueError(f"{reference}: evidence is gathered by digest")
    async with within(client.options.deadline, str(reference)):
        attached, (signings, set_aside) = await asyncio.gather(
            attached_bundles(
                client,
                reference,
                most=MOST_PIECES,
                max_bytes=MAX_PIECE_BYTES,
                predicates=(COSIGN_SIGN_PREDICATE,),
            ),
            _simple_signings(client, reference, reference.digest),
        )
    check_count(str(reference), len(attached.bundles) + len(signings), MOST_PIECES)
    return ImageEvidence(
        bundles=tuple(content for _, content in attached.bundles),
        simple_signings=signings,
        set_aside=attached.set_aside + set_aside,
    )


async def _simple_signings(
    client: RegistryClient, reference: Reference, digest: str
) -> tuple[tuple[SimpleSigning, ...], tuple[Unusable, ...]]:
    tag = reference.tagged(fallback_tag(digest) + ".sig")
    try:
        manifest = await _parse(await client.manifest(tag), str(tag))
    except NotFound:
        return (), ()
    except PIECE_ERRORS as error:
        return (), (unusable(error),)
    if not isinstance(manifest, ImageManifest):
        return (), (_nothing(f"{tag}: an index; expected the manifest of cosign signatures"),)
    layers = [layer for layer in manifest.layers if layer.media_type == SIMPLE_SIGNING_TYPE]
    check_count(str(tag), len(layers), MOST_PIECES)

    async def fetch(layer: Descriptor) -> SimpleSigning | Unusable:
        signature = layer.annotations.get(SIGNATURE_ANNOTATION)
        if signature is None:
            return _nothing(f"{tag}: {layer.digest} has no {SIGNATURE_ANNOTATION} annotation")
        try:
            return SimpleSigning(await client.blob(tag, layer, MAX_PIECE_BYTES), signature)
        except PIECE_ERRORS as error:
            return unusable(error)

    found = await map_bounded(fetch, layers)
    return (
        tuple(piece for piece in found if isinstance(piece, SimpleSigning)),
        tuple(piece for piece in found if isinstance(piece, Unusable)),
    )


def _nothing(words: str) -> Unusable:
    return Unusable(Outcome.REFUTED, words)


async def _parse(manifest: Manifest, subject: str) -> ImageManifest | ImageIndex:
    return await asyncio.to_thread(parse_manifest, manifest, subject)


async def _config_platform(client: RegistryClient, reference: Reference, config: Descriptor) -> str:
    raw = await client.blob(reference, config, CONFIG_LIMIT)
    subject = f"{reference} (config)"
    return platform_name(await asyncio.to_thread(parse_object, raw, subject), subject)


def _is_image(entry: Descriptor) -> bool:
    return entry.platform is None or not entry.platform.startswith("unknown/")


def _wrong(reference: Reference, found: str) -> MalformedContent:
    return MalformedContent(
        str(reference),
        found,
        expected="an image, or an index of images by platform",
        remedy="name the image itself",
    )
