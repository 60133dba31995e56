"""One code artifact: fetched by digest, compared with its signed manifest, unpacked.

The chain that makes it trustworthy, each link pinned by the one before:

1. the sealed plan names the artifact, the bundle blob and the tree by digest;
2. the bundle's bytes have the planned digest (so they are those that admission verified), and
   what was signed in it is a tree manifest whose root is the planned one;
3. every file that a layer holds is in that manifest, with that digest, once; none is missing;
4. each layer's bytes have the digest that the artifact's own manifest gives.

The bundle's signature is not verified again: that takes the policy, and its digest stands in the
seal because it was.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trainseal.api.gateplan import PlannedCode
from trainseal.gate.outcomes import RefusedError
from trainseal.gate.tar_stream import TarStream, inflated
from trainseal.gate.unpack import Bounds, TreeWriter, already_placed
from trainseal.provenance.bundles import MAX_MANIFEST_BUNDLE_BYTES, BundleError, parse_bundle
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE, Envelope
from trainseal.provenance.manifests import ManifestError, TreeManifest, parse_statement
from trainseal.registry.descriptors import Descriptor, ImageManifest, Manifest, parse_manifest
from trainseal.registry.references import InvalidReference, Reference

_NOT_OURS = "this plan was not made by the controller: find out who made the pod"
_PUSH_AGAIN = "push the code again with trainseal sign code, and sign the job with its reference"


class Registry(Protocol):
    """What the gate asks of a registry (``registry.client.RegistryClient`` has it)."""

    async def manifest(self, reference: Reference) -> Manifest:
        """The manifest, verified by the reference's digest."""
        ...

    async def blob(self, reference: Reference, content: Descriptor | str, max_bytes: int) -> bytes:
        """A whole blob, verified by its digest."""
        ...

    def blob_stream(self, reference: Reference, content: Descriptor) -> AsyncGenerator[bytes, None]:
        """A blob in chunks, verified once the iterator is exhausted."""
        ...


@dataclass(frozen=True, slots=True)
class Opened:
    """A tree that stands in its target as it was signed."""

    files: int
    bytes: int


async def open_code(plan: PlannedCode, registry: Registry, bounds: Bounds | None = None) -> Opened:
    """Fetches, compares and unpacks one artifact. Raises GateError and RegistryError.

    After an error the target is as it was before, so that a caller may try again.
    """
    reference = _reference(plan)
    tree = await _signed_tree(plan, reference, registry)
    target = Path(plan.target)
    if already_placed(target, tree):
        return Opened(len(tree.entries), 0)
    image = _image(await registry.manifest(reference), reference)
    with TreeWriter(target, tree, bounds) as writer:
        for layer in image.layers:
            await _unpack(layer, reference, registry, writer)
        writer.place()
        return Opened(writer.files_written, writer.bytes_written)


async def _unpack(
    layer: Descriptor, reference: Reference, registry: Registry, writer: TreeWriter
) -> None:
    gzipped = _is_gzip(layer)
    stream = registry.blob_stream(reference, layer)
    async with aclosing(stream) as chunks:
        tar = TarStream(inflated(chunks, layer.size) if gzipped else chunks)
        # Until None: then the stream was read to its end, where the layer's digest is compared.
        while member := await tar.next():
            await writer.write(member, tar.content())


def _is_gzip(layer: Descriptor) -> bool:
    kind = layer.media_type
    if kind.endswith((".tar+gzip", ".tar.gzip")):
        return True
    if kind.endswith(".tar"):
        return False
    raise RefusedError(
        f"layer {layer.digest}",
        f"media type {kind}",
        expected="a tar, plain or gzip",
        remedy=_PUSH_AGAIN,
    )


def _reference(plan: PlannedCode) -> Reference:
    try:
        reference = Reference.parse(plan.reference)
    except InvalidReference as error:
        raise RefusedError("reference", str(error), remedy=_NOT_OURS) from None
    if reference.digest is None:
        raise RefusedError(
            str(reference), "a tag", expected="a reference by digest", remedy=_NOT_OURS
        )
    return reference


def _image(manifest: Manifest, reference: Reference) -> ImageManifest:
    image = parse_manifest(manifest, str(reference))
    if not isinstance(image, ImageManifest):
        raise RefusedError(
            str(reference), "an image index", expected="a code artifact", remedy=_PUSH_AGAIN
        )
    return image


async def _signed_tree(plan: PlannedCode, reference: Reference, registry: Registry) -> TreeManifest:
    raw = await registry.blob(reference, plan.bundle, MAX_MANIFEST_BUNDLE_BYTES)
    subject = f"bundle {plan.bundle}"
    try:
        content = parse_bundle(raw, max_bytes=MAX_MANIFEST_BUNDLE_BYTES).content
        if not isinstance(content, Envelope) or content.payload_type != IN_TOTO_PAYLOAD_TYPE:
            raise RefusedError(
                subject,
                "a signature over something else",
                expected="an in-toto statement that lists the tree's files",
                remedy=_PUSH_AGAIN,
            )
        tree = parse_statement(content.payload)
    except (BundleError, ManifestError) as error:
        raise RefusedError(subject, str(error), remedy=_PUSH_AGAIN) from None
    if tree.root_digest != plan.tree_digest:
        raise RefusedError(
            subject,
            f"it signs the tree {tree.root_digest}",
            expected=f"{plan.tree_digest} as sealed",
            remedy=_NOT_OURS,
        )
    return tree
