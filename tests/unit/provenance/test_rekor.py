"""Log entries of kind intoto 0.0.2: about this envelope, this signature, this certificate."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from sigstore.errors import VerificationError

from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE, Envelope
from trainseal.provenance.rekor import check_intoto_entry

Document = dict[str, Any]
ENVELOPE = Envelope(IN_TOTO_PAYLOAD_TYPE, b'{"_type":"x"}', b"signature")


def certificate() -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([])
    start = datetime(2026, 1, 1, tzinfo=UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(start)
        .not_valid_after(start + timedelta(minutes=10))
        .sign(key, hashes.SHA256())
    )


CERTIFICATE = certificate()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.fixture
def body() -> Document:
    return {
        "apiVersion": "0.0.2",
        "kind": "intoto",
        "spec": {
            "content": {
                "envelope": {
                    "payloadType": IN_TOTO_PAYLOAD_TYPE,
                    "signatures": [
                        {
                            "publicKey": b64(CERTIFICATE.public_bytes(Encoding.PEM)),
                            "sig": b64(b64(ENVELOPE.signature).encode()),
                        }
                    ],
                },
                "payloadHash": {
                    "algorithm": "sha256",
                    "value": hashlib.sha256(ENVELOPE.payload).hexdigest(),
                },
            }
        },
    }


def check(body: object) -> None:
    check_intoto_entry(json.dumps(body).encode(), ENVELOPE, CERTIFICATE.public_bytes(Encoding.DER))


def test_an_entry_about_the_envelope_is_taken(body: Document) -> None:
    check(body)


def logged(document: Document) -> Document:
    content: Document = document["spec"]["content"]
    return content


def signature(document: Document) -> Document:
    found: Document = logged(document)["envelope"]["signatures"][0]
    return found


CHANGES: dict[str, tuple[str, Callable[[Document], object]]] = {
    "kind": ("another kind", lambda d: d.update(kind="dsse")),
    "version": ("another kind", lambda d: d.update(apiVersion="0.0.1")),
    "payload hash": ("another payload", lambda d: logged(d)["payloadHash"].update(value="00" * 32)),
    "hash algorithm": (
        "another payload",
        lambda d: logged(d)["payloadHash"].update(algorithm="sha1"),
    ),
    "no payload hash": ("another payload", lambda d: logged(d).pop("payloadHash")),
    "payload type": (
        "another payload type",
        lambda d: logged(d)["envelope"].update(payloadType="text/plain"),
    ),
    "signature": ("another signature", lambda d: signature(d).update(sig=b64(b64(b"x").encode()))),
    "signature encoded once": (
        "another signature",
        lambda d: signature(d).update(sig=b64(ENVELOPE.signature)),
    ),
    "certificate": (
        "another certificate",
        lambda d: signature(d).update(publicKey=b64(certificate().public_bytes(Encoding.PEM))),
    ),
    "no certificate": ("another certificate", lambda d: signature(d).pop("publicKey")),
    "a certificate that is none": (
        "another certificate",
        lambda d: signature(d).update(publicKey="AAAA"),
    ),
    "no signatures": ("one signature", lambda d: logged(d)["envelope"].update(signatures=[])),
    "two signatures": (
        "one signature",
        lambda d: logged(d)["envelope"].update(signatures=[signature(d)] * 2),
    ),
    "no spec": ("another payload", lambda d: d.pop("spec")),
}


@pytest.mark.parametrize("name", CHANGES)
def test_an_entry_about_anything_else_is_refused(name: str, body: Document) -> None:
    words, change = CHANGES[name]
    change(body)
    with pytest.raises(VerificationError, match=words):
        check(body)


@pytest.mark.parametrize("text", [b"", b"[]", b"null", b'{"kind": 1, "kind": 1}', b"\xff"])
def test_a_body_that_is_no_entry_is_refused(text: bytes) -> None:
    with pytest.raises(VerificationError, match="log entry"):
        check_intoto_entry(text, ENVELOPE, CERTIFICATE.public_bytes(Encoding.DER))
