"""The operator's public keys: who may have signed a seal or a ticket, and when.

A key that was rotated out stays, with the time it was last used, for as long as seals under it
live.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pydantic import JsonValue

from trainseal.provenance import strictjson
from trainseal.provenance.canonical import canonical_bytes
from trainseal.provenance.dsse import pae
from trainseal.provenance.keys import PrivateKey, PublicKey, key_id, sign, verify


class UntrustedError(ValueError):
    """A seal, binding or ticket is not what it claims to be; the words are for people."""


@dataclass(frozen=True, slots=True)
class KeyringEntry:
    """One public key with its validity; ``not_after`` None while the key is in use."""

    public_key: PublicKey
    not_before: datetime
    not_after: datetime | None = None

    def valid_at(self, time: datetime) -> bool:
        """Whether a signature of that time may carry this key."""
        return self.not_before <= time and (self.not_after is None or time <= self.not_after)


#: Public keys by key id (``sha256:…`` of the DER SubjectPublicKeyInfo).
Keyring = Mapping[str, KeyringEntry]


def sign_as(key: PrivateKey, payload_type: str, body: bytes) -> str:
    """Base64 of the signature over DSSE's pre-authentication encoding of ``body``.

    The payload type keeps a signature made for one purpose from serving another.
    """
    return base64.b64encode(sign(key, pae(payload_type, body))).decode()


def verify_as(
    keyring: Keyring, key_id: str, signed_at: str, payload_type: str, body: bytes, signature: str
) -> None:
    """Raises UntrustedError unless a key of the ring, valid at that time, signed ``body``."""
    entry = keyring.get(key_id)
    if entry is None:
        raise UntrustedError(f"it is signed by key {key_id[:80]}, which the keyring does not hold")
    if not entry.valid_at(read_time(signed_at)):
        raise UntrustedError(f"it was signed at {signed_at}, outside its key's validity")
    try:
        verify(
            entry.public_key, base64.b64decode(signature, validate=True), pae(payload_type, body)
        )
    except ValueError:  # the base64's, or SignatureError
        raise UntrustedError(
            "it does not carry the operator's signature over what it says: edited or forged"
        ) from None


def signed_text(key: PrivateKey, payload_type: str, content: Mapping[str, JsonValue]) -> str:
    """``content`` signed, as annotation text: base64 of canonical JSON, a dot, the signature."""
    body = canonical_bytes({**content, "keyID": key_id(key.public)})
    return f"{base64.b64encode(body).decode()}.{sign_as(key, payload_type, body)}"


def read_signed_text(
    keyring: Keyring, text: str, payload_type: str, *, time_field: str, max_bytes: int
) -> Mapping[str, strictjson.JSONValue]:
    """What ``signed_text`` signed; raises UntrustedError, or another ValueError where malformed.

    ``time_field`` names the member with the time at which the key must have been valid.
    """
    if len(text) > max_bytes:
        raise UntrustedError(f"found {len(text)} bytes, expected at most {max_bytes}")
    encoded, _, signature = text.partition(".")
    body = base64.b64decode(encoded, validate=True)
    content = strictjson.parse(body, max_bytes=max_bytes)
    if not isinstance(content, dict):
        raise UntrustedError("found no JSON object")
    signed_at = str(content.get(time_field))
    verify_as(keyring, str(content.get("keyID")), signed_at, payload_type, body, signature)
    return content


def rfc3339(time: datetime) -> str:
    """UTC, whole seconds, as Kubernetes writes times."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def read_time(text: str) -> datetime:
    """An RFC 3339 time with its zone."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise UntrustedError(f"{text[:40]!r} is not an RFC 3339 time") from None
    if time.tzinfo is None:
        raise UntrustedError(f"{text!r} has no time zone")
    return time
