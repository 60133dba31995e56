"""Sigstore's own conformance cases: bundles, keys and roots that nobody here made.

The cases are data of the project sigstore/sigstore-conformance (``test/assets/bundle-verify``); a
plain clone has none, and the tests then skip.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from trainseal.provenance.authorities import Authority, KeyAuthority, KeylessAuthority
from trainseal.provenance.bundles import BundleError, MessageSignature, parse_bundle
from trainseal.provenance.checks import check_blob, check_statement
from trainseal.provenance.keys import load_public_key
from trainseal.provenance.statements import subject_digests
from trainseal.provenance.trustroots import (
    TrustRootError,
    load_trusted_root,
    public_good_trusted_root,
)
from trainseal.provenance.verdicts import Outcome

ROOT = Path(__file__).resolve().parents[3]
VECTORS = Path(os.environ.get("TRAINSEAL_VECTORS", ROOT.parent / "shared" / "vectors"))
CASES = VECTORS / "sigstore-conformance"
IDENTITY = (
    "https://github.com/sigstore-conformance/extremely-dangerous-public-oidc-beacon/"
    ".github/workflows/extremely-dangerous-oidc-beacon.yml@refs/heads/main"
)
ISSUER = "https://token.actions.githubusercontent.com"
NAMES = sorted(path.name for path in CASES.glob("*/") if path.is_dir()) if CASES.is_dir() else []

needs_cases = pytest.mark.skipif(
    not NAMES, reason="no conformance cases: set TRAINSEAL_VECTORS to a folder that holds them"
)


def read(case: Path, name: str, default: str) -> str:
    path = case / name
    return path.read_text().strip() if path.exists() else default


def authority_of(case: Path) -> Authority:
    if (case / "key.pub").exists():
        return KeyAuthority("case", "case", load_public_key((case / "key.pub").read_bytes()))
    own_root = case / "trusted_root.json"
    root = (
        load_trusted_root(own_root.read_bytes())
        if own_root.exists()
        else public_good_trusted_root()
    )
    return KeylessAuthority(
        "case",
        "case",
        read(case, "issuer", ISSUER),
        read(case, "identity", IDENTITY),
        None,
        root,
    )


def judge(case: Path) -> tuple[Outcome, str]:
    """What we say of a case, in the terms of the suite's README."""
    artifact = case / "artifact"
    blob = (artifact if artifact.exists() else CASES / "a.txt").read_bytes()
    try:
        bundle = parse_bundle((case / "bundle.sigstore.json").read_bytes())
        authority = authority_of(case)
    except (BundleError, TrustRootError) as error:
        return Outcome.REFUTED, str(error)
    if isinstance(bundle.content, MessageSignature):
        checked = check_blob(bundle, authority, blob)
        return checked.outcome, checked.words
    checked, statement = check_statement(bundle, authority)
    if statement is None:
        return checked.outcome, checked.words
    digest = "sha256:" + hashlib.sha256(blob).hexdigest()
    if digest not in subject_digests(statement):
        return Outcome.REFUTED, "signed, but about another artifact"
    return checked.outcome, checked.words


@needs_cases
@pytest.mark.parametrize("name", [name for name in NAMES if name.endswith("_fail")])
def test_a_case_that_must_fail_is_refuted(name: str) -> None:
    outcome, words = judge(CASES / name)
    assert outcome is Outcome.REFUTED, words
    assert words


@needs_cases
@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("_fail")])
def test_a_case_that_must_pass_is_verified(name: str) -> None:
    outcome, words = judge(CASES / name)
    assert outcome is Outcome.VERIFIED, words
