"""People with keys, made with the field's own tools: cosign, and openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster import Target
from trainseal.provenance.keyfiles import load_private_key
from trainseal.provenance.keys import PrivateKey

PASSWORD = "a test's password"


@dataclass(frozen=True, slots=True)
class Person:
    """Someone who signs; ``key_file`` is a private key, in cosign's form or PKCS #8."""

    name: str
    key_file: Path
    public_pem: str
    key: PrivateKey = field(repr=False)


def with_cosign_key(target: Target, folder: Path, name: str) -> Person:
    """`cosign generate-key-pair`: ECDSA P-256, encrypted."""
    prefix = folder / name
    target.run(
        [str(target.tools["cosign"]), "generate-key-pair", "--output-key-prefix", str(prefix)],
        extra={"COSIGN_PASSWORD": PASSWORD},
    )
    return _person(name, prefix.with_suffix(".key"), prefix.with_suffix(".pub").read_text())


def with_openssl_key(folder: Path, name: str) -> Person:
    """`openssl genpkey`: Ed25519, in PKCS #8."""
    private = folder / f"{name}.pem"
    private.touch(mode=0o600)
    _openssl("genpkey", "-algorithm", "ed25519", "-out", str(private))
    return _person(name, private, _openssl("pkey", "-in", str(private), "-pubout"))


def _openssl(*args: str) -> str:
    return subprocess.run(["openssl", *args], check=True, capture_output=True, text=True).stdout


def _person(name: str, key_file: Path, public_pem: str) -> Person:
    key = load_private_key(key_file.read_bytes(), PASSWORD.encode)
    return Person(name, key_file, public_pem, key)


def signing_environment() -> dict[str, str]:
    """Variables with which cosign and trainseal open everybody's key."""
    return {"COSIGN_PASSWORD": PASSWORD}
