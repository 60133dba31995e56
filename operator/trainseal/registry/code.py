"""Code as an OCI artifact: a work tree in layers, with its signatures attached.

An image manifest of artifact type ``application/vnd.trainseal.code.v1``, with the empty config, one
tar layer for each part of the tree (``layers``) and the annotation ``trainseal.dev/tree-digest``:
the root digest of the tree's manifest (OpenSSF Model Signing), as the pusher says. The manifest
itself is inside the Sigstore bundles attached as referrers; what the layers hold is believed only
after it was compared with one of those.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from trainseal.provenance.bundles import MAX_MANIFEST_BUNDLE_BYTES, MEDIA_TYPE
from trainseal.provenance.verdicts import Unusable

from .blobs import Progress
from .bundles import ListedBundles, fetch_bundles, list_bundles
from .client import RegistryClient
from .concurrency import map_bounded
from .descriptors import (
    EMPTY_JSON,
    OCI_MANIFEST,
    Descriptor,
    ImageManifest,
    Manifest,
    empty_descriptor,
    parse_manifest,
)
from .errors import MalformedContent, TooLarge
from .layers import LAYER_TYPE, Layer, pack
from .references import Reference, is_digest
from .referrers import json_bytes
from .tree_files import TreeFile

CODE_TYPE = "application/vnd.trainseal.code.v1"
TREE_DIGEST_ANNOTATION = "trainseal.dev/tree-digest"

MOST_BUNDLES = 16
#: Bytes of all bundles of one artifact: four signers of the largest tree.
MOST_BUNDLE_BYTES = 4 * MAX_MANIFEST_BUNDLE_BYTES
MOST_LAYERS = 128

_PUSHES_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class CodeEvidence:
    """A code artifact as the registry has it: read, not judged.

    ``tree_digest`` is the manifest's annotation (``sha256:…``); ``layers`` are its tars in order;
    ``bundles`` are (digest, bytes) of what is attached; ``set_aside`` says what was not usable.
    """

    reference: Reference
    manifest: Manifest
    tree_digest: str
    layers: tuple[Descriptor, ...]
    bundles: tuple[tuple[str, bytes], ...]
    set_aside: tuple[Unusable, ...] = ()

    @property
    def size(self) -> int:
        """Bytes of all layers, by the manifest's word."""
        return sum(layer.size for layer in self.layers)


BundleFor = Callable[[CodeEvidence], Awaitable[bytes | None]]
"""What to attach to the artifact that was just pushed, given what is attached already."""


def code_manifest(layers: Sequence[Descriptor], tree_digest: str) -> bytes:
    """The manifest of a code artifact: the same layers and digest give the same bytes."""
    if not is_digest(tree_digest):
        raise ValueError(f"{tree_digest[:140]!r} is no sha256 digest")
    return json_bytes(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": CODE_TYPE,
            "config": empty_descriptor().document(),
            "layers": [layer.document() for layer in layers],
            "annotations": {TREE_DIGEST_ANNOTATION: tree_digest},
        }
    )


async def push_code(
    client: RegistryClient,
    directory: Path,
    files: Sequence[TreeFile],
    reference: Reference,
    *,
    tree_digest: str,
    bundle_for: BundleFor,
    progress: Progress | None = None,
) -> Reference:
    """Packs and pushes a tree, attaches its signature, and returns the reference by digest.

    ``files`` as ``tree_files.list_files`` gives them; ``reference`` with a tag to set, or without.
    Layers that the registry has are not sent. ``bundle_for`` is asked for the bundle once the
    artifact is there, and may answer None where nothing is to be attached (our signature is there
    already). ``progress`` counts the layers' bytes, sent or not.

    Raises RegistryError, and TreeFilesError where the tree changes meanwhile.
    """
    layers = await asyncio.to_thread(pack, directory, files)
    await _push_layers(client, reference, layers, progress)
    await client.push_blob(reference, EMPTY_JSON)
    raw = code_manifest([layer.descriptor for layer in layers], tree_digest)
    descriptor = Descriptor.of(OCI_MANIFEST, raw)
    target = reference.at(descriptor.digest)
    await client.push_manifest(
        reference.tagged(reference.tag) if reference.tag else target, raw, OCI_MANIFEST
    )
    bundle = await bundle_for(await code_evidence(client, target))
    if bundle is not None:
        await attach_bundle(client, target, descriptor, bundle)
    return target


async def attach_bundle(
    client: RegistryClient, reference: Reference, subject: Descriptor, bundle: bytes
) -> Descriptor:
    """Attaches one more Sigstore bundle: a second approver's, say."""
    return await client.attach(reference, subject, MEDIA_TYPE, bundle, MEDIA_TYPE)


@dataclass(frozen=True, slots=True)
class CodeListing:
    """A code artifact and where its bundles are, which are not fetched yet."""

    reference: Reference
    manifest: Manifest
    tree_digest: str
    layers: tuple[Descriptor, ...]
    bundles: ListedBundles


async def code_evidence(client: RegistryClient, reference: Reference) -> CodeEvidence:
    """The artifact that ``reference`` names by digest, with its bundles (at most 16 of 8 MiB, and
    32 MiB together).

    Raises RegistryError; MalformedContent where it is no code artifact.
    """
    return await fetch_evidence(client, await list_evidence(client, reference))


async def list_evidence(client: RegistryClient, reference: Reference) -> CodeListing:
    """The artifact, and how large its evidence is. Raises as ``code_evidence``."""
    if reference.digest is None:
        raise ValueError(f"{reference}: evidence is gathered by digest")
    manifest = await client.manifest(reference)
    parsed = await asyncio.to_thread(parse_manifest, manifest, str(reference))
    tree_digest = _check(parsed, reference)
    listed = await list_bundles(client, reference, most=MOST_BUNDLES)
    if listed.size > MOST_BUNDLE_BYTES:
        raise TooLarge(
            str(reference),
            f"bundles of {listed.size} bytes are attached",
            expected=f"at most {MOST_BUNDLE_BYTES} together",
            remedy="remove those no longer needed, or push the tree to a new repository",
        )
    return CodeListing(
        reference=reference.at(reference.digest),
        manifest=manifest,
        tree_digest=tree_digest,
        layers=parsed.layers if isinstance(parsed, ImageManifest) else (),
        bundles=listed,
    )


async def fetch_evidence(client: RegistryClient, listing: CodeListing) -> CodeEvidence:
    """The bundles' bytes as well. Raises RegistryError."""
    attached = await fetch_bundles(client, listing.bundles, MAX_MANIFEST_BUNDLE_BYTES)
    return CodeEvidence(
        reference=listing.reference,
        manifest=listing.manifest,
        tree_digest=listing.tree_digest,
        layers=listing.layers,
        bundles=attached.bundles,
        set_aside=attached.set_aside,
    )


async def _push_layers(
    client: RegistryClient,
    reference: Reference,
    layers: Sequence[Layer],
    progress: Progress | None,
) -> None:
    done = dict.fromkeys((layer.digest for layer in layers), 0)
    total = sum(layer.size for layer in layers)

    async def push(layer: Layer) -> None:
        def report(sent: int, _size: int) -> None:
            done[layer.digest] = sent
            if progress is not None:
                progress(sum(done.values()), total)

        await client.push_blob(reference, layer, progress=report)

    await map_bounded(push, layers, _PUSHES_AT_ONCE)


def _check(parsed: object, reference: Reference) -> str:
    if not isinstance(parsed, ImageManifest) or parsed.kind != CODE_TYPE:
        raise _wrong(reference, "no code artifact", f"artifact type {CODE_TYPE}")
    tree_digest = parsed.annotations.get(TREE_DIGEST_ANNOTATION, "")
    if not is_digest(tree_digest):
        raise _wrong(
            reference,
            "a code artifact without a tree digest",
            f"{TREE_DIGEST_ANNOTATION}: sha256:…",
        )
    if not 0 < len(parsed.layers) <= MOST_LAYERS:
        raise _wrong(
            reference,
            f"a code artifact of {len(parsed.layers)} layers",
            f"1 to {MOST_LAYERS} layers",
        )
    if any(layer.media_type != LAYER_TYPE for layer in parsed.layers):
        raise _wrong(reference, "a layer that is no plain tar", f"layers of type {LAYER_TYPE}")
    return tree_digest


def _wrong(reference: Reference, found: str, expected: str) -> MalformedContent:
    return MalformedContent(
        str(reference),
        found,
        expected=expected,
        remedy="push the tree with 'trainseal sign code'",
    )
