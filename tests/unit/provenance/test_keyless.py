"""Certificates: who signed, when, and trusted roots that cannot judge it.

The bundles are Sigstore's conformance cases (see test_conformance.py); each test breaks one thing
of a case that is verified as it stands.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sigstore._internal.tuf import DEFAULT_TUF_URL
from sigstore._utils import read_embedded

from tests.unit.provenance.test_conformance import (
    CASES,
    IDENTITY,
    ISSUER,
    needs_cases,
)
from trainseal.provenance import keyless
from trainseal.provenance.authorities import Checked, KeylessAuthority
from trainseal.provenance.bundles import parse_bundle
from trainseal.provenance.checks import check_blob, check_statement
from trainseal.provenance.trustroots import TrustedRoot, load_trusted_root
from trainseal.provenance.verdicts import Outcome

pytestmark = needs_cases
Document = dict[str, Any]

V1 = "happy-path-v0.1"  # logged in Rekor 1, time from the log: 2023-07-12T15:56:36Z
V2 = "rekor2-timestamp-without-embedded-cert"  # logged in Rekor 2, time from an authority
INTOTO = "intoto-with-custom-trust-root"
SIGNED_AT = datetime(2023, 7, 12, 15, 56, 36, tzinfo=UTC)


def root_document(case: str) -> Document:
    own = CASES / case / "trusted_root.json"
    text = own.read_bytes() if own.exists() else read_embedded("trusted_root.json", DEFAULT_TUF_URL)
    document: Document = json.loads(text)
    return document


def root(case: str = V1, change: Callable[[Document], object] = lambda _: None) -> TrustedRoot:
    document = root_document(case)
    change(document)
    return load_trusted_root(json.dumps(document))


def judge(
    case: str = V1,
    *,
    issuer: str = ISSUER,
    subject: str | None = IDENTITY,
    pattern: str | None = None,
    change_root: Callable[[Document], object] = lambda _: None,
    change: Callable[[Document], object] = lambda _: None,
) -> Checked:
    document: Document = json.loads((CASES / case / "bundle.sigstore.json").read_bytes())
    change(document)
    authority = KeylessAuthority("ci", "ci", issuer, subject, pattern, root(case, change_root))
    bundle = parse_bundle(document)
    if "dsseEnvelope" in document:
        return check_statement(bundle, authority)[0]
    return check_blob(bundle, authority, (CASES / "a.txt").read_bytes())


def windows(kind: str, start: datetime, end: datetime | None) -> Callable[[Document], None]:
    """Give every authority of a kind in the trusted root this window."""
    window = {"start": start.isoformat()} | ({"end": end.isoformat()} if end else {})

    def change(document: Document) -> None:
        for item in document[kind]:
            item.get("publicKey", item)["validFor"] = window

    return change


def test_the_signer_is_named_with_issuer_and_trusted_time() -> None:
    signer = judge().signer
    assert signer is not None
    assert (signer.authority, signer.person) == ("ci", "ci")
    assert (signer.identity, signer.issuer, signer.signed_at) == (IDENTITY, ISSUER, SIGNED_AT)


def test_the_time_of_a_timestamp_authority_is_taken_where_the_log_has_none() -> None:
    signer = judge(V2).signer
    assert signer is not None
    assert signer.signed_at is not None
    assert signer.signed_at.tzinfo is UTC


@pytest.mark.parametrize("case", [V1, V2, INTOTO])
def test_another_issuer_is_refuted(case: str) -> None:
    checked = judge(case, issuer="https://accounts.example")
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, "OtherIssuer")
    assert ISSUER in checked.words


@pytest.mark.parametrize("case", [V1, V2, INTOTO])
def test_another_identity_is_refuted(case: str) -> None:
    checked = judge(case, subject=IDENTITY.replace("main", "feature"))
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, "OtherIdentity")
    assert IDENTITY in checked.words


def test_a_pattern_stands_for_the_whole_identity() -> None:
    pattern = r"https://github\.com/sigstore-conformance/.+@refs/heads/main"
    assert judge(subject=None, pattern=pattern).outcome is Outcome.VERIFIED
    assert judge(subject=None, pattern=pattern[:-4]).reason == "OtherIdentity"


def test_a_changed_blob_is_refuted_whether_or_not_the_bundle_states_a_digest() -> None:
    document = json.loads((CASES / V1 / "bundle.sigstore.json").read_bytes())
    authority = KeylessAuthority("ci", "ci", ISSUER, IDENTITY, None, root())
    assert check_blob(parse_bundle(document), authority, b"x").reason == "OtherContent"
    del document["messageSignature"]["messageDigest"]
    assert check_blob(parse_bundle(document), authority, b"x").reason == "InvalidSignature"


@pytest.mark.parametrize("kind", ["certificateAuthorities", "tlogs", "ctlogs"])
def test_evidence_of_an_authority_before_or_after_its_window_is_refuted(kind: str) -> None:
    hour = timedelta(hours=1)
    around = windows(kind, SIGNED_AT - hour, SIGNED_AT + hour)
    assert judge(change_root=around).outcome is Outcome.VERIFIED
    late = windows(kind, SIGNED_AT + hour, None)
    checked = judge(change_root=late)
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, "InvalidEvidence")
    assert "not valid at 2023-07-12T15:56:3" in checked.words


@pytest.mark.parametrize("kind", ["tlogs", "ctlogs"])
def test_evidence_of_a_log_that_had_ended_is_refuted(kind: str) -> None:
    hour = timedelta(hours=1)
    checked = judge(change_root=windows(kind, SIGNED_AT - 2 * hour, SIGNED_AT - hour))
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, "InvalidEvidence")


def test_the_window_of_one_authority_does_not_serve_the_certificates_of_another() -> None:
    hour = timedelta(hours=1)
    other = root_document(V2)["certificateAuthorities"]

    def change(document: Document) -> None:
        windows("certificateAuthorities", SIGNED_AT + hour, None)(document)
        borrowed: Document = {"certificateAuthorities": other}
        windows("certificateAuthorities", SIGNED_AT - hour, None)(borrowed)
        document["certificateAuthorities"] += borrowed["certificateAuthorities"]

    checked = judge(change_root=change)
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, "InvalidEvidence")
    assert "authority was not valid" in checked.words


def test_a_bundle_that_brings_a_root_of_its_own_is_refuted() -> None:
    authorities = root_document(V1)["certificateAuthorities"]
    *_, own_root = authorities[-1]["certChain"]["certificates"]

    def bring(document: Document) -> None:
        chain = document["verificationMaterial"]["x509CertificateChain"]["certificates"]
        chain.append(own_root)

    checked = judge(change=bring)
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, "RootInBundle")


def test_a_root_whose_certificate_authorities_had_all_ended_cannot_judge() -> None:
    hour = timedelta(hours=1)
    ended = windows("certificateAuthorities", SIGNED_AT - 2 * hour, SIGNED_AT - hour)
    checked = judge(change_root=ended)
    assert (checked.outcome, checked.reason) == (Outcome.UNDETERMINED, "TrustRootOutdated")
    assert "renew the TrustRoot" in checked.words


def test_a_timestamp_cannot_be_judged_by_a_root_without_timestamp_authorities() -> None:
    checked = judge(V2, change_root=lambda document: document.pop("timestampAuthorities"))
    assert (checked.outcome, checked.reason) == (Outcome.UNDETERMINED, "TrustRootIncomplete")


def test_the_window_of_a_timestamp_authority_includes_its_end() -> None:
    signer = judge(V2).signer
    assert signer is not None
    assert signer.signed_at is not None
    start = signer.signed_at - timedelta(days=1)
    closed = windows("timestampAuthorities", start, signer.signed_at)
    assert judge(V2, change_root=closed).outcome is Outcome.VERIFIED
    before = windows("timestampAuthorities", start, signer.signed_at - timedelta(seconds=1))
    assert judge(V2, change_root=before).outcome is Outcome.REFUTED


def test_logs_that_are_not_valid_yet_cannot_judge() -> None:
    future = windows("tlogs", datetime(9000, 1, 1, tzinfo=UTC), None)
    checked = judge(change_root=future)
    assert (checked.outcome, checked.reason) == (Outcome.UNDETERMINED, "TrustRootIncomplete")


def entry(document: Document) -> Document:
    found: Document = document["verificationMaterial"]["tlogEntries"][0]
    return found


TIMESTAMPED = (INTOTO, "without the inclusion promise")  # an authority's timestamp remains
BROKEN: dict[str, Callable[[Document], object]] = {
    "without the log entry": lambda d: d["verificationMaterial"].update(tlogEntries=[]),
    "with the entry twice": lambda d: d["verificationMaterial"]["tlogEntries"].append(entry(d)),
    "without the inclusion proof": lambda d: entry(d).pop("inclusionProof"),
    "without the inclusion promise": lambda d: entry(d).pop("inclusionPromise"),
    "with another integrated time": lambda d: entry(d).update(integratedTime="1689177397"),
    "with another log index": lambda d: entry(d).update(logIndex="7"),
    "with another body": lambda d: entry(d).update(canonicalizedBody="e30="),
    "as an entry of another kind": lambda d: entry(d)["kindVersion"].update(kind="dsse"),
    "as an entry of an unknown version": lambda d: entry(d)["kindVersion"].update(version="9"),
    "as an entry without a kind": lambda d: entry(d).pop("kindVersion"),
}


@pytest.mark.parametrize(
    ("case", "name"),
    [(case, name) for case in (V1, INTOTO) for name in BROKEN if (case, name) != TIMESTAMPED],
)
def test_a_bundle_with_broken_evidence_is_refuted(case: str, name: str) -> None:
    assert judge(case).outcome is Outcome.VERIFIED
    checked = judge(case, change=BROKEN[name])
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, "InvalidEvidence")
    assert len(checked.words) < 300


def test_a_time_in_the_log_entry_counts_only_with_the_promise_that_binds_it() -> None:
    def unbind(document: Document) -> None:
        del entry(document)["inclusionPromise"]
        entry(document)["integratedTime"] = "4000000000"

    signer = judge(INTOTO, change=unbind).signer
    assert signer is not None
    assert signer.signed_at is not None
    assert signer.signed_at.year < 2030
    hour = timedelta(hours=1)
    ended = windows("tlogs", signer.signed_at - 2 * hour, signer.signed_at - hour)
    assert judge(INTOTO, change_root=ended).outcome is Outcome.REFUTED

    def back_date(document: Document) -> None:
        del entry(document)["inclusionPromise"]
        entry(document)["integratedTime"] = str(int((signed_at - 1.5 * hour).timestamp()))

    signed_at = signer.signed_at
    assert judge(INTOTO, change_root=ended, change=back_date).outcome is Outcome.REFUTED


def test_a_certificate_of_another_authority_is_refuted() -> None:
    staging = root_document(V2)
    checked = judge(change_root=lambda document: document.update(staging))
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, "InvalidEvidence")


def test_a_certificate_with_two_identities_is_nobodys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fulcio gives one; each of two would stand for a person of its own."""
    monkeypatch.setattr(keyless, "_identities", lambda _: [IDENTITY, "eve@example.org"])
    checked = judge()
    assert (checked.outcome, checked.reason) == (Outcome.REFUTED, "SeveralIdentities")
