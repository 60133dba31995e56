"""DSSE envelopes: a payload, its type, and a signature over both.

https://github.com/secure-systems-lab/dsse/blob/v1.0.2/protocol.md. What is signed is not the
payload but its pre-authentication encoding, so that bytes signed as one type can never be taken
for another.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainseal.provenance.keys import PrivateKey, PublicKey, sign, verify

IN_TOTO_PAYLOAD_TYPE = "application/vnd.in-toto+json"


@dataclass(frozen=True, slots=True)
class Envelope:
    """One payload under one signature, the only number that a Sigstore bundle may carry."""

    payload_type: str
    payload: bytes
    signature: bytes


def pae(payload_type: str, payload: bytes) -> bytes:
    """The pre-authentication encoding, version 1: lengths in bytes, ASCII decimal."""
    kind = payload_type.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def sign_envelope(private: PrivateKey, payload_type: str, payload: bytes) -> Envelope:
    """``payload`` in an envelope signed by ``private``."""
    return Envelope(payload_type, payload, sign(private, pae(payload_type, payload)))


def verify_envelope(public: PublicKey, envelope: Envelope) -> None:
    """Return if the key signed this payload under this type; else raise SignatureError."""
    verify(public, envelope.signature, pae(envelope.payload_type, envelope.payload))
