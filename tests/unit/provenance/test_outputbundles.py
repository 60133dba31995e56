"""Bundles that OpenSSF Model Signing itself accepts, and does not where a byte is another."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from tests.unit import world
from trainseal.provenance.keyrings import UntrustedError
from trainseal.provenance.keys import private_key_of
from trainseal.provenance.manifests import ManifestError
from trainseal.provenance.outputbundles import bundle, sign, tree_of

OUTPUT_KEY = private_key_of(ec.generate_private_key(ec.SECP256R1()))
RING = world.keyring(OUTPUT_KEY)
SIGNED_AT = "2026-11-23T12:00:00Z"
FILES = {"step-20/model.safetensors": b"weights", "step-20/rank-0/state": b"state"}


def hashed(files: dict[str, bytes]) -> dict[str, str]:
    return {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}


def verified(folder: Path, document: dict[str, Any]) -> None:
    """As ``model_signing verify key`` does; raises ValueError where it refuses."""
    verifying = pytest.importorskip("model_signing.verifying")
    signature, key = folder.parent / "output.sig", folder.parent / "output.pub"
    signature.write_text(json.dumps(document))
    key.write_text(OUTPUT_KEY.public.pem)
    verifying.Config().use_elliptic_key_verifier(public_key=key).verify(folder, signature)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the directory that the files share."""
    for path, content in FILES.items():
        file = tmp_path / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return tmp_path / "step-20"


def test_model_signing_accepts_the_bundle_of_a_checkpoint(folder: Path) -> None:
    tree = tree_of("m-1", hashed(FILES))
    assert tree.folder == "step-20"
    verified(folder, bundle(RING, tree, sign(OUTPUT_KEY, tree), SIGNED_AT))


def test_model_signing_refuses_it_for_other_bytes(folder: Path) -> None:
    tree = tree_of("m-1", hashed(FILES))
    document = bundle(RING, tree, sign(OUTPUT_KEY, tree), SIGNED_AT)
    (folder / "model.safetensors").write_bytes(b"poisoned")
    with pytest.raises(ValueError, match="mismatch"):
        verified(folder, document)


@pytest.mark.parametrize(
    ("files", "folder"),
    [
        (["a"], ""),
        (["a/b"], "a"),
        (["a/b", "a/c/d"], "a"),
        (["a/b", "c/d"], ""),
        (["a/b", "c"], ""),
        (["ab/x", "abc/x"], ""),
    ],
)
def test_names_are_within_the_directory_that_all_share(files: list[str], folder: str) -> None:
    tree = tree_of("m", dict.fromkeys(files, "0" * 64))
    assert tree.folder == folder
    assert {f"{folder}/{p}".lstrip("/") for p in tree.manifest.digests} == set(files)


@pytest.mark.parametrize("files", [[], ["../up"], ["a/../b"], ["a", "A"], ["a\n"]])
def test_names_that_no_tree_may_have_get_no_bundle(files: list[str]) -> None:
    with pytest.raises(ManifestError):
        tree_of("m", dict.fromkeys(files, "0" * 64))


def test_a_signature_over_other_files_makes_no_bundle() -> None:
    signed = sign(OUTPUT_KEY, tree_of("m-1", hashed(FILES)))
    with pytest.raises(UntrustedError, match="edited or forged"):
        bundle(RING, tree_of("m-1", hashed({"a": b"x"})), signed, SIGNED_AT)


def test_the_seal_key_makes_no_bundle() -> None:
    tree = tree_of("m-1", hashed(FILES))
    with pytest.raises(UntrustedError, match="does not hold"):
        bundle(RING, tree, sign(world.SEAL_KEY, tree), SIGNED_AT)
