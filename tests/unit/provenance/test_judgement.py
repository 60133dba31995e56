"""Evidence against requirements: whose signature counts, for what, and how many persons signed."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit import world
from trainseal.provenance.authorities import (
    Authority,
    Checked,
    KeyAuthority,
    refuted,
    undetermined,
    verified,
)
from trainseal.provenance.bundles import encode_bundle, make_bundle_blob, make_bundle_dsse
from trainseal.provenance.canonical import canonical_job, job_digest
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE
from trainseal.provenance.judgement import (
    Artifact,
    Piece,
    Signed,
    TreeSignatures,
    check_image,
    check_signed,
    judge,
    read_bundle,
)
from trainseal.provenance.keys import PrivateKey, sign
from trainseal.provenance.manifests import TreeManifest
from trainseal.provenance.policies import Requirement, UnavailableAuthority
from trainseal.provenance.statements import job_statement
from trainseal.provenance.verdicts import Outcome, Signer, Unusable, Verdict

IMAGE = "sha256:" + "a" * 64
COSIGN = "https://sigstore.dev/cosign/sign/v1"
ALICE = KeyAuthority("alice", "Alice", world.ALICE.public)
ALICES_OTHER = KeyAuthority("alice-laptop", "Alice", world.MALLORY.public)
BOB = KeyAuthority("bob", "Bob", world.BOB.public)
AWAY = UnavailableAuthority("ci", "CI", "TrustRoot private does not exist")


def statement(key: PrivateKey, predicate_type: str, *digests: str, predicate: Any = None) -> Piece:
    payload = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "", "digest": {"sha256": d.removeprefix("sha256:")}} for d in digests],
        "predicateType": predicate_type,
        "predicate": predicate or {},
    }
    return dsse(key, json.dumps(payload).encode())


def dsse(key: PrivateKey, payload: bytes) -> Piece:
    return read_bundle(encode_bundle(make_bundle_dsse(key, payload, IN_TOTO_PAYLOAD_TYPE)), 10**7)


def verdict(
    checks: Any, pieces: int, *authorities: Authority | UnavailableAuthority, threshold: int = 1
) -> Verdict:
    requirement = Requirement(authorities or (ALICE, BOB), threshold)
    return judge(Artifact("image", "y", "z"), requirement, "research", pieces, checks, "sign it")


# Jobs -------------------------------------------------------------------------------------------


def signed(job: Any) -> Signed:
    return Signed("TrainingJob", "research", "char-lm", canonical_job(job))


def job_verdict(pieces: Sequence[Piece], job: Any = None, threshold: int = 1) -> Verdict:
    job = job or world.job_object()
    check = check_signed(pieces, signed(job))
    return verdict(check, len(pieces), threshold=threshold)


def approval(key: PrivateKey, namespace: str = "research", name: str = "char-lm") -> Piece:
    hexadecimal = job_digest(world.job_object()).removeprefix("sha256:")
    return dsse(key, job_statement(namespace, name, hexadecimal))


def test_a_job_signed_by_an_authority_is_verified_and_the_person_named() -> None:
    found = job_verdict([approval(world.BOB)])
    assert found.outcome is Outcome.VERIFIED
    assert [s.person for s in found.signers] == ["Bob"]


def test_a_bare_signature_over_the_canonical_bytes_counts_the_same() -> None:
    blob = canonical_job(world.job_object())
    piece = read_bundle(encode_bundle(make_bundle_blob(world.ALICE, blob)), 10**6)
    assert job_verdict([piece]).outcome is Outcome.VERIFIED


@pytest.mark.parametrize(
    ("piece", "reason"),
    [
        (approval(world.ALICE, namespace="other"), "OtherJob"),
        (approval(world.ALICE, name="other"), "OtherJob"),
        (statement(world.ALICE, COSIGN, job_digest(world.job_object())), "OtherJob"),
        (dsse(world.ALICE, b"no statement"), "MalformedStatement"),
        (approval(world.MALLORY), "OtherKey"),
        (read_bundle(b"{}", 100), "MalformedBundle"),
        (read_bundle(b"{" * 1000, 100), "MalformedBundle"),
    ],
)
def test_a_signature_that_does_not_count_for_this_job_says_why(piece: Piece, reason: str) -> None:
    found = job_verdict([piece])
    assert (found.outcome, found.reason) == (Outcome.REFUTED, reason)
    assert "none that counts" in found.found


def test_a_job_changed_after_signing_is_refuted_with_both_digests() -> None:
    job = world.job_object()
    job["spec"]["config"]["parameters"]["learning_rate"] = 1
    found = job_verdict([approval(world.ALICE)], job)
    assert found.reason == "OtherJob"
    for digest in (job_digest(job), job_digest(world.job_object())):
        assert digest.removeprefix("sha256:") in found.found


def test_one_bad_bundle_hides_no_good_one() -> None:
    pieces = [read_bundle(b"{}", 100), approval(world.MALLORY), approval(world.ALICE)]
    assert job_verdict(pieces).outcome is Outcome.VERIFIED


def test_no_signature_is_said_as_such() -> None:
    found = job_verdict([])
    assert (found.outcome, found.reason) == (Outcome.REFUTED, "NoSignature")
    assert "a signature by one of alice, bob" in found.sentence()


# Thresholds -------------------------------------------------------------------------------------


def test_a_threshold_of_two_wants_two_persons() -> None:
    both = job_verdict([approval(world.ALICE), approval(world.BOB)], threshold=2)
    assert [s.person for s in both.signers] == ["Alice", "Bob"]
    assert both.outcome is Outcome.VERIFIED
    twice = job_verdict([approval(world.ALICE), approval(world.ALICE)], threshold=2)
    assert (twice.outcome, twice.reason) == (Outcome.REFUTED, "NotEnoughSigners")


def test_one_person_with_two_keys_is_one_person() -> None:
    pieces = [approval(world.ALICE), approval(world.MALLORY)]
    job = world.job_object()
    check = check_signed(pieces, signed(job))
    found = verdict(check, 2, ALICE, ALICES_OTHER, BOB, threshold=2)
    assert (found.outcome, found.reason) == (Outcome.REFUTED, "NotEnoughSigners")


# What could not be judged -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("authorities", "threshold", "outcome"),
    [
        ((AWAY,), 1, Outcome.UNDETERMINED),
        ((ALICE, AWAY), 1, Outcome.VERIFIED),
        ((BOB, AWAY), 1, Outcome.UNDETERMINED),
        ((ALICE, AWAY), 2, Outcome.UNDETERMINED),
        ((BOB, AWAY), 2, Outcome.REFUTED),
        ((ALICE, UnavailableAuthority("a2", "Alice", "gone")), 2, Outcome.REFUTED),
    ],
)
def test_doubt_counts_only_where_it_could_make_up_the_number(
    authorities: tuple[Any, ...], threshold: int, outcome: Outcome
) -> None:
    job = world.job_object()
    check = check_signed([approval(world.ALICE)], signed(job))
    found = verdict(check, 1, *authorities, threshold=threshold)
    assert found.outcome is outcome


def test_no_signature_is_refuted_even_where_a_trust_root_is_missing() -> None:
    assert verdict(lambda _: [], 0, AWAY).outcome is Outcome.REFUTED


PEOPLE = ("a", "b", "c", "d")


def said_by(who: str, what: str, identity: str = "") -> Checked:
    if what == "yes":
        return verified(Signer(who, who, identity or who), "signed")
    return refuted("No", "no") if what == "no" else undetermined("Unclear", "unclear")


def of_answers(answers: Sequence[Checked], persons: Sequence[str], threshold: int) -> Verdict:
    """The verdict where each of as many authorities gives its one answer."""
    named = [KeyAuthority(f"k{i}", who, world.BOB.public) for i, who in enumerate(persons)]
    by_name = {authority.name: answer for authority, answer in zip(named, answers, strict=True)}
    requirement = Requirement(tuple(named), threshold)
    return judge(
        Artifact("image", "y", "z"), requirement, "p", 1, lambda a: [by_name[a.name]], "sign it"
    )


@given(
    st.lists(st.tuples(st.sampled_from(PEOPLE), st.sampled_from(["yes", "no", "unclear"]))),
    st.integers(1, 4),
)
def test_the_verdict_follows_from_who_signed_and_who_might_have(
    said: list[tuple[str, str]], threshold: int
) -> None:
    signed = {who for who, what in said if what == "yes"}
    might = {who for who, what in said if what == "unclear"} - signed
    found = of_answers([said_by(*one) for one in said], [who for who, _ in said], threshold)
    if len(signed) >= threshold:
        assert found.outcome is Outcome.VERIFIED
    elif len(signed | might) >= threshold:
        assert found.outcome is Outcome.UNDETERMINED
    else:
        assert found.outcome is Outcome.REFUTED


# One signer is one person ------------------------------------------------------------------------


def most_persons(offers: Sequence[tuple[str, str]]) -> int:
    """The largest number of persons who each have an identity of their own, by trying all."""
    if not offers:
        return 0
    (who, identity), rest = offers[0], offers[1:]
    free = [(w, i) for w, i in rest if w != who and i != identity]
    return max(most_persons(rest), 1 + most_persons(free))


@given(
    st.lists(st.tuples(st.sampled_from(PEOPLE), st.sampled_from(("k", "l", "m"))), max_size=8),
    st.integers(1, 4),
)
def test_a_threshold_holds_where_so_many_persons_have_a_signer_each(
    offers: list[tuple[str, str]], threshold: int
) -> None:
    answers = [said_by(who, "yes", identity) for who, identity in offers]
    found = of_answers(answers, [who for who, _ in offers], threshold)
    enough = most_persons(offers) >= threshold
    assert (found.outcome is Outcome.VERIFIED) == enough
    assert len({s.identity for s in found.signers}) == len(found.signers) == most_persons(offers)


def test_one_key_under_two_names_does_not_make_up_a_threshold_of_two() -> None:
    eve = [said_by("security", "yes", "eve@corp"), said_by("anyone", "yes", "eve@corp")]
    found = of_answers(eve, ["security", "anyone"], 2)
    assert (found.outcome, found.reason) == (Outcome.REFUTED, "NotEnoughSigners")
    assert "anyone not counted: the same key or identity" in found.found


def test_two_identities_do_also_where_one_fits_both_names() -> None:
    said = [
        said_by("security", "yes", "eve@corp"),
        said_by("anyone", "yes", "eve@corp"),
        said_by("anyone", "yes", "dan@corp"),
    ]
    found = of_answers(said, ["security", "anyone", "anyone"], 2)
    assert found.outcome is Outcome.VERIFIED
    assert {s.identity for s in found.signers} == {"eve@corp", "dan@corp"}


# What was there and could not be used -----------------------------------------------------------


def without_pieces(*unusable: Unusable) -> Verdict:
    requirement = Requirement((ALICE, BOB), 1)
    return judge(
        Artifact("image", "y", "z"), requirement, "p", 0, lambda _: [], "sign it", unusable
    )


def test_a_bundle_too_large_to_read_is_no_missing_signature() -> None:
    found = without_pieces(Unusable(Outcome.UNDETERMINED, "a bundle of 9 MiB"))
    assert (found.outcome, found.reason) == (Outcome.UNDETERMINED, "EvidenceNotJudged")
    assert "9 MiB" in found.found


def test_a_damaged_bundle_is_refuted_and_told_of() -> None:
    found = without_pieces(Unusable(Outcome.REFUTED, "other bytes than its digest says"))
    assert (found.outcome, found.reason) == (Outcome.REFUTED, "NoSignature")
    assert "1 that could not be used: other bytes" in found.found


def test_what_could_not_be_used_takes_nothing_from_a_signature_that_counts() -> None:
    job = world.job_object()
    check = check_signed([approval(world.ALICE)], signed(job))
    found = judge(
        Artifact("image", "y", "z"),
        Requirement((ALICE, BOB), 1),
        "p",
        1,
        check,
        "",
        [Unusable(Outcome.UNDETERMINED, "a bundle of 9 MiB")],
    )
    assert found.outcome is Outcome.VERIFIED


# Images -----------------------------------------------------------------------------------------


def image_verdict(*pieces: Piece, simple: Sequence[tuple[bytes, str]] = ()) -> Verdict:
    return verdict(check_image(pieces, simple, IMAGE), len(pieces) + len(simple))


def test_an_image_signed_by_cosign_is_verified() -> None:
    assert image_verdict(statement(world.ALICE, COSIGN, IMAGE)).outcome is Outcome.VERIFIED


def simple_signing(key: PrivateKey, digest: str) -> tuple[bytes, str]:
    payload = json.dumps(
        {
            "critical": {
                "identity": {"docker-reference": "x"},
                "image": {"docker-manifest-digest": digest},
                "type": "cosign container image signature",
            },
            "optional": None,
        }
    ).encode()
    return payload, base64.b64encode(sign(key, payload)).decode()


def test_so_is_one_signed_in_cosigns_older_form() -> None:
    good = simple_signing(world.BOB, IMAGE)
    assert image_verdict(simple=[good]).outcome is Outcome.VERIFIED
    other = simple_signing(world.BOB, "sha256:" + "b" * 64)
    assert image_verdict(simple=[other]).outcome is Outcome.REFUTED


@pytest.mark.parametrize(
    ("piece", "reason"),
    [
        (statement(world.ALICE, COSIGN, "sha256:" + "b" * 64), "OtherImage"),
        (statement(world.ALICE, "https://spdx.dev/Document", IMAGE), "OtherPredicate"),
        (statement(world.MALLORY, COSIGN, IMAGE), "OtherKey"),
    ],
)
def test_a_signature_that_does_not_count_for_this_image_says_why(piece: Piece, reason: str) -> None:
    found = image_verdict(piece)
    assert (found.outcome, found.reason) == (Outcome.REFUTED, reason)


def test_what_was_signed_says_more_than_that_others_signed_too() -> None:
    found = image_verdict(
        statement(world.MALLORY, COSIGN, IMAGE),
        statement(world.ALICE, "https://spdx.dev/Document", IMAGE),
    )
    assert found.reason == "OtherPredicate"


# Code -------------------------------------------------------------------------------------------

TREE = TreeManifest.of("code", {"train.py": "1" * 64, "evil.py": "2" * 64})


def renamed() -> TreeManifest:
    """The same contents in the same order under other names: the same root digest."""
    one, two = TREE.entries
    return TreeManifest("code", (type(one)("a.py", one.sha256), type(two)("b.py", two.sha256)))


def tree(key: PrivateKey, manifest: TreeManifest = TREE) -> Piece:
    return dsse(key, manifest.to_statement())


def code_verdict(signatures: TreeSignatures, number: int = 0, threshold: int = 1) -> Verdict:
    trees = signatures.trees([ALICE, BOB]) or (None,)
    return verdict(signatures.check(trees[number]), len(signatures), threshold=threshold)


def test_a_tree_signed_by_an_authority_is_verified_and_its_bundle_known() -> None:
    signatures = TreeSignatures([("blob", tree(world.ALICE))], TREE.root_digest)
    assert [t.bundles for t in signatures.trees([ALICE, BOB])] == [("blob",)]
    assert code_verdict(signatures).outcome is Outcome.VERIFIED


@pytest.mark.parametrize(
    ("piece", "reason"),
    [
        (tree(world.MALLORY), "OtherKey"),
        (tree(world.ALICE, TreeManifest.of("code", {"train.py": "3" * 64})), "OtherTree"),
        (statement(world.ALICE, COSIGN, TREE.root_digest), "OtherPredicate"),
        (
            statement(world.ALICE, "https://model_signing/signature/v1.0", TREE.root_digest),
            "MalformedManifest",
        ),
        (read_bundle(b"{}", 10), "MalformedBundle"),
    ],
)
def test_a_signature_that_does_not_count_for_this_tree_says_why(piece: Piece, reason: str) -> None:
    signatures = TreeSignatures([("blob", piece)], TREE.root_digest)
    assert signatures.trees([ALICE, BOB]) == ()
    found = code_verdict(signatures)
    assert (found.outcome, found.reason) == (Outcome.REFUTED, reason)


def test_two_persons_count_together_only_for_the_same_names() -> None:
    other = renamed()
    assert other.root_digest == TREE.root_digest
    apart = TreeSignatures(
        [("1", tree(world.ALICE)), ("2", tree(world.BOB, other))], TREE.root_digest
    )
    for number in (0, 1):
        found = code_verdict(apart, number, threshold=2)
        assert (found.outcome, found.reason) == (Outcome.REFUTED, "NotEnoughSigners")
        assert "under other names" in found.found
    together = TreeSignatures([("1", tree(world.ALICE)), ("2", tree(world.BOB))], TREE.root_digest)
    assert code_verdict(together, threshold=2).outcome is Outcome.VERIFIED


def test_the_tree_of_most_signatures_comes_first() -> None:
    pieces = [("0", tree(world.BOB, renamed())), ("2", tree(world.BOB)), ("1", tree(world.ALICE))]
    signatures = TreeSignatures(pieces, TREE.root_digest)
    assert [t.bundles for t in signatures.trees([ALICE, BOB])] == [("1", "2"), ("0",)]
