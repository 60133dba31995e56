"""The gate against real registries: a tree pushed as ``trainseal sign code`` pushes it."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.cluster.ports import free_port
from tests.local_registry import Registry
from trainseal.api.gateplan import GatePlan
from trainseal.gate.main import Patience, run
from trainseal.provenance.bundles import encode_bundle, make_bundle_dsse
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE
from trainseal.provenance.keys import private_key_of
from trainseal.provenance.manifests import TreeManifest
from trainseal.registry.client import RegistryClient
from trainseal.registry.code import CodeEvidence, code_evidence, push_code
from trainseal.registry.tree_files import hash_files, list_files

KEY = private_key_of(ec.generate_private_key(ec.SECP256R1()))


@dataclass(frozen=True)
class Pushed:
    """A signed tree in a registry, and the plan that a seal would hold for it."""

    tree: Path
    target: Path
    evidence: CodeEvidence
    plan: GatePlan

    async def gate(self, plan: GatePlan | None = None) -> tuple[int, str]:
        """Exit code and termination message."""
        log = self.target.parent / "termination-log"
        log.touch()
        patience = Patience(pauses=())
        code = await asyncio.to_thread(
            run, plan or self.plan, termination_log=log, patience=patience
        )
        return code, log.read_text()


@pytest.fixture
async def pushed(
    client: RegistryClient,
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Pushed:
    """12 MiB in several layers, signed, attached, and an empty volume."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "no-credentials"))
    tree, target = tmp_path / "tree", tmp_path / "volume"
    (tree / "package").mkdir(parents=True)
    target.mkdir()
    for number in range(24):
        (tree / "package" / f"part{number}.bin").write_bytes(os.urandom(512 * 1024))
    (tree / "train.py").write_text("import torch\n")
    (tree / "run.sh").write_text("#!/bin/sh\n")
    (tree / "run.sh").chmod(0o755)
    files = list_files(tree)
    manifest = TreeManifest.of("tree", hash_files(tree, files))
    bundle = encode_bundle(make_bundle_dsse(KEY, manifest.to_statement(), IN_TOTO_PAYLOAD_TYPE))

    async def sign(_pushed: CodeEvidence) -> bytes:
        return bundle

    reference = await push_code(
        client,
        tree,
        files,
        registry.repository(),
        tree_digest=manifest.root_digest,
        bundle_for=sign,
    )
    evidence = await code_evidence(client, reference)
    plan = GatePlan.model_validate(
        {
            "code": [
                {
                    "name": "trainer",
                    "reference": str(reference),
                    "treeDigest": manifest.root_digest,
                    "bundle": evidence.bundles[0][0],
                    "target": str(target),
                }
            ],
            "plainHttp": [registry.address],
        }
    )
    return Pushed(tree, target, evidence, plan)


def content(folder: Path) -> dict[str, tuple[bytes, bool]]:
    return {
        path.relative_to(folder).as_posix(): (path.read_bytes(), os.access(path, os.X_OK))
        for path in folder.rglob("*")
        if path.is_file()
    }


async def test_a_pushed_tree_stands_in_the_volume_as_it_was_signed(pushed: Pushed) -> None:
    code, message = await pushed.gate()
    assert code == 0, message
    assert "26 files, 12.6 MB" in message
    assert content(pushed.target) == content(pushed.tree)


async def test_a_byte_changed_in_the_registrys_storage_is_refused_naming_the_file(
    pushed: Pushed, registry: Registry
) -> None:
    wanted = (pushed.tree / "package" / "part7.bin").read_bytes()
    for layer in pushed.evidence.layers:
        stored = registry.blob_file(layer.digest)
        raw = stored.read_bytes()
        if (at := raw.find(wanted)) >= 0:
            changed = bytes([raw[at + 99] ^ 1])
            stored.chmod(0o644)
            stored.write_bytes(raw[: at + 99] + changed + raw[at + 100 :])
    code, message = await pushed.gate()
    assert code == 1, message
    assert "code trainer: package/part7.bin: changed: found sha256:" in message
    assert list(pushed.target.iterdir()) == []


async def test_a_layer_cut_short_in_the_registrys_storage_is_never_opened(
    pushed: Pushed, registry: Registry
) -> None:
    stored = registry.blob_file(pushed.evidence.layers[0].digest)
    stored.chmod(0o644)
    stored.write_bytes(stored.read_bytes()[:-4096])
    code, message = await pushed.gate()
    assert code in (1, 2), message
    assert list(pushed.target.iterdir()) == []


async def test_a_bundle_that_is_not_there_is_refuted(pushed: Pushed) -> None:
    planned = pushed.plan.code[0].model_copy(update={"bundle": "sha256:" + "0" * 64})
    code, message = await pushed.gate(pushed.plan.model_copy(update={"code": [planned]}))
    assert code == 1, message


async def test_a_registry_that_is_down_is_undetermined(pushed: Pushed, registry: Registry) -> None:
    address = f"127.0.0.1:{free_port()}"
    reference = pushed.plan.code[0].reference.replace(registry.address, address)
    planned = pushed.plan.code[0].model_copy(update={"reference": reference})
    plan = pushed.plan.model_copy(update={"code": [planned], "plain_http": [address]})
    code, message = await pushed.gate(plan)
    assert code == 2, message
    assert message.startswith("trainseal gate: undetermined: code trainer: ")


async def test_a_registry_without_tls_is_not_spoken_to_unless_the_plan_names_it(
    pushed: Pushed,
) -> None:
    code, message = await pushed.gate(pushed.plan.model_copy(update={"plain_http": []}))
    assert code == 2, message
