"""A container image of one small layer, pushed with our own client."""

from __future__ import annotations

from trainseal.registry.client import RegistryClient
from trainseal.registry.descriptors import OCI_MANIFEST, Descriptor, sha256_digest
from trainseal.registry.references import Reference
from trainseal.registry.referrers import json_bytes

OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"


async def push_image(
    client: RegistryClient, where: Reference, architecture: str = "amd64"
) -> tuple[Descriptor, str]:
    """A one-layer image, tagged by its architecture; its descriptor and its config's digest."""
    layer = f"a layer for {architecture}".encode()
    config = json_bytes(
        {
            "os": "linux",
            "architecture": architecture,
            "rootfs": {"type": "layers", "diff_ids": [sha256_digest(layer)]},
        }
    )
    for blob in (layer, config):
        await client.push_blob(where, blob)
    raw = json_bytes(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": Descriptor.of(OCI_CONFIG, config).document(),
            "layers": [Descriptor.of(OCI_LAYER, layer).document()],
        }
    )
    pushed = await client.push_manifest(where.tagged(architecture), raw, OCI_MANIFEST)
    return pushed, sha256_digest(config)
