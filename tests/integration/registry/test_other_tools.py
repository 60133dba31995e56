"""What we push, other people's tools read."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import oras.provider

from tests.local_registry import Registry
from trainseal.registry.client import RegistryClient
from trainseal.registry.code import CODE_TYPE, CodeEvidence, push_code
from trainseal.registry.descriptors import sha256_digest
from trainseal.registry.tree_files import list_files

from .conftest import tool


async def test_oras_and_crane_read_a_code_artifact_and_its_layers(
    client: RegistryClient, registry: Registry, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text("import torch\n")

    async def bundle_for(_pushed: CodeEvidence) -> bytes | None:
        return b"{}"

    where = registry.repository().tagged("main")
    pushed = await push_code(
        client,
        tmp_path,
        list_files(tmp_path),
        where,
        tree_digest=sha256_digest(b""),
        bundle_for=bundle_for,
    )

    def by_oras() -> tuple[str, bytes]:
        reader = oras.provider.Registry(hostname=registry.address, insecure=True)
        manifest = reader.get_manifest(str(where))
        blob = reader.get_blob(str(where), manifest["layers"][0]["digest"]).content
        return manifest["artifactType"], blob

    artifact_type, layer = await asyncio.to_thread(by_oras)
    assert artifact_type == CODE_TYPE
    assert b"import torch\n" in layer
    crane = [str(tool("crane")), "digest", "--insecure", str(where)]
    found = await asyncio.to_thread(subprocess.check_output, crane, text=True)
    assert found.strip() == pushed.digest
