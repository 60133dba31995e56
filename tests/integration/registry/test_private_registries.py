"""The gate and a private registry: TLS by an authority of its own, and a password."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests import local_registry
from tests.integration.registry.conftest import tool
from tests.local_registry import PASSWORD, PrivateRegistry
from trainseal.api.gateplan import GatePlan
from trainseal.gate.main import Patience, run
from trainseal.provenance.bundles import encode_bundle, make_bundle_dsse
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE
from trainseal.provenance.keys import private_key_of
from trainseal.provenance.manifests import TreeManifest
from trainseal.registry.code import CodeEvidence, code_evidence, push_code
from trainseal.registry.references import Reference
from trainseal.registry.tree_files import hash_files, list_files
from trainseal.registry.trustanchors import read_anchors

KEY = private_key_of(ec.generate_private_key(ec.SECP256R1()))
OTHER_REGISTRY = json.dumps({"auths": {"registry.example": {"auth": "YTpi"}}}).encode()


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRegistry]:
    folder = tmp_path_factory.mktemp("private")
    with local_registry.private_registry(tool("distribution"), folder) as found:
        yield found


@dataclass(frozen=True)
class World:
    """A signed tree in the private registry; ``plan`` opens it, each test breaks one thing."""

    root: Path
    registry: PrivateRegistry
    code: dict[str, str]

    def plan(self, *secrets: bytes | None, ca: bool = True) -> dict[str, Any]:
        """A plan with pull secrets of these contents; None is one that is not there."""
        planned = []
        for number, content in enumerate(secrets):
            file = self.root / f"secret-{number}" / "config.json"
            file.parent.mkdir()
            if content is not None:
                file.write_bytes(content)
            planned.append({"name": f"secret-{number}", "file": str(file)})
        plan: dict[str, Any] = {"code": [self.code], "pullSecrets": planned}
        if ca:
            plan["registryCa"] = read_anchors(self.registry.ca_file, 16 * 1024)
        return plan

    async def gate(self, plan: dict[str, Any]) -> tuple[int, str]:
        """Exit code and termination message; nothing of a secret is ever in it."""
        log = self.root / "termination-log"
        log.touch()
        code = await asyncio.to_thread(
            run,
            GatePlan.model_validate(plan),
            termination_log=log,
            patience=Patience(pauses=()),
        )
        message = log.read_text()
        assert PASSWORD not in message
        return code, message

    @property
    def target(self) -> Path:
        return Path(self.code["target"])


@pytest.fixture
async def world(private: PrivateRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    # What lies about in the gate's own surroundings is no credential of its.
    config = tmp_path / "home" / "config.json"
    config.parent.mkdir()
    config.write_bytes(private.docker_config())
    monkeypatch.setenv("DOCKER_CONFIG", str(config.parent))
    tree, target = tmp_path / "tree", tmp_path / "volume"
    tree.mkdir()
    target.mkdir()
    (tree / "train.py").write_text("import torch\n")
    files = list_files(tree)
    manifest = TreeManifest.of("tree", hash_files(tree, files))
    bundle = encode_bundle(make_bundle_dsse(KEY, manifest.to_statement(), IN_TOTO_PAYLOAD_TYPE))

    async def sign(_pushed: CodeEvidence) -> bytes:
        return bundle

    async with private.client() as client:
        reference = await push_code(
            client,
            tree,
            files,
            Reference(private.address, "research/code"),
            tree_digest=manifest.root_digest,
            bundle_for=sign,
        )
        evidence = await code_evidence(client, reference)
    return World(
        tmp_path,
        private,
        {
            "name": "trainer",
            "reference": str(reference),
            "treeDigest": manifest.root_digest,
            "bundle": evidence.bundles[0][0],
            "target": str(target),
        },
    )


async def test_code_is_opened_with_a_pull_secret_and_the_platforms_authority(world: World) -> None:
    code, message = await world.gate(world.plan(world.registry.docker_config()))
    assert code == 0, message
    assert (world.target / "train.py").read_text() == "import torch\n"


async def test_the_secret_that_knows_the_registry_is_found_behind_others(world: World) -> None:
    plan = world.plan(None, OTHER_REGISTRY, world.registry.docker_config())
    code, message = await world.gate(plan)
    assert code == 0, message


async def test_without_a_pull_secret_it_is_undetermined_and_told_where_to_name_one(
    world: World,
) -> None:
    code, message = await world.gate(world.plan())
    assert code == 2
    assert "the registry wants a user and a password" in message
    assert "under imagePullSecrets in the job's pod template" in message
    assert list(world.target.iterdir()) == []


async def test_a_secret_that_is_not_there_is_named(world: World) -> None:
    code, message = await world.gate(world.plan(None, OTHER_REGISTRY))
    assert code == 2
    assert "Secret secret-0 is not there" in message
    assert f"Secret secret-1 has no entry for {world.registry.address}: add one" in message


async def test_a_wrong_password_is_undetermined_and_names_the_secret(world: World) -> None:
    code, message = await world.gate(world.plan(world.registry.docker_config("wr0ng")))
    assert code == 2
    assert "the registry answered 401" in message
    assert "Secret secret-0 has an entry" in message
    assert "wr0ng" not in message


async def test_a_malformed_secret_is_undetermined_and_named(world: World) -> None:
    code, message = await world.gate(world.plan(PASSWORD.encode()))
    assert code == 2
    assert "pull secret secret-0: the docker config is not JSON" in message


async def test_without_the_platforms_authority_nobody_is_told_the_password(world: World) -> None:
    plan = world.plan(world.registry.docker_config(), ca=False)
    code, message = await world.gate(plan)
    assert code == 2
    assert "certificate was not accepted" in message
    assert "registries.caConfigMap" in message
