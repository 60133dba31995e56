"""Sigstore's verifier, and the one kind of log entry that it does not know: ``intoto`` 0.0.2.

Rekor recorded attestations as ``intoto`` entries before it had ``dsse`` ones; package provenance
and many images still carry such bundles. sigstore 4.5 refuses them. They are judged here as
``dsse`` entries are: the integrated time counts only with the inclusion promise that binds it to
the entry, and the entry must be about this envelope (the swap of CVE-2022-36056).
"""

from __future__ import annotations

import base64
import hashlib
from datetime import UTC, datetime

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import load_pem_x509_certificate
from sigstore._internal.timestamp import TimestampSource, TimestampVerificationResult
from sigstore.errors import VerificationError
from sigstore.models import Bundle
from sigstore.verify import Verifier
from sigstore.verify.policy import VerificationPolicy

from trainseal.provenance import strictjson
from trainseal.provenance.dsse import Envelope
from trainseal.provenance.strictjson import JSONValue

_INTOTO = ("intoto", "0.0.2")
_MAX_BODY_BYTES = 8 * 1024 * 1024  # an entry may repeat its payload, which lists a tree's files


class RekorVerifier(Verifier):
    """Sigstore's verifier, with envelopes logged as ``intoto`` 0.0.2 besides."""

    def verify_envelope(
        self, bundle: Bundle, policy: VerificationPolicy, envelope: Envelope
    ) -> None:
        """As ``verify_dsse``. ``envelope`` is the bundle's, its signature already verified.

        Raises VerificationError, or what hostile certificates raise.
        """
        if _kind(bundle) != _INTOTO:
            self.verify_dsse(bundle, policy)
            return
        self._verify_common_signing_cert(bundle, policy)
        check_intoto_entry(
            bundle.log_entry._inner.canonicalized_body,
            envelope,
            bundle.signing_certificate.public_bytes(Encoding.DER),
        )

    def established_times(self, bundle: Bundle) -> list[datetime]:
        """The trusted times of a bundle that has been verified, in UTC."""
        return [result.time.astimezone(UTC) for result in self._establish_time(bundle)]

    def _establish_time(self, bundle: Bundle) -> list[TimestampVerificationResult]:
        if _kind(bundle) != _INTOTO:
            return super()._establish_time(bundle)
        times: list[TimestampVerificationResult] = []
        if bundle.verification_material.timestamp_verification_data:
            times += self._verify_timestamp_authority(bundle)
        entry = bundle.log_entry._inner
        if entry.integrated_time and entry.inclusion_promise:
            # The promise itself is verified with the log entry, later in the same verification.
            logged = datetime.fromtimestamp(entry.integrated_time, UTC)
            times.append(TimestampVerificationResult(TimestampSource.TRANSPARENCY_SERVICE, logged))
        return times


def _kind(bundle: Bundle) -> tuple[str, str]:
    kind_version = bundle.log_entry._inner.kind_version
    return kind_version.kind, kind_version.version


def check_intoto_entry(body: bytes, envelope: Envelope, certificate: bytes) -> None:
    """Return if an ``intoto`` 0.0.2 entry is about this envelope, signed by this certificate (DER).

    ``body`` is the entry's canonical JSON. Rekor's schema ``intoto_v0_0_2_schema.json``: the
    signature there is base64 of the envelope's base64. Raises VerificationError.
    """
    try:
        document = strictjson.parse(body, max_bytes=_MAX_BODY_BYTES)
    except strictjson.JSONError as error:
        raise VerificationError(f"log entry: {error}") from None
    if (_at(document, "kind"), _at(document, "apiVersion")) != _INTOTO:
        raise VerificationError("log entry: its body is of another kind than the bundle says")
    content = _at(document, "spec", "content")
    logged_hash = _at(content, "payloadHash")
    if logged_hash != {
        "algorithm": "sha256",
        "value": hashlib.sha256(envelope.payload).hexdigest(),
    }:
        raise VerificationError("log entry: it is about another payload")
    if _at(content, "envelope", "payloadType") != envelope.payload_type:
        raise VerificationError("log entry: it is about another payload type")
    signatures = _at(content, "envelope", "signatures")
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise VerificationError("log entry: expected exactly one signature")
    once = base64.b64encode(envelope.signature)
    if _at(signatures[0], "sig") != base64.b64encode(once).decode():
        raise VerificationError("log entry: it is about another signature")
    if _certificate(_at(signatures[0], "publicKey")) != certificate:
        raise VerificationError("log entry: it is about another certificate")


def _certificate(value: JSONValue) -> bytes:
    try:
        pem = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
        return load_pem_x509_certificate(pem).public_bytes(Encoding.DER)
    except ValueError:
        return b""


def _at(value: JSONValue, *names: str) -> JSONValue:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value
