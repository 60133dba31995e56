"""One bundle against one authority: did this signer sign these bytes, or this statement?

The rules, in order:

1. The bundle is of the kind asked for (a signature over bytes, or an envelope with a statement),
   and carries what the authority is judged by (a bare key, or a certificate).
2. The signature is the authority's. A hint is never proof, neither way: it decides only the words.
3. Only then is anything read that the signature covers.

A digest that a bundle states must be the blob's: it proves nothing, but a bundle that contradicts
itself is refused. Log entries and timestamps of bare-key bundles are neither needed nor read.
"""

from __future__ import annotations

import base64
import hashlib
import hmac

from trainseal.provenance import strictjson
from trainseal.provenance.authorities import (
    Authority,
    Checked,
    KeyAuthority,
    KubernetesAuthority,
    refuted,
    verified,
)
from trainseal.provenance.bundles import Bundle, MessageSignature
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE, Envelope, pae
from trainseal.provenance.keyless import check_certificate
from trainseal.provenance.keys import SignatureError, key_hint, model_signing_hint, verify
from trainseal.provenance.statements import Statement, StatementError, parse_statement
from trainseal.provenance.verdicts import Outcome, Signer

SIMPLE_SIGNING_TYPE = "cosign container image signature"
_MAX_SIMPLE_SIGNING_BYTES = 64 * 1024
_MAX_SIGNATURE_TEXT = 4096


def check_blob(bundle: Bundle, authority: Authority, blob: bytes) -> Checked:
    """Whether ``authority`` signed exactly the bytes ``blob``."""
    if isinstance(authority, KubernetesAuthority):
        return _no_signer(authority)
    content = bundle.content
    if not isinstance(content, MessageSignature):
        return refuted(
            "NotABlobSignature", "the bundle holds a statement, not a signature over bytes"
        )
    if content.digest is not None:
        algorithm, stated = content.digest
        found = hashlib.new(algorithm, blob).digest()
        if not hmac.compare_digest(stated, found):
            return refuted(
                "OtherContent",
                f"the bundle is for bytes with {algorithm} {stated.hex()}, "
                f"and these have {found.hex()}",
            )
    mismatch = _wrong_material(bundle, authority)
    if mismatch is not None:
        return mismatch
    if isinstance(authority, KeyAuthority):
        return _check_key(bundle, authority, blob)
    return check_certificate(bundle, authority, blob)


def check_statement(bundle: Bundle, authority: Authority) -> tuple[Checked, Statement | None]:
    """Whether ``authority`` signed the bundle's in-toto statement, and the statement if so.

    What the statement says of which artifact is for the caller to judge.
    """
    if isinstance(authority, KubernetesAuthority):
        return _no_signer(authority), None
    content = bundle.content
    if not isinstance(content, Envelope):
        return refuted(
            "NotAStatement", "the bundle holds a signature over bytes, not a statement"
        ), None
    if content.payload_type != IN_TOTO_PAYLOAD_TYPE:
        return refuted(
            "NotAStatement",
            f"the envelope holds {content.payload_type!r:.100}, not {IN_TOTO_PAYLOAD_TYPE!r}",
        ), None
    checked = _wrong_material(bundle, authority)
    if checked is None:
        if isinstance(authority, KeyAuthority):
            data = pae(content.payload_type, content.payload)
            checked = _check_key(bundle, authority, data)
        else:
            checked = check_certificate(bundle, authority)
    if checked.outcome is not Outcome.VERIFIED:
        return checked, None
    try:
        return checked, parse_statement(content.payload)
    except StatementError as error:
        return refuted("MalformedStatement", f"signed, but no in-toto statement: {error}"), None


def _no_signer(authority: KubernetesAuthority) -> Checked:
    return refuted("NotASigner", f"{authority.name} asks for jobs, and signs nothing")


def check_simple_signing(
    payload: bytes, signature_b64: str, authority: KeyAuthority, image_digest: str
) -> Checked:
    """Whether ``authority`` signed this image in cosign's older form, a ``.sig`` tag's layer.

    ``payload`` is the layer's bytes (containers-signature(5) JSON), ``signature_b64`` its
    annotation ``dev.cosignproject.cosign/signature``, ``image_digest`` the image's ``sha256:…``.
    """
    try:
        if len(signature_b64) > _MAX_SIGNATURE_TEXT:
            raise ValueError
        signature = base64.b64decode(signature_b64, validate=True)
    except ValueError:
        return refuted("MalformedSignature", "the signature annotation is not base64")
    if len(payload) > _MAX_SIMPLE_SIGNING_BYTES:
        return refuted(
            "MalformedSignature",
            f"the payload has {len(payload)} bytes, expected at most {_MAX_SIMPLE_SIGNING_BYTES}",
        )
    try:
        verify(authority.public_key, signature, payload)
    except SignatureError as error:
        return refuted("InvalidSignature", str(error))
    try:
        document = strictjson.parse(payload, max_bytes=_MAX_SIMPLE_SIGNING_BYTES)
    except strictjson.JSONError as error:
        return refuted("MalformedSignature", f"the signed payload: {error}")
    kind = _at(document, "critical", "type")
    if kind != SIMPLE_SIGNING_TYPE:
        return refuted(
            "NotAnImageSignature",
            f"the signed payload is a {kind!r:.100}, expected {SIMPLE_SIGNING_TYPE!r}",
        )
    digest = _at(document, "critical", "image", "docker-manifest-digest")
    if digest != image_digest:
        return refuted(
            "OtherContent", f"the signature is for image {digest!r:.100}, not {image_digest}"
        )
    return _verified_by_key(authority)


def _at(value: strictjson.JSONValue, *names: str) -> strictjson.JSONValue:
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value


def _wrong_material(bundle: Bundle, authority: Authority) -> Checked | None:
    if isinstance(authority, KeyAuthority) and bundle.certificates:
        return refuted(
            "SignedByCertificate",
            f"the bundle is signed with a certificate, and authority {authority.name} is a key",
        )
    if not isinstance(authority, KeyAuthority) and not bundle.certificates:
        return refuted(
            "SignedByKey",
            f"the bundle is signed with a bare key, and authority {authority.name} is an identity",
        )
    return None


def _check_key(bundle: Bundle, authority: KeyAuthority, data: bytes) -> Checked:
    try:
        verify(authority.public_key, bundle.content.signature, data)
    except SignatureError as error:
        ours = (key_hint(authority.public_key), model_signing_hint(authority.public_key))
        if bundle.key_hint and bundle.key_hint not in ours:
            return refuted(
                "OtherKey",
                f"signed by the key with hint {bundle.key_hint!r:.100}, "
                f"not by {authority.name} ({authority.public_key.id})",
            )
        return refuted("InvalidSignature", str(error))
    return _verified_by_key(authority)


def _verified_by_key(authority: KeyAuthority) -> Checked:
    identity = authority.public_key.id
    return verified(
        Signer(authority.name, authority.person, identity),
        f"signed by {authority.name} ({identity})",
    )
