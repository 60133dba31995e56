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
from trainseal.provenance.verdicts import Unusable

from .client import RegistryClient
from .concurrency import map_bounded
from .descriptors import Descriptor, ImageManifest, parse_manifest
from .errors import ContentMismatch, MalformedContent, NotFound, RegistryError, TooLarge
from .references import Reference

PREDICATE_ANNOTATION = "dev.sigstore.bundle.predicateType"

#: One piece of evidence failed, not the registry.
PIECE_ERRORS = (ContentMismatch, MalformedContent, NotFound, TooLarge)


@dataclass(frozen=True, slots=True)
class AttachedBundles:
    """(digest of the bundle, its bytes) each, ordered by digest; and what was set aside, why."""

    bundles: tuple[tuple[str, bytes], ...]
    set_aside: tuple[Unusable, ...]


@dataclass(frozen=True, slots=True)
class ListedBundles:
    """Where the bundles of one artifact are, not fetched yet, and what was set aside already."""

    places: tuple[tuple[Reference, Descriptor], ...]
    set_aside: tuple[Unusable, ...]

    @property
    def size(self) -> int:
        """Bytes of all of them, by their manifests' word, which fetching holds them to."""
        return sum(layer.size for _, layer in self.places)


def unusable(error: RegistryError) -> Unusable:
    """A piece that gave this error."""
    return Unusable(error.outcome, str(error))


async def attached_bundles(
    client: RegistryClient,
    reference: Reference,
    *,
    most: int,
    max_bytes: int,
    predicates: Sequence[str] | None = None,
) -> AttachedBundles:
    """The bundles attached to what ``reference`` names by digest: listed, then fetched."""
    listed = await list_bundles(client, reference, most=most, predicates=predicates)
    return await fetch_bundles(client, listed, max_bytes)


async def list_bundles(
    client: RegistryClient,
    reference: Reference,
    *,
    most: int,
    predicates: Sequence[str] | None = None,
) -> ListedBundles:
    """Where the bundles are that are attached to what ``reference`` names by digest.

    ``predicates``: pieces that announce another predicate type (an SBOM of megabytes, say) are left
    out; the announcement is nobody's signed word, and may only save work. Raises RegistryError;
    TooLarge where there are more than ``most`` pieces.
    """
    entries = [
        entry
        for entry in await client.referrers(reference, MEDIA_TYPE)
        if _announced(entry, predicates)
    ]
    check_count(str(reference), len(entries), most)

    async def look(entry: Descriptor) -> list[tuple[Reference, Descriptor] | Unusable]:
        try:
            return list(await _bundles_of(client, reference, entry, predicates))
        except PIECE_ERRORS as error:
            return [unusable(error)]

    found = [piece for pieces in await map_bounded(look, entries) for piece in pieces]
    places = {piece[1].digest: piece for piece in found if not isinstance(piece, Unusable)}
    check_count(str(reference), len(places), most)
    return ListedBundles(
        tuple(places[digest] for digest in sorted(places)),
        tuple(piece for piece in found if isinstance(piece, Unusable)),
    )


async def fetch_bundles(
    client: RegistryClient, listed: ListedBundles, max_bytes: int
) -> AttachedBundles:
    """The bundles' bytes, each at most ``max_bytes``. Raises RegistryError."""

    async def fetch(place: tuple[Reference, Descriptor]) -> tuple[str, bytes] | Unusable:
        target, layer = place
        try:
            return layer.digest, await client.blob(target, layer, max_bytes)
        except PIECE_ERRORS as error:
            return unusable(error)

    found = await map_bounded(fetch, listed.places)
    return AttachedBundles(
        tuple(piece for piece in found if not isinstance(piece, Unusable)),
        (*listed.set_aside, *(piece for piece in found if isinstance(piece, Unusable))),
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
    predicates: Sequence[str] | None,
) -> list[tuple[Reference, Descriptor]]:
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
    return [(target, layers[0])]


def _announced(entry: Descriptor, predicates: Sequence[str] | None) -> bool:
    announced = entry.annotations.get(PREDICATE_ANNOTATION)
    return predicates is None or announced is None or announced in predicates
