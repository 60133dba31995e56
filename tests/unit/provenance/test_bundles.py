"""Bundles: written as every Sigstore tool reads them, read with bounds."""

from __future__ import annotations

import base64
import contextlib
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st
from sigstore_models.bundle.v1 import Bundle as SigstoreBundleModel

from trainseal.provenance import bundles
from trainseal.provenance.bundles import (
    BundleError,
    MessageSignature,
    encode_bundle,
    make_bundle_blob,
    make_bundle_dsse,
    parse_bundle,
)
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE, Envelope
from trainseal.provenance.keys import key_hint, private_key_of
from trainseal.provenance.statements import job_statement

PRIVATE = private_key_of(ec.generate_private_key(ec.SECP256R1()))
STATEMENT = job_statement("research", "char-lm", "ab" * 32)
Document = dict[str, Any]


@pytest.fixture
def statement_bundle() -> Document:
    return make_bundle_dsse(PRIVATE, STATEMENT, IN_TOTO_PAYLOAD_TYPE)


@pytest.fixture
def blob_bundle() -> Document:
    return make_bundle_blob(PRIVATE, b"job")


def test_a_statement_bundle_is_read_back_whole(statement_bundle: Document) -> None:
    bundle = parse_bundle(encode_bundle(statement_bundle))
    assert bundle.media_type == bundles.MEDIA_TYPE
    assert isinstance(bundle.content, Envelope)
    assert bundle.content.payload == STATEMENT
    assert bundle.content.payload_type == IN_TOTO_PAYLOAD_TYPE
    assert bundle.key_hint == key_hint(PRIVATE.public)
    assert bundle.certificates == ()


def test_a_blob_bundle_is_read_back_whole(blob_bundle: Document) -> None:
    content = parse_bundle(encode_bundle(blob_bundle)).content
    assert isinstance(content, MessageSignature)
    assert content.digest is not None
    assert content.digest[0] == "sha256"


def test_a_parsed_document_and_its_text_are_one_bundle(statement_bundle: Document) -> None:
    assert parse_bundle(statement_bundle) == parse_bundle(encode_bundle(statement_bundle))


@pytest.mark.parametrize("make", ["statement_bundle", "blob_bundle"])
def test_sigstores_own_model_takes_our_bundle(make: str, request: pytest.FixtureRequest) -> None:
    SigstoreBundleModel.from_json(encode_bundle(request.getfixturevalue(make)))


@pytest.mark.parametrize("media_type", bundles.MEDIA_TYPES)
def test_every_version_and_spelling_is_read(media_type: str, blob_bundle: Document) -> None:
    blob_bundle["mediaType"] = media_type
    assert parse_bundle(blob_bundle).media_type == media_type


def test_what_is_null_is_absent(statement_bundle: Document) -> None:
    statement_bundle["messageSignature"] = None
    statement_bundle["verificationMaterial"]["certificate"] = None
    statement_bundle["dsseEnvelope"]["signatures"][0]["keyid"] = None
    assert parse_bundle(statement_bundle).certificates == ()


@pytest.mark.parametrize("digest", [None, {}, {"algorithm": "HASH_ALGORITHM_UNSPECIFIED"}], ids=str)
def test_a_message_signature_needs_no_digest(digest: object, blob_bundle: Document) -> None:
    blob_bundle["messageSignature"]["messageDigest"] = digest
    content = parse_bundle(blob_bundle).content
    assert isinstance(content, MessageSignature)
    assert content.digest is None


def test_a_key_named_by_its_bytes_as_older_model_signing_does_is_read(
    statement_bundle: Document,
) -> None:
    statement_bundle["verificationMaterial"] = {
        "publicKey": {"rawBytes": "AAAA", "keyDetails": "PKIX_ECDSA_P384_SHA_384"}
    }
    assert parse_bundle(statement_bundle).key_hint == ""


def put(*path: str | int, value: object) -> Callable[[Document], None]:
    def change(document: Document) -> None:
        target: Any = document
        for part in path[:-1]:
            target = target[part]
        target[path[-1]] = value

    return change


SIGNATURE = ("dsseEnvelope", "signatures", 0, "sig")
MATERIAL = "verificationMaterial"
ENTRY: Document = {"logIndex": "1", "kindVersion": {"kind": "dsse", "version": "0.0.1"}}
REFUSED: dict[str, tuple[str, Callable[[Document], None]]] = {
    "no media type": ("mediaType", put("mediaType", value=None)),
    "a future media type": (
        "mediaType",
        put("mediaType", value="application/vnd.dev.sigstore.bundle.v0.4+json"),
    ),
    "an unknown field": ("bundle", put("extra", value=1)),
    "a snake-case twin": ("bundle", put("dsse_envelope", value={})),
    "two contents": ("bundle", put("messageSignature", value={"signature": "AAAA"})),
    "no content": ("bundle", put("dsseEnvelope", value=None)),
    "no material": (MATERIAL, put(MATERIAL, value=None)),
    "a list as material": (MATERIAL, put(MATERIAL, value=[])),
    "neither key nor certificate": (MATERIAL, put(MATERIAL, "publicKey", value=None)),
    "key and certificate": (MATERIAL, put(MATERIAL, "certificate", value={"rawBytes": "AAAA"})),
    "an empty chain": (
        f"{MATERIAL}.x509CertificateChain.certificates",
        put(MATERIAL, value={"x509CertificateChain": {"certificates": []}}),
    ),
    "eleven certificates": (
        f"{MATERIAL}.x509CertificateChain.certificates",
        put(
            MATERIAL,
            value={"x509CertificateChain": {"certificates": [{"rawBytes": "AAAA"}] * 11}},
        ),
    ),
    "a certificate without bytes": (
        f"{MATERIAL}.certificate.rawBytes",
        put(MATERIAL, value={"certificate": {}}),
    ),
    "a hint that is a number": (
        f"{MATERIAL}.publicKey.hint",
        put(MATERIAL, "publicKey", "hint", value=1),
    ),
    "a key as text": (f"{MATERIAL}.publicKey", put(MATERIAL, "publicKey", value="x")),
    "no signature": ("dsseEnvelope.signatures", put("dsseEnvelope", "signatures", value=[])),
    "two signatures": (
        "dsseEnvelope.signatures",
        put("dsseEnvelope", "signatures", value=[{"sig": "AAAA"}] * 2),
    ),
    "an empty signature": ("dsseEnvelope.signatures[0].sig", put(*SIGNATURE, value="")),
    "a signature with a space": ("dsseEnvelope.signatures[0].sig", put(*SIGNATURE, value="AA AA")),
    "base64 without padding": ("dsseEnvelope.signatures[0].sig", put(*SIGNATURE, value="AA")),
    "base64 with stray bits": ("dsseEnvelope.signatures[0].sig", put(*SIGNATURE, value="AB==")),
    "URL-safe base64": ("dsseEnvelope.signatures[0].sig", put(*SIGNATURE, value="__-_")),
    "base64 that is not ASCII": ("dsseEnvelope.signatures[0].sig", put(*SIGNATURE, value="ÄÄÄÄ")),
    "an endless signature": (
        "dsseEnvelope.signatures[0].sig",
        put(*SIGNATURE, value=base64.b64encode(bytes(2000)).decode()),
    ),
    "no payload": ("dsseEnvelope.payload", put("dsseEnvelope", "payload", value="")),
    "no payload type": ("dsseEnvelope.payloadType", put("dsseEnvelope", "payloadType", value="")),
    "log entries as an object": (f"{MATERIAL}.tlogEntries", put(MATERIAL, "tlogEntries", value={})),
    "many log entries": (
        f"{MATERIAL}.tlogEntries",
        put(MATERIAL, "tlogEntries", value=[ENTRY] * 33),
    ),
    "a negative log index": (
        f"{MATERIAL}.tlogEntries[0].logIndex",
        put(MATERIAL, "tlogEntries", value=[ENTRY | {"logIndex": "-1"}]),
    ),
    "a long proof": (
        f"{MATERIAL}.tlogEntries[0].inclusionProof.hashes",
        put(MATERIAL, "tlogEntries", value=[{"inclusionProof": {"hashes": ["AAAA"] * 65}}]),
    ),
    "many timestamps": (
        f"{MATERIAL}.timestampVerificationData.rfc3161Timestamps",
        put(
            MATERIAL,
            "timestampVerificationData",
            value={"rfc3161Timestamps": [{"signedTimestamp": "AAAA"}] * 33},
        ),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_departs_from_a_bundle_is_refused_by_its_path(
    name: str, statement_bundle: Document
) -> None:
    path, change = REFUSED[name]
    change(statement_bundle)
    with pytest.raises(BundleError) as caught:
        parse_bundle(encode_bundle(statement_bundle))
    assert caught.value.path == path
    assert caught.value.found
    assert caught.value.expected


@pytest.mark.parametrize("algorithm", ["MD5", "SHA1", 1, ""])
def test_a_digest_by_an_unknown_algorithm_is_refused(
    algorithm: object, blob_bundle: Document
) -> None:
    blob_bundle["messageSignature"]["messageDigest"]["algorithm"] = algorithm
    with pytest.raises(BundleError, match=r"messageDigest\.algorithm"):
        parse_bundle(blob_bundle)


@pytest.mark.parametrize("text", [b"", b"null", b"[]", b"{}", b'"x"', b"1"])
def test_a_document_that_is_no_bundle_is_refused(text: bytes) -> None:
    with pytest.raises(BundleError):
        parse_bundle(text)


def test_a_duplicate_key_is_refused(statement_bundle: Document) -> None:
    text = encode_bundle(statement_bundle)
    twice = b'{"dsseEnvelope":{},' + text[1:]
    with pytest.raises(BundleError, match="stands twice"):
        parse_bundle(twice)


def test_a_bundle_at_the_limit_is_read_and_one_byte_over_it_is_not(
    statement_bundle: Document,
) -> None:
    text = encode_bundle(statement_bundle)
    full = text + b" " * (bundles.MAX_BUNDLE_BYTES - len(text))
    parse_bundle(full)
    with pytest.raises(BundleError, match=f"at most {bundles.MAX_BUNDLE_BYTES}"):
        parse_bundle(full + b" ")


def test_a_parsed_document_over_the_limit_is_refused(statement_bundle: Document) -> None:
    statement_bundle["dsseEnvelope"]["payload"] = "A" * bundles.MAX_BUNDLE_BYTES
    with pytest.raises(BundleError, match="at most"):
        parse_bundle(statement_bundle)
    parse_bundle(statement_bundle, max_bytes=bundles.MAX_MANIFEST_BUNDLE_BYTES)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.just("AAAA"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)


@st.composite
def mutated(draw: st.DrawFn) -> Document:
    """A good bundle with one value anywhere in it replaced by any other."""
    make = draw(st.sampled_from([make_bundle_dsse, make_bundle_blob]))
    good: Document = (
        make_bundle_dsse(PRIVATE, STATEMENT, IN_TOTO_PAYLOAD_TYPE)
        if make is make_bundle_dsse
        else make_bundle_blob(PRIVATE, b"job")
    )
    good["verificationMaterial"]["tlogEntries"] = [
        {
            **copy.deepcopy(ENTRY),
            "logId": {"keyId": "AAAA"},
            "integratedTime": "1",
            "inclusionPromise": {"signedEntryTimestamp": "AAAA"},
            "inclusionProof": {"hashes": ["AAAA"], "checkpoint": {"envelope": "x"}},
            "canonicalizedBody": "AAAA",
        }
    ]
    good["verificationMaterial"]["timestampVerificationData"] = {
        "rfc3161Timestamps": [{"signedTimestamp": "AAAA"}]
    }
    parse_bundle(good)
    target: Any = good
    while True:
        key = draw(st.sampled_from(sorted(target) if isinstance(target, dict) else [0]))
        inner = target[key]
        if not isinstance(inner, (dict, list)) or not inner or draw(st.booleans()):
            target[key] = draw(json_values)
            return good
        target = inner


@given(mutated())
def test_one_changed_value_gives_a_bundle_or_a_bundle_error_and_nothing_else(
    document: Document,
) -> None:
    with contextlib.suppress(BundleError):
        parse_bundle(document)
    with contextlib.suppress(BundleError):
        parse_bundle(json.dumps(document).encode())


@given(st.integers(min_value=0), st.binary(max_size=4))
def test_changed_bytes_give_a_bundle_or_a_bundle_error_and_nothing_else(
    position: int, data: bytes
) -> None:
    text = encode_bundle(make_bundle_dsse(PRIVATE, STATEMENT, IN_TOTO_PAYLOAD_TYPE))
    position %= len(text)
    with contextlib.suppress(BundleError):
        parse_bundle(text[:position] + data + text[position + len(data) :])


@given(st.binary())
def test_no_bytes_make_the_reader_fail_otherwise(data: bytes) -> None:
    with pytest.raises(BundleError):
        parse_bundle(data)
