"""One bundle against one authority, with bare keys: each test breaks one thing."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from trainseal.provenance.authorities import KeyAuthority, KeylessAuthority
from trainseal.provenance.bundles import make_bundle_blob, make_bundle_dsse, parse_bundle
from trainseal.provenance.checks import check_blob, check_simple_signing, check_statement
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE
from trainseal.provenance.keys import PrivateKey, private_key_of, sign
from trainseal.provenance.statements import job_statement
from trainseal.provenance.trustroots import public_good_trusted_root
from trainseal.provenance.verdicts import Outcome, Signer

JOB = b'{"apiVersion":"trainseal.dev/v1alpha1"}'
STATEMENT = job_statement("research", "char-lm", "ab" * 32)
IMAGE = "sha256:" + "cd" * 32
Document = dict[str, Any]

KEYS = {
    "ecdsa-p256": private_key_of(ec.generate_private_key(ec.SECP256R1())),
    "ecdsa-p384": private_key_of(ec.generate_private_key(ec.SECP384R1())),
    "ecdsa-p521": private_key_of(ec.generate_private_key(ec.SECP521R1())),
    "ed25519": private_key_of(ed25519.Ed25519PrivateKey.generate()),
    "rsa": private_key_of(rsa.generate_private_key(65537, 2048)),
}
ALICE = KEYS["ecdsa-p256"]
MALLORY = private_key_of(ec.generate_private_key(ec.SECP256R1()))


def authority(private: PrivateKey = ALICE) -> KeyAuthority:
    return KeyAuthority("research-leads", "alice", private.public)


def blob_bundle(private: PrivateKey = ALICE) -> Document:
    return make_bundle_blob(private, JOB)


def statement_bundle(private: PrivateKey = ALICE, payload: bytes = STATEMENT) -> Document:
    return make_bundle_dsse(private, payload, IN_TOTO_PAYLOAD_TYPE)


@pytest.mark.parametrize("kind", KEYS)
def test_a_blob_signed_by_the_authority_is_verified_and_the_signer_named(kind: str) -> None:
    private = KEYS[kind]
    checked = check_blob(parse_bundle(blob_bundle(private)), authority(private), JOB)
    assert checked.outcome is Outcome.VERIFIED
    assert checked.signer == Signer("research-leads", "alice", private.public.id)


@pytest.mark.parametrize("kind", KEYS)
def test_a_statement_signed_by_the_authority_is_verified_and_returned(kind: str) -> None:
    private = KEYS[kind]
    bundle = parse_bundle(statement_bundle(private))
    checked, statement = check_statement(bundle, authority(private))
    assert checked.outcome is Outcome.VERIFIED
    assert checked.signer is not None
    assert statement is not None
    assert statement.payload == STATEMENT


def test_a_bundle_by_another_key_is_refuted_as_such() -> None:
    checked = check_blob(parse_bundle(blob_bundle(MALLORY)), authority(), JOB)
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, "OtherKey")
    assert checked.signer is None
    checked, statement = check_statement(parse_bundle(statement_bundle(MALLORY)), authority())
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, "OtherKey")
    assert statement is None


def test_a_hint_that_names_the_authority_proves_nothing() -> None:
    document = blob_bundle(MALLORY)
    document["verificationMaterial"] = blob_bundle()["verificationMaterial"]
    checked = check_blob(parse_bundle(document), authority(), JOB)
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, "InvalidSignature")


@pytest.mark.parametrize("hint", ["", "AAAA", "not base64 at all"])
def test_a_hint_in_another_form_does_not_stand_in_the_way(hint: str) -> None:
    document = blob_bundle()
    document["verificationMaterial"]["publicKey"]["hint"] = hint
    assert check_blob(parse_bundle(document), authority(), JOB).outcome is Outcome.VERIFIED


def test_another_blob_is_refuted_by_the_stated_digest() -> None:
    checked = check_blob(parse_bundle(blob_bundle()), authority(), JOB + b" ")
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, "OtherContent")


def test_another_blob_is_refuted_by_the_signature_where_no_digest_is_stated() -> None:
    document = blob_bundle()
    del document["messageSignature"]["messageDigest"]
    assert check_blob(parse_bundle(document), authority(), JOB).outcome is Outcome.VERIFIED
    checked = check_blob(parse_bundle(document), authority(), JOB + b" ")
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, "InvalidSignature")


def test_a_right_digest_beside_another_blobs_signature_is_refuted() -> None:
    document = make_bundle_blob(ALICE, b"another")
    document["messageSignature"]["messageDigest"] = blob_bundle()["messageSignature"][
        "messageDigest"
    ]
    checked = check_blob(parse_bundle(document), authority(), JOB)
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, "InvalidSignature")


@pytest.mark.parametrize("part", ["payload", "payloadType", "sig"])
def test_an_envelope_with_one_part_of_another_is_refuted(part: str) -> None:
    document = statement_bundle()
    other = statement_bundle(payload=job_statement("research", "other", "ab" * 32))
    if part == "sig":
        document["dsseEnvelope"]["signatures"] = other["dsseEnvelope"]["signatures"]
    elif part == "payload":
        document["dsseEnvelope"]["payload"] = other["dsseEnvelope"]["payload"]
    else:
        document["dsseEnvelope"]["payloadType"] = "application/json"
    checked, statement = check_statement(parse_bundle(document), authority())
    assert checked.outcome is Outcome.REFUTED
    assert statement is None


def test_a_signature_over_bare_bytes_is_not_taken_for_one_over_an_envelope() -> None:
    document = statement_bundle()
    document["dsseEnvelope"]["signatures"] = [
        {"sig": base64.b64encode(sign(ALICE, STATEMENT)).decode()}
    ]
    checked, statement = check_statement(parse_bundle(document), authority())
    assert (checked.reason, statement) == ("InvalidSignature", None)


def test_each_function_refuses_the_other_kind_of_bundle() -> None:
    assert check_blob(parse_bundle(statement_bundle()), authority(), STATEMENT).reason == (
        "NotABlobSignature"
    )
    assert check_statement(parse_bundle(blob_bundle()), authority())[0].reason == "NotAStatement"


def test_a_signed_payload_that_is_no_statement_is_refuted() -> None:
    bundle = parse_bundle(statement_bundle(payload=b'{"_type":"x"}'))
    checked, statement = check_statement(bundle, authority())
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, "MalformedStatement")
    assert (checked.signer, statement) == (None, None)


def test_a_signed_payload_of_another_type_is_no_statement() -> None:
    bundle = parse_bundle(make_bundle_dsse(ALICE, STATEMENT, "text/plain"))
    checked, statement = check_statement(bundle, authority())
    assert (checked.reason, statement) == ("NotAStatement", None)


def test_log_entries_and_timestamps_of_a_key_bundle_are_neither_needed_nor_read() -> None:
    document = blob_bundle()
    document["verificationMaterial"] |= {
        "tlogEntries": [{"logIndex": "1", "canonicalizedBody": "AAAA"}],
        "timestampVerificationData": {"rfc3161Timestamps": [{"signedTimestamp": "AAAA"}]},
    }
    checked = check_blob(parse_bundle(document), authority(), JOB)
    assert checked.outcome is Outcome.VERIFIED
    assert checked.signer is not None
    assert checked.signer.signed_at is None


def test_key_and_certificate_are_not_taken_for_each_other() -> None:
    identity = KeylessAuthority(
        "ci", "ci", "https://issuer", "me", None, public_good_trusted_root()
    )
    checked = check_blob(parse_bundle(blob_bundle()), identity, JOB)
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, "SignedByKey")
    document = blob_bundle()
    document["verificationMaterial"] = {"certificate": {"rawBytes": "AAAA"}}
    checked = check_blob(parse_bundle(document), authority(), JOB)
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, "SignedByCertificate")


def test_a_certificate_that_is_none_is_refuted() -> None:
    identity = KeylessAuthority(
        "ci", "ci", "https://issuer", "me", None, public_good_trusted_root()
    )
    document = blob_bundle()
    document["verificationMaterial"] = {"certificate": {"rawBytes": "AAAA"}}
    checked = check_blob(parse_bundle(document), identity, JOB)
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, "MalformedCertificate")


# cosign's older image signatures: containers-signature(5) JSON under a .sig tag


def simple_signing(**changes: object) -> bytes:
    critical: Document = {
        "identity": {"docker-reference": "registry.example/research/pytorch"},
        "image": {"docker-manifest-digest": IMAGE},
        "type": "cosign container image signature",
    }
    critical.update(changes)
    return json.dumps({"critical": critical, "optional": None}).encode()


def signed(payload: bytes, private: PrivateKey = ALICE) -> str:
    return base64.b64encode(sign(private, payload)).decode()


@pytest.mark.parametrize("kind", KEYS)
def test_an_older_image_signature_by_the_authority_is_verified(kind: str) -> None:
    private, payload = KEYS[kind], simple_signing()
    checked = check_simple_signing(payload, signed(payload, private), authority(private), IMAGE)
    assert checked.outcome is Outcome.VERIFIED


@pytest.mark.parametrize(
    ("reason", "payload"),
    [
        ("OtherContent", simple_signing(image={"docker-manifest-digest": "sha256:" + "00" * 32})),
        ("OtherContent", simple_signing(image={})),
        ("OtherContent", simple_signing(image=None)),
        ("NotAnImageSignature", simple_signing(type="atomic container signature")),
        ("NotAnImageSignature", b"[]"),
        ("MalformedSignature", b"not JSON"),
        ("MalformedSignature", b'{"critical": {}, "critical": {}}'),
        ("MalformedSignature", b" " * 70_000),
    ],
)
def test_an_older_signature_over_anything_else_is_refuted(reason: str, payload: bytes) -> None:
    checked = check_simple_signing(payload, signed(payload), authority(), IMAGE)
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, reason)


def test_an_older_image_signature_by_another_key_is_refuted() -> None:
    payload = simple_signing()
    checked = check_simple_signing(payload, signed(payload, MALLORY), authority(), IMAGE)
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, "InvalidSignature")


@pytest.mark.parametrize("text", ["", "AAAA", "!", "ä", "A" * 5000])
def test_an_older_image_signature_that_is_none_is_refuted(text: str) -> None:
    checked = check_simple_signing(simple_signing(), text, authority(), IMAGE)
    assert checked.outcome is Outcome.REFUTED
