"""Who bundles say signed: told in their own words, whatever they are."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tests.unit import world
from trainseal.provenance.bundles import make_bundle_blob, make_bundle_dsse
from trainseal.provenance.canonical import TEMPLATE_KIND, canonical_form
from trainseal.provenance.claims import Claim, claims
from trainseal.provenance.judgement import Signed

Object = dict[str, Any]
TEMPLATE = world.sign_template(world.template_object(), world.ALICE)
SIGNED = Signed(TEMPLATE_KIND, "research", "pretrain-v7", canonical_form(TEMPLATE, TEMPLATE_KIND))


def claim(bundle: Any) -> Claim:
    (found,) = claims([{"bundle": bundle}], SIGNED)
    return found


def certified(der: bytes) -> Object:
    """Alice's signature, said to be by the key of a certificate."""
    made: Object = make_bundle_blob(world.ALICE, SIGNED.canonical)
    raw = base64.b64encode(der).decode()
    made["verificationMaterial"] = {"certificate": {"rawBytes": raw}, "tlogEntries": []}
    return made


def certificate(*names: x509.GeneralName, issuer: bytes = b"") -> bytes:
    key = Ed25519PrivateKey.generate()
    nobody = x509.Name([])
    builder = (
        x509.CertificateBuilder(nobody, nobody, key.public_key(), 1)
        .not_valid_before(world.NOW)
        .not_valid_after(world.NOW + timedelta(minutes=10))
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    if issuer:
        oid = x509.ObjectIdentifier("1.3.6.1.4.1.57264.1.1")
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, issuer), critical=False)
    return builder.sign(key, None).public_bytes(serialization.Encoding.DER)


def test_a_bare_key_is_told_by_its_id() -> None:
    by_alice = Claim("key", world.ALICE.public.id, "", "this")
    assert claims(TEMPLATE["spec"]["signatures"], SIGNED) == (by_alice,)
    assert claim(make_bundle_blob(world.ALICE, SIGNED.canonical)) == by_alice


def test_a_hint_of_another_kind_stands_as_it_is() -> None:
    for hint in ("team-key", "YWJj"):
        bundle = make_bundle_dsse(world.ALICE, b"{}", "text/plain", hint=hint)
        assert claim(bundle) == Claim("key", hint, "", "unknown")


def test_a_certificate_is_told_by_identity_and_issuer() -> None:
    der = certificate(x509.RFC822Name("ann@example.org"), issuer=b"https://accounts.example")
    wanted = Claim("identity", "ann@example.org", "https://accounts.example", "this")
    assert claim(certified(der)) == wanted
    assert claim(certified(certificate())) == Claim("identity", "", "", "this")
    assert claim(certified(b"no certificate")) == Claim("identity", "", "", "this")


def test_what_it_says_to_be_over_is_told_too() -> None:
    other = world.template_object(replicas={"worker": {"min": 1, "max": 2}})
    (signature,) = world.sign_template(other, world.ALICE)["spec"]["signatures"]
    assert claim(signature["bundle"]).over == "another"
    assert claim(make_bundle_blob(world.ALICE, b"x")).over == "another"
    bare: Object = make_bundle_blob(world.ALICE, SIGNED.canonical)
    del bare["messageSignature"]["messageDigest"]
    assert claim(bare).over == "unknown"


def test_what_is_no_bundle_is_told_to_be_none() -> None:
    none = Claim("unreadable", "", "", "unknown")
    assert claims([1, {}, {"bundle": 1}, {"bundle": {"mediaType": "x"}}], SIGNED) == (none,) * 4
