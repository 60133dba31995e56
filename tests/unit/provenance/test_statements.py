"""Envelopes and statements: what is signed, and about what."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sigstore.dsse import Statement as SigstoreStatement

from trainseal.provenance import dsse
from trainseal.provenance.statements import (
    JOB_PREDICATE,
    STATEMENT_V01,
    StatementError,
    is_job_statement,
    job_statement,
    parse_statement,
    subject_digests,
)

DIGEST = "ab" * 32


def document(**changes: object) -> bytes:
    """A statement with one part changed; None leaves the part out."""
    parts: dict[str, object] = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": "image", "digest": {"sha256": DIGEST}}],
        "predicateType": "https://example.com/p",
        "predicate": {"k": [1]},
    }
    parts.update(changes)
    return json.dumps({name: part for name, part in parts.items() if part is not None}).encode()


def test_the_encoding_before_signing_is_the_specifications_example() -> None:
    assert dsse.pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert dsse.pae("é", b"") == "DSSEv1 2 é 0 ".encode()


@given(st.text(), st.binary(), st.text(), st.binary())
def test_two_envelopes_have_one_encoding_only_if_they_are_equal(
    kind: str, payload: bytes, other_kind: str, other: bytes
) -> None:
    same = dsse.pae(kind, payload) == dsse.pae(other_kind, other)
    assert same == ((kind, payload) == (other_kind, other))


def test_a_job_statement_is_read_back_and_approves_that_job() -> None:
    statement = parse_statement(job_statement("research", "char-lm", DIGEST))
    assert statement.predicate_type == JOB_PREDICATE
    assert statement.predicate == {}
    assert subject_digests(statement) == {f"sha256:{DIGEST}"}
    assert is_job_statement(statement, "research", "char-lm", DIGEST)


@pytest.mark.parametrize(
    ("namespace", "name", "digest"),
    [
        ("other", "char-lm", DIGEST),
        ("research", "other", DIGEST),
        ("research", "char-lm", "cd" * 32),
        ("research/char-lm", "", DIGEST),
    ],
)
def test_a_job_statement_approves_no_other_job(namespace: str, name: str, digest: str) -> None:
    statement = parse_statement(job_statement("research", "char-lm", DIGEST))
    assert not is_job_statement(statement, namespace, name, digest)


def test_a_statement_of_another_predicate_or_with_two_subjects_approves_no_job() -> None:
    text = job_statement("research", "char-lm", DIGEST)
    parts = json.loads(text)
    parts["predicateType"] = "https://sigstore.dev/cosign/sign/v1"
    assert not is_job_statement(
        parse_statement(json.dumps(parts).encode()), "research", "char-lm", DIGEST
    )
    parts = json.loads(text)
    parts["subject"] *= 2
    assert not is_job_statement(
        parse_statement(json.dumps(parts).encode()), "research", "char-lm", DIGEST
    )


def test_sigstores_own_reader_takes_our_statement() -> None:
    SigstoreStatement(job_statement("research", "char-lm", DIGEST))


@pytest.mark.parametrize("digest", ["", "AB" * 32, "ab" * 31, "sha256:" + "ab" * 32])
def test_a_job_statement_over_anything_but_a_sha256_is_refused(digest: str) -> None:
    with pytest.raises(StatementError, match="SHA-256"):
        job_statement("research", "char-lm", digest)


@pytest.mark.parametrize(
    "changes",
    [{}, {"_type": STATEMENT_V01}, {"predicate": None}, {"extra": 1}],
    ids=str,
)
def test_a_statement_of_either_version_is_read(changes: dict[str, object]) -> None:
    statement = parse_statement(document(**changes))
    assert subject_digests(statement) == {f"sha256:{DIGEST}"}
    assert statement.payload == document(**changes)


@pytest.mark.parametrize(
    ("words", "changes"),
    [
        ("_type", {"_type": None}),
        ("_type", {"_type": "https://in-toto.io/Statement/v2"}),
        ("predicateType", {"predicateType": None}),
        ("predicateType", {"predicateType": ""}),
        ("predicate", {"predicate": []}),
        ("subject", {"subject": None}),
        ("subject", {"subject": []}),
        ("subject", {"subject": [{"digest": {"sha256": DIGEST}}] * 1025}),
        (r"subject\[0\]", {"subject": [1]}),
        (r"subject\[0\].name", {"subject": [{"name": 1, "digest": {"sha256": DIGEST}}]}),
        (r"subject\[0\].digest", {"subject": [{"name": "x"}]}),
        (r"subject\[0\].digest", {"subject": [{"name": "x", "digest": {}}]}),
        ("lower-case hex", {"subject": [{"name": "x", "digest": {"sha256": DIGEST.upper()}}]}),
        ("lower-case hex", {"subject": [{"name": "x", "digest": {"sha256": 1}}]}),
    ],
)
def test_what_departs_from_a_statement_is_refused_by_name(
    words: str, changes: dict[str, object]
) -> None:
    with pytest.raises(StatementError, match=words):
        parse_statement(document(**changes))


@given(st.binary())
def test_no_bytes_make_the_reader_fail_otherwise(data: bytes) -> None:
    with pytest.raises(StatementError):
        parse_statement(data)
