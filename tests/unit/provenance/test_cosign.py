"""What cosign wrote is read: its key file, its bundles, its older image signature."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainseal.provenance.authorities import KeyAuthority
from trainseal.provenance.bundles import (
    parse_bundle,
)
from trainseal.provenance.checks import check_blob, check_simple_signing, check_statement
from trainseal.provenance.keyfiles import load_private_key
from trainseal.provenance.keys import KeyPasswordError, key_hint, load_public_key
from trainseal.provenance.statements import (
    COSIGN_SIGN_PREDICATE,
    subject_digests,
)
from trainseal.provenance.verdicts import Outcome

FILES = Path(__file__).with_name("cosign")
IMAGE = "sha256:af4acb05a5d7edc8c9fa44d1ddf19e17ba2f6309d8cfb9fd77676ece5e480aa6"
SIMPLE_SIGNATURE = (
    "MEUCIF9d0VKIphnd4520iYVfdJmNqZFV2K+7nFOq82i0yv3BAiEAlNkcNw7gpKgwnutnmdAl"
    "LK/F6QsiXWxRiX86XwzzyeM="
)


def authority() -> KeyAuthority:
    return KeyAuthority("lab", "alice", load_public_key((FILES / "cosign.pub").read_bytes()))


def test_the_key_file_that_cosign_wrote_opens_with_its_password_only() -> None:
    pem = (FILES / "cosign.key").read_bytes()
    assert load_private_key(pem, lambda: b"pw").public == authority().public_key
    with pytest.raises(KeyPasswordError):
        load_private_key(pem, lambda: b"PW")


def test_the_blob_bundle_that_cosign_wrote_is_verified_and_for_no_other_blob() -> None:
    bundle = parse_bundle((FILES / "blob.sigstore.json").read_bytes())
    assert bundle.key_hint == key_hint(authority().public_key)
    assert check_blob(bundle, authority(), b"hello\n").outcome is Outcome.VERIFIED
    assert check_blob(bundle, authority(), b"hello").outcome is Outcome.REFUTED


def test_the_image_bundle_that_cosign_wrote_is_a_statement_about_the_image() -> None:
    bundle = parse_bundle((FILES / "image.sigstore.json").read_bytes())
    checked, statement = check_statement(bundle, authority())
    assert checked.outcome is Outcome.VERIFIED
    assert statement is not None
    assert statement.predicate_type == COSIGN_SIGN_PREDICATE
    assert subject_digests(statement) == {IMAGE}


def test_the_older_image_signature_that_cosign_wrote_is_verified_and_for_no_other_image() -> None:
    payload = (FILES / "simplesigning.json").read_bytes()
    checked = check_simple_signing(payload, SIMPLE_SIGNATURE, authority(), IMAGE)
    assert checked.outcome is Outcome.VERIFIED
    other = check_simple_signing(payload, SIMPLE_SIGNATURE, authority(), "sha256:" + "00" * 32)
    assert (other.outcome, other.reason) == (Outcome.REFUTED, "OtherContent")
