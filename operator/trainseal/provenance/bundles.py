"""Sigstore bundles, versions 0.1 to 0.3: read with bounds, written as version 0.3.

https://docs.sigstore.dev/about/bundle/. A bundle is one JSON document: the signature (over bytes,
or in a DSSE envelope), and what is needed to check it (a key's hint, or a certificate with log
entries and timestamps). Reading one proves nothing; see :mod:`checks`.

The reader is stricter than protobuf's JSON mapping, so that no two tools take one document for two
bundles: no duplicate keys, no unknown fields, standard base64 with its one spelling. It is laxer in
one place: bundles of model-signing before 1.1 name the key by its bytes instead of a hint.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from trainseal.provenance import strictjson
from trainseal.provenance.dsse import Envelope, sign_envelope
from trainseal.provenance.keys import PrivateKey, digest_algorithm, key_hint, sign
from trainseal.provenance.strictjson import JSONObject, JSONValue

MEDIA_TYPE = "application/vnd.dev.sigstore.bundle.v0.3+json"
MEDIA_TYPES = (
    MEDIA_TYPE,
    "application/vnd.dev.sigstore.bundle+json;version=0.3",
    "application/vnd.dev.sigstore.bundle+json;version=0.2",
    "application/vnd.dev.sigstore.bundle+json;version=0.1",
)

MAX_BUNDLE_BYTES = 256 * 1024
"""Of a job's or an image's bundle."""
MAX_MANIFEST_BUNDLE_BYTES = 8 * 1024 * 1024
"""Of a bundle whose statement lists the files of a tree."""

_MAX_CERTIFICATES = 10
_MAX_CERTIFICATE_BYTES = 16 * 1024
_MAX_LOG_ENTRIES = 32
_MAX_LOG_BODY_BYTES = 128 * 1024
_MAX_PROOF_HASHES = 64
_MAX_TIMESTAMPS = 32
_MAX_TIMESTAMP_BYTES = 32 * 1024
_MAX_SIGNATURE_BYTES = 1024
_MAX_TEXT = 16 * 1024

HASHES = {
    "SHA2_256": "sha256",
    "SHA2_384": "sha384",
    "SHA2_512": "sha512",
    "SHA3_256": "sha3_256",
    "SHA3_384": "sha3_384",
}
"""Names of hash algorithms in bundles, and as ``hashlib`` knows them."""
_HASH_NAMES = {name: spelling for spelling, name in HASHES.items()}


class BundleError(ValueError):
    """The document is no bundle that we can read: where, what was found, what was expected."""

    def __init__(self, path: str, found: str, expected: str) -> None:
        super().__init__(f"{path}: found {found}, expected {expected}")
        self.path = path
        self.found = found
        self.expected = expected


@dataclass(frozen=True, slots=True)
class MessageSignature:
    """A signature over bytes that the bundle does not carry.

    ``digest`` is (name as ``hashlib`` has it, digest of those bytes): a label, not a proof.
    """

    signature: bytes
    digest: tuple[str, bytes] | None


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle as read, nothing of it verified.

    Signed either with a bare key (``key_hint`` is its label, perhaps empty, and ``certificates``
    is empty) or with a certificate (``key_hint`` is None; DER, the signer's own first).
    ``document`` is the whole as compact JSON, for readers of the rest.
    """

    media_type: str
    content: MessageSignature | Envelope
    key_hint: str | None
    certificates: tuple[bytes, ...] = field(repr=False)
    document: bytes = field(repr=False)


def parse_bundle(
    data: bytes | Mapping[str, object], *, max_bytes: int = MAX_BUNDLE_BYTES
) -> Bundle:
    """The bundle in ``data``: JSON text, or a document that is already parsed.

    ``max_bytes`` bounds the JSON text. Raises BundleError, and no other error, whatever the bytes.
    """
    document: JSONValue
    try:
        if isinstance(data, bytes):
            document = strictjson.parse(data, max_bytes=max_bytes)
        else:
            document, _ = strictjson.from_mapping(data, max_bytes=max_bytes)
    except strictjson.JSONError as error:
        found = str(error).removeprefix("found ")
        raise BundleError("bundle", found, "a Sigstore bundle in JSON") from None
    fields = _fields(
        document,
        "bundle",
        {"mediaType", "verificationMaterial", "messageSignature", "dsseEnvelope"},
    )
    media_type = fields.get("mediaType")
    if not isinstance(media_type, str) or media_type not in MEDIA_TYPES:
        raise BundleError("mediaType", _show(media_type), " or ".join(map(repr, MEDIA_TYPES)))
    content = _content(fields, max_bytes)
    hint, certificates = _material(fields.get("verificationMaterial"))
    text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    return Bundle(media_type, content, hint, certificates, text)


def make_bundle_dsse(
    private: PrivateKey, payload: bytes, payload_type: str, *, hint: str | None = None
) -> JSONObject:
    """A version 0.3 bundle: ``payload`` in a DSSE envelope signed with a bare key.

    ``hint`` names the key; None: as cosign does.
    """
    envelope = sign_envelope(private, payload_type, payload)
    return {
        **_head(private, hint),
        "dsseEnvelope": {
            "payload": _base64(envelope.payload),
            "payloadType": envelope.payload_type,
            "signatures": [{"sig": _base64(envelope.signature)}],
        },
    }


def make_bundle_blob(private: PrivateKey, blob: bytes) -> JSONObject:
    """A version 0.3 bundle: a message signature over ``blob``, as ``cosign sign-blob`` makes it."""
    algorithm = digest_algorithm(private.public)
    return {
        **_head(private),
        "messageSignature": {
            "messageDigest": {
                "algorithm": _HASH_NAMES[algorithm],
                "digest": _base64(hashlib.new(algorithm, blob).digest()),
            },
            "signature": _base64(sign(private, blob)),
        },
    }


def encode_bundle(document: Mapping[str, JSONValue]) -> bytes:
    """A bundle as the text of a file or of an OCI blob."""
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode()


def _head(private: PrivateKey, hint: str | None = None) -> JSONObject:
    return {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": hint or key_hint(private.public)},
            "tlogEntries": [],
        },
    }


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _content(fields: JSONObject, max_bytes: int) -> MessageSignature | Envelope:
    message, envelope = fields.get("messageSignature"), fields.get("dsseEnvelope")
    if (message is None) == (envelope is None):
        found = "neither" if message is None else "both"
        raise BundleError("bundle", found, "exactly one of messageSignature and dsseEnvelope")
    if message is not None:
        return _message(message)
    return _envelope(envelope, max_bytes)


def _message(value: JSONValue) -> MessageSignature:
    where = "messageSignature"
    fields = _fields(value, where, {"messageDigest", "signature"})
    signature = _octets(fields.get("signature"), f"{where}.signature", _MAX_SIGNATURE_BYTES)
    digest: tuple[str, bytes] | None = None
    if "messageDigest" in fields:
        where = f"{where}.messageDigest"
        parts = _fields(fields["messageDigest"], where, {"algorithm", "digest"})
        algorithm = parts.get("algorithm", "HASH_ALGORITHM_UNSPECIFIED")
        if isinstance(algorithm, str) and algorithm in HASHES:
            found = _octets(parts.get("digest"), f"{where}.digest", 64)
            digest = (HASHES[algorithm], found)
        elif algorithm != "HASH_ALGORITHM_UNSPECIFIED":
            raise BundleError(f"{where}.algorithm", _show(algorithm), "one of " + ", ".join(HASHES))
    return MessageSignature(signature, digest)


def _envelope(value: JSONValue, max_bytes: int) -> Envelope:
    where = "dsseEnvelope"
    fields = _fields(value, where, {"payload", "payloadType", "signatures"})
    payload = _octets(fields.get("payload"), f"{where}.payload", max_bytes)
    payload_type = _text(fields.get("payloadType"), f"{where}.payloadType", 256)
    signatures = _list(fields.get("signatures"), f"{where}.signatures", 16)
    if len(signatures) != 1:
        raise BundleError(f"{where}.signatures", f"{len(signatures)} signatures", "exactly one")
    where = f"{where}.signatures[0]"
    parts = _fields(signatures[0], where, {"sig", "keyid"})
    _optional_text(parts.get("keyid"), f"{where}.keyid")
    return Envelope(
        payload_type, payload, _octets(parts.get("sig"), f"{where}.sig", _MAX_SIGNATURE_BYTES)
    )


def _material(value: JSONValue) -> tuple[str | None, tuple[bytes, ...]]:
    where = "verificationMaterial"
    kinds = {"publicKey", "certificate", "x509CertificateChain"}
    fields = _fields(value, where, kinds | {"tlogEntries", "timestampVerificationData"})
    present = sorted(kinds & fields.keys())
    if len(present) != 1:
        raise BundleError(
            where, " and ".join(present) or "none", "exactly one of " + ", ".join(sorted(kinds))
        )
    _check_log_entries(fields.get("tlogEntries"), f"{where}.tlogEntries")
    _check_timestamps(fields.get("timestampVerificationData"), f"{where}.timestampVerificationData")
    where = f"{where}.{present[0]}"
    held = fields[present[0]]
    if present == ["publicKey"]:
        key = _fields(held, where, {"hint", "rawBytes", "keyDetails"})
        return _optional_text(key.get("hint"), f"{where}.hint"), ()
    if present == ["certificate"]:
        return None, (_certificate(held, where),)
    chain = _list(
        _fields(held, where, {"certificates"}).get("certificates"),
        f"{where}.certificates",
        _MAX_CERTIFICATES,
    )
    if not chain:
        raise BundleError(f"{where}.certificates", "none", "the signer's certificate")
    return None, tuple(
        _certificate(item, f"{where}.certificates[{index}]") for index, item in enumerate(chain)
    )


def _certificate(value: JSONValue, where: str) -> bytes:
    raw = _fields(value, where, {"rawBytes"}).get("rawBytes")
    return _octets(raw, f"{where}.rawBytes", _MAX_CERTIFICATE_BYTES)


def _check_log_entries(value: JSONValue, path: str) -> None:
    for index, entry in enumerate(_list(value, path, _MAX_LOG_ENTRIES)):
        where = f"{path}[{index}]"
        fields = _fields(
            entry,
            where,
            {
                "logIndex",
                "logId",
                "kindVersion",
                "integratedTime",
                "inclusionPromise",
                "inclusionProof",
                "canonicalizedBody",
            },
        )
        for name in ("logIndex", "integratedTime"):
            _check_count(fields.get(name), f"{where}.{name}")
        if "canonicalizedBody" in fields:
            _octets(fields["canonicalizedBody"], f"{where}.canonicalizedBody", _MAX_LOG_BODY_BYTES)
        if "logId" in fields:
            log = _fields(fields["logId"], f"{where}.logId", {"keyId"})
            _octets(log.get("keyId"), f"{where}.logId.keyId", 64)
        if "inclusionPromise" in fields:
            promise = _fields(
                fields["inclusionPromise"], f"{where}.inclusionPromise", {"signedEntryTimestamp"}
            )
            _octets(
                promise.get("signedEntryTimestamp"),
                f"{where}.inclusionPromise.signedEntryTimestamp",
                _MAX_SIGNATURE_BYTES,
            )
        if "inclusionProof" in fields:
            _check_proof(fields["inclusionProof"], f"{where}.inclusionProof")


def _check_proof(value: JSONValue, where: str) -> None:
    fields = _fields(value, where, {"logIndex", "rootHash", "treeSize", "hashes", "checkpoint"})
    for name in ("logIndex", "treeSize"):
        _check_count(fields.get(name), f"{where}.{name}")
    if "rootHash" in fields:
        _octets(fields["rootHash"], f"{where}.rootHash", 64)
    for index, item in enumerate(_list(fields.get("hashes"), f"{where}.hashes", _MAX_PROOF_HASHES)):
        _octets(item, f"{where}.hashes[{index}]", 64)
    if "checkpoint" in fields:
        checkpoint = _fields(fields["checkpoint"], f"{where}.checkpoint", {"envelope"})
        _text(checkpoint.get("envelope"), f"{where}.checkpoint.envelope", _MAX_TEXT)


def _check_timestamps(value: JSONValue, where: str) -> None:
    if value is None:
        return
    where = f"{where}.rfc3161Timestamps"
    stamps = _fields(value, where, {"rfc3161Timestamps"}).get("rfc3161Timestamps")
    for index, item in enumerate(_list(stamps, where, _MAX_TIMESTAMPS)):
        stamp = _fields(item, f"{where}[{index}]", {"signedTimestamp"}).get("signedTimestamp")
        _octets(stamp, f"{where}[{index}].signedTimestamp", _MAX_TIMESTAMP_BYTES)


def _fields(value: JSONValue, where: str, known: set[str]) -> JSONObject:
    """The members of an object, those that are null left out (as protobuf's mapping reads them)."""
    if not isinstance(value, dict):
        raise BundleError(where, _show(value), "an object")
    unknown = sorted(value.keys() - known)
    if unknown:
        raise BundleError(where, f"the field {unknown[0][:80]!r}", ", ".join(sorted(known)))
    return {name: item for name, item in value.items() if item is not None}


def _list(value: JSONValue, where: str, most: int) -> list[JSONValue]:
    if value is None:
        return []
    if not isinstance(value, list):
        raise BundleError(where, _show(value), "a list")
    if len(value) > most:
        raise BundleError(where, f"{len(value)} items", f"at most {most}")
    return value


def _text(value: JSONValue, where: str, most: int) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= most:
        raise BundleError(where, _show(value), f"1 to {most} characters of text")
    return value


def _optional_text(value: JSONValue, where: str) -> str:
    return "" if value is None or value == "" else _text(value, where, 1024)


def _octets(value: JSONValue, where: str, most: int) -> bytes:
    if not isinstance(value, str) or not value:
        raise BundleError(where, _show(value), "base64")
    try:
        data = base64.b64decode(value, validate=True)
    except ValueError:  # binascii.Error, and text that is not ASCII
        raise BundleError(where, _show(value), "standard base64") from None
    if _base64(data) != value:
        raise BundleError(where, "base64 with stray bits at its end", "its one canonical spelling")
    if not 0 < len(data) <= most:
        raise BundleError(where, f"{len(data)} bytes", f"1 to {most} bytes")
    return data


def _check_count(value: JSONValue, where: str) -> None:
    """A protobuf 64-bit integer: a decimal string, or what other writers make of it, a number."""
    if value is None:
        return
    text = str(value) if type(value) is int else value
    if not isinstance(text, str) or not text.isascii() or not text.isdigit() or len(text) > 19:
        raise BundleError(where, _show(value), "a number from 0 to 2^63-1, as text")


def _show(value: JSONValue) -> str:
    """A stranger's value in a message: typed, quoted, cut."""
    if value is None:
        return "nothing"
    if isinstance(value, str):
        return repr(value[:80]) + ("…" if len(value) > 80 else "")
    if isinstance(value, (dict, list)):
        return "an object" if isinstance(value, dict) else "a list"
    return repr(value)
