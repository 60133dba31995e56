"""Authorities: whom a policy means, and patterns that cannot be turned against it."""

from __future__ import annotations

import pytest

from trainseal.provenance.authorities import AuthorityError, KeylessAuthority
from trainseal.provenance.trustroots import (
    TrustRootError,
    load_trusted_root,
    public_good_trusted_root,
)

ISSUER = "https://token.actions.githubusercontent.com"
WORKFLOW = "https://github.com/lab/train/.github/workflows/sign.yml@refs/heads/main"


def authority(subject: str | None = None, pattern: str | None = None) -> KeylessAuthority:
    return KeylessAuthority("ci", "ci", ISSUER, subject, pattern, public_good_trusted_root())


def test_a_subject_is_compared_whole() -> None:
    assert authority(WORKFLOW).accepts(WORKFLOW)
    assert not authority(WORKFLOW).accepts(WORKFLOW + "2")
    assert not authority(WORKFLOW).accepts(WORKFLOW.upper())


def test_a_pattern_must_match_the_whole_identity() -> None:
    lab = authority(pattern=r"https://github\.com/lab/[^/]+/\.github/workflows/.+@refs/heads/main")
    assert lab.accepts(WORKFLOW)
    assert not lab.accepts("https://evil.example/?" + WORKFLOW)
    assert not lab.accepts(WORKFLOW + "-evil")
    assert not lab.accepts(WORKFLOW + "\n")


@pytest.mark.parametrize(
    "pattern", [r".*@lab\.example", r"(alice|bob)@lab\.example", r"[a-z.]+@lab\.example", r"\w+@x"]
)
def test_everyday_patterns_are_taken(pattern: str) -> None:
    authority(pattern=pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        r"(a+)+b",
        r"(?:a|aa)*b",
        r"(a*){2,}b",
        r"(a)\1",
        r"(?=a)a",
        r"(?i)a",
        r"(?P<n>a)",
        r".*.*.*.*b",
        r"a*a*a*a*a*a*a*a*a*b",
        r"[a",
        r"a{99999999999999999999}",
        "a" * 513,
    ],
)
def test_patterns_that_could_take_forever_or_mean_something_else_are_refused(pattern: str) -> None:
    with pytest.raises(AuthorityError, match="ci"):
        authority(pattern=pattern)


@pytest.mark.parametrize("pattern", [r".*.*.*b", r"(a*)(a*)(a*)b"])
def test_an_identity_beyond_the_bound_is_not_matched_at_all(pattern: str) -> None:
    assert not authority(pattern=pattern).accepts("a" * 100_000)


def test_subject_and_pattern_exclude_each_other_and_one_is_needed() -> None:
    for subject, pattern in ((None, None), ("a", "a"), ("", "")):
        with pytest.raises(AuthorityError, match="exactly one"):
            authority(subject, pattern)
    with pytest.raises(AuthorityError, match="issuer"):
        KeylessAuthority("ci", "ci", "", "a", None, public_good_trusted_root())


def test_the_public_good_root_is_read_offline_and_once() -> None:
    assert public_good_trusted_root() is public_good_trusted_root()
    assert public_good_trusted_root().digest.startswith("sha256:")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("not a Sigstore trusted root", b""),
        ("not a Sigstore trusted root", b"{}"),
        ("not a Sigstore trusted root", b'{"a": 1, "a": 1}'),
        (
            "certificateAuthorities",
            (
                b'{"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1", '
                b'"tlogs": [], "certificateAuthorities": [], "ctlogs": []}'
            ),
        ),
        ("at most", b" " * 1_100_000),
    ],
)
def test_a_root_that_can_verify_nothing_is_refused(words: str, text: bytes) -> None:
    with pytest.raises(TrustRootError, match=words):
        load_trusted_root(text)
