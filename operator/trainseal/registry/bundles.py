"""Sigstore bundles that are attached to an artifact as referrers: gathered, not judged.

As cosign 3 and ``trainseal`` attach them: an image manifest with ``subject``, of artifact type
``application/vnd.dev.sigstore.bundle.v0.3+json``, with one layer of that type. What one
pusher put there cannot make the others' evidence unreadable: a piece that is damaged, missing or
too large is set aside with a sentence, and only a registry that gives no answer, or a flood of
pieces, is an error for the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainseal.provenance.bundles import MEDIA_TYPE

from .client import RegistryClient
from .concurrency import map_bounded
from .descriptors import Descriptor, ImageManifest, parse_manifest
from .errors import ContentMismatch, MalformedContent, NotFound, TooLarge
from .references import Reference

PREDICATE_ANNOTATION = "dev.sigstore.bundle.predicateType"

#: One piece of evidence failed, not the registry.
PIECE_ERRORS = (ContentMismatch, MalformedContent, NotFound, TooLarge)


@dataclass(frozen=True, slots=True)
class AttachedBundles:
    """(digest of the bundle, its bytes) each, ordered by digest; and what was set aside, why."""

    bundles: tuple[tuple[str, bytes], ...]
    set_aside: tuple[str, ...]


async def attached_bundles(
    client: RegistryClient,
    reference: Reference,
    *,
    most: int,
    max_bytes: int,
    predicates: Sequence[str] | None = None,
) -> AttachedBundles:
    """The bundles attached to what ``reference`` names by digest.

    ``predicates``: pieces that announce another predicate type (an SBOM of megabytes, say) are not
    fetched; the announcement is nobody's signed word, and may only save work. Raises
    RegistryError; TooLarge where there are more than ``most`` pieces.
    """
    entries = [
        entry
        for entry in await client.referrers(reference, MEDIA_TYPE)
        if _announced(entry, predicates)
    ]
    check_count(str(reference), len(entries), most)

    async def fetch(entry: Descriptor) -> list[tuple[str, bytes] | str]:
        try:
            return list(await _bundles_of(client, reference, entry, max_bytes, predicates))
        except PIECE_ERRORS as error:
            return [str(error)]

    found = [piece for pieces in await map_bounded(fetch, entries) for piece in pieces]
    bundles = {piece[0]: piece for piece in found if not isinstance(piece, str)}
    check_count(str(reference), len(bundles), most)
    return AttachedBundles(
        tuple(bundles[digest] for digest in sorted(bundles)),
        tuple(piece for piece in found if isinstance(piece, str)),
    )


def check_count(subject: str, count: int, most: int) -> None:
    """Raises TooLarge for more than ``most`` pieces of evidence."""
    if count > most:
        raise TooLarge(
            subject,
            f"{count} signatures or attestations are attached",
            expected=f"at most {most}",
            remedy="remove those no longer needed (cosign clean, or the registry's own tools)",
        )


async def _bundles_of(
    client: RegistryClient,
    reference: Reference,
    entry: Descriptor,
    max_bytes: int,
    predicates: Sequence[str] | None,
) -> list[tuple[str, bytes]]:
    target = reference.at(entry.digest)
    manifest = parse_manifest(await client.manifest(target), str(target))
    if not isinstance(manifest, ImageManifest) or manifest.kind != MEDIA_TYPE:
        return []
    if manifest.subject is None or manifest.subject.digest != reference.digest:
        raise MalformedContent(
            str(target),
            "it is attached to another artifact",
            expected=f"a subject of {reference.digest}",
            remedy="attach the signature again",
        )
    announced = manifest.annotations.get(PREDICATE_ANNOTATION)
    if predicates is not None and announced is not None and announced not in predicates:
        return []
    layers = [layer for layer in manifest.layers if layer.media_type == MEDIA_TYPE]
    if len(layers) != 1:
        raise MalformedContent(
            str(target),
            f"it holds {len(layers)} bundles",
            expected="one",
            remedy="attach the signature again",
        )
    return [(layers[0].digest, await client.blob(target, layers[0], max_bytes))]


def _announced(entry: Descriptor, predicates: Sequence[str] | None) -> bool:
    announced = entry.annotations.get(PREDICATE_ANNOTATION)
    return predicates is None or announced is None or announced in predicates
