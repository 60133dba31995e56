"""cosign and TrainSeal read each other: its files as it wrote them, and the program itself.

The program is looked for in ``TRAINSEAL_TOOLS`` and on the PATH; without it those tests skip.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from trainseal.provenance.authorities import KeyAuthority
from trainseal.provenance.bundles import (
    encode_bundle,
    make_bundle_blob,
    make_bundle_dsse,
    parse_bundle,
)
from trainseal.provenance.checks import check_blob, check_simple_signing, check_statement
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE
from trainseal.provenance.keyfiles import load_private_key
from trainseal.provenance.keys import KeyPasswordError, PrivateKey, key_hint, load_public_key
from trainseal.provenance.statements import (
    COSIGN_SIGN_PREDICATE,
    JOB_PREDICATE,
    job_statement,
    subject_digests,
)
from trainseal.provenance.verdicts import Outcome

FILES = Path(__file__).with_name("cosign")
IMAGE = "sha256:af4acb05a5d7edc8c9fa44d1ddf19e17ba2f6309d8cfb9fd77676ece5e480aa6"
SIMPLE_SIGNATURE = (
    "MEUCIF9d0VKIphnd4520iYVfdJmNqZFV2K+7nFOq82i0yv3BAiEAlNkcNw7gpKgwnutnmdAl"
    "LK/F6QsiXWxRiX86XwzzyeM="
)
JOB = b'{"apiVersion":"trainseal.dev/v1alpha1","kind":"TrainingJob"}'

TOOLS = os.environ.get("TRAINSEAL_TOOLS", "")
COSIGN = shutil.which("cosign", path=TOOLS) or shutil.which("cosign")
needs_cosign = pytest.mark.skipif(
    COSIGN is None, reason="no cosign: set TRAINSEAL_TOOLS to a folder that holds it"
)


def authority() -> KeyAuthority:
    return KeyAuthority("lab", "alice", load_public_key((FILES / "cosign.pub").read_bytes()))


def test_the_key_file_that_cosign_wrote_opens_with_its_password_only() -> None:
    pem = (FILES / "cosign.key").read_bytes()
    assert load_private_key(pem, lambda: b"pw").public == authority().public_key
    with pytest.raises(KeyPasswordError):
        load_private_key(pem, lambda: b"PW")


def test_the_blob_bundle_that_cosign_wrote_is_verified_and_for_no_other_blob() -> None:
    bundle = parse_bundle((FILES / "blob.sigstore.json").read_bytes())
    assert bundle.key_hint == key_hint(authority().public_key)
    assert check_blob(bundle, authority(), b"hello\n").outcome is Outcome.VERIFIED
    assert check_blob(bundle, authority(), b"hello").outcome is Outcome.REFUTED


def test_the_image_bundle_that_cosign_wrote_is_a_statement_about_the_image() -> None:
    bundle = parse_bundle((FILES / "image.sigstore.json").read_bytes())
    checked, statement = check_statement(bundle, authority())
    assert checked.outcome is Outcome.VERIFIED
    assert statement is not None
    assert statement.predicate_type == COSIGN_SIGN_PREDICATE
    assert subject_digests(statement) == {IMAGE}


def test_the_older_image_signature_that_cosign_wrote_is_verified_and_for_no_other_image() -> None:
    payload = (FILES / "simplesigning.json").read_bytes()
    checked = check_simple_signing(payload, SIMPLE_SIGNATURE, authority(), IMAGE)
    assert checked.outcome is Outcome.VERIFIED
    other = check_simple_signing(payload, SIMPLE_SIGNATURE, authority(), "sha256:" + "00" * 32)
    assert (other.outcome, other.reason) == (Outcome.REFUTED, "OtherContent")


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
        assert COSIGN is not None
        return subprocess.run(
            [COSIGN, *arguments],
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


@needs_cosign
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


@needs_cosign
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
