"""cosign and TrainSeal read each other, with the program itself."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.cluster import tools
from trainseal.provenance.authorities import KeyAuthority
from trainseal.provenance.bundles import (
    encode_bundle,
    make_bundle_blob,
    make_bundle_dsse,
    parse_bundle,
)
from trainseal.provenance.checks import check_blob, check_statement
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE
from trainseal.provenance.keyfiles import load_private_key
from trainseal.provenance.keys import PrivateKey, load_public_key
from trainseal.provenance.statements import (
    JOB_PREDICATE,
    job_statement,
)
from trainseal.provenance.verdicts import Outcome

JOB = b'{"apiVersion":"trainseal.dev/v1alpha1","kind":"TrainingJob"}'


class Signer:
    """cosign, in a folder of its own with a key pair of its own kind."""

    def __init__(self, folder: Path, handle: object) -> None:
        self.folder = folder
        assert isinstance(
            handle, (ec.EllipticCurvePrivateKey, ed25519.Ed25519PrivateKey, rsa.RSAPrivateKey)
        )
        (folder / "plain.pem").write_bytes(
            handle.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        (folder / "job.json").write_bytes(JOB)
        self.run("import-key-pair", "--key", "plain.pem", "-o", "own", "-y")

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(tools(["cosign"]).cosign), *arguments],
            cwd=self.folder,
            env={"HOME": str(self.folder), "COSIGN_PASSWORD": "correct horse", "PATH": "/usr/bin"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def sign(self, command: str, *arguments: str) -> bytes:
        offline = ["--use-signing-config=false", "--tlog-upload=false", "-y"]
        done = self.run(
            command, "--key", "own.key", *offline, "--bundle", "out.json", *arguments, "job.json"
        )
        assert done.returncode == 0, done.stderr
        return (self.folder / "out.json").read_bytes()

    def accepts(self, command: str, bundle: bytes, *arguments: str) -> bool:
        (self.folder / "ours.json").write_bytes(bundle)
        done = self.run(
            command,
            *("--key", "own.pub", "--bundle", "ours.json", "--insecure-ignore-tlog"),
            *arguments,
            "job.json",
        )
        return done.returncode == 0

    @property
    def private(self) -> PrivateKey:
        pem = (self.folder / "own.key").read_bytes()
        return load_private_key(pem, lambda: b"correct horse")

    @property
    def authority(self) -> KeyAuthority:
        public = load_public_key((self.folder / "own.pub").read_bytes())
        return KeyAuthority("lab", "alice", public)


KINDS: dict[str, Callable[[], object]] = {
    "ecdsa-p256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ecdsa-p384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
    "rsa": lambda: rsa.generate_private_key(65537, 2048),
}
# cosign 3.1 signs with SHA-384 on P-384 and verifies with SHA-256, also what it signed itself.
VERIFIED_BY_COSIGN = sorted(KINDS.keys() - {"ecdsa-p384"})


@pytest.fixture
def signer(request: pytest.FixtureRequest, tmp_path: Path) -> Signer:
    return Signer(tmp_path, KINDS[request.param]())


@pytest.mark.parametrize("signer", KINDS, indirect=True)
def test_what_cosign_signs_we_verify(signer: Signer) -> None:
    bundle = parse_bundle(signer.sign("sign-blob"))
    assert check_blob(bundle, signer.authority, JOB).outcome is Outcome.VERIFIED
    assert check_blob(bundle, signer.authority, JOB + b" ").outcome is Outcome.REFUTED
    statement = job_statement("research", "char-lm", hashlib.sha256(JOB).hexdigest())
    (signer.folder / "statement.json").write_bytes(statement)
    bundle = parse_bundle(signer.sign("attest-blob", "--statement", "statement.json"))
    checked, read = check_statement(bundle, signer.authority)
    assert checked.outcome is Outcome.VERIFIED
    assert read is not None
    assert read.predicate_type == JOB_PREDICATE


@pytest.mark.parametrize("signer", VERIFIED_BY_COSIGN, indirect=True)
def test_what_we_sign_cosign_verifies_and_what_we_signed_for_another_job_it_does_not(
    signer: Signer,
) -> None:
    assert signer.accepts("verify-blob", encode_bundle(make_bundle_blob(signer.private, JOB)))
    other = encode_bundle(make_bundle_blob(signer.private, JOB + b" "))
    assert not signer.accepts("verify-blob", other)

    def approval(job: bytes) -> bytes:
        statement = job_statement("research", "char-lm", hashlib.sha256(job).hexdigest())
        document = make_bundle_dsse(signer.private, statement, IN_TOTO_PAYLOAD_TYPE)
        return encode_bundle(document)

    command, kind = "verify-blob-attestation", ("--type", JOB_PREDICATE)
    assert signer.accepts(command, approval(JOB), *kind)
    assert not signer.accepts(command, approval(JOB + b" "), *kind)
