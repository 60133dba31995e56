"""Who bundles say signed, and what: their own words, which nothing here verifies. Pure."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from trainseal.api.model import json_object
from trainseal.provenance.bundles import MAX_BUNDLE_BYTES, BundleError, MessageSignature
from trainseal.provenance.dsse import Envelope
from trainseal.provenance.judgement import Signed, read_bundle
from trainseal.provenance.keyless import named_in
from trainseal.provenance.statements import StatementError, is_job_statement, parse_statement


@dataclass(frozen=True, slots=True)
class Claim:
    """One bundle's words. ``who`` is a key id or an identity, empty where it names none;
    ``over`` what it says it is over: this object as it is, another, or nothing that can be read.
    """

    kind: Literal["key", "identity", "unreadable"]
    who: str
    issuer: str
    over: Literal["this", "another", "unknown"]


def claims(entries: Sequence[JsonValue], signed: Signed) -> tuple[Claim, ...]:
    """What each entry of an object's ``spec.signatures`` says of itself."""
    return tuple(_claim(entry, signed) for entry in entries)


def is_over(content: MessageSignature | Envelope, signed: Signed) -> bool | None:
    """Whether a bundle says that it is over this; None where it does not say."""
    if isinstance(content, Envelope):
        try:
            statement = parse_statement(content.payload)
        except StatementError:
            return None
        digest = signed.digest.removeprefix("sha256:")
        return is_job_statement(statement, signed.namespace, signed.name, digest, signed.kind)
    if content.digest is None:
        return None
    algorithm, stated = content.digest
    return hashlib.new(algorithm, signed.canonical).digest() == stated


def _claim(entry: JsonValue, signed: Signed) -> Claim:
    bundle = read_bundle(json_object(json_object(entry).get("bundle")), MAX_BUNDLE_BYTES)
    if isinstance(bundle, BundleError):
        return Claim("unreadable", "", "", "unknown")
    said = is_over(bundle.content, signed)
    over: Literal["this", "another", "unknown"] = (
        "unknown" if said is None else "this" if said else "another"
    )
    if bundle.key_hint is not None:
        return Claim("key", _key(bundle.key_hint), "", over)
    identity, issuer = named_in(bundle)
    return Claim("identity", identity, issuer, over)


def _key(hint: str) -> str:
    """The key id that cosign's hint, and ours, is made from; any other hint as it stands."""
    try:
        digest = base64.b64decode(hint, validate=True)
    except (binascii.Error, ValueError):
        return hint
    return f"sha256:{digest.hex()}" if len(digest) == hashlib.sha256().digest_size else hint
