from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.registry.authentication import Challenge, parse_challenges


@pytest.mark.parametrize(
    ("headers", "challenges"),
    [
        (
            ['Bearer realm="https://a.example/token",service="hub",scope="x:y:z"'],
            [
                Challenge(
                    "bearer",
                    {"realm": "https://a.example/token", "service": "hub", "scope": "x:y:z"},
                )
            ],
        ),
        (["Basic"], [Challenge("basic", {})]),
        (['BASIC Realm="a, b"'], [Challenge("basic", {"realm": "a, b"})]),
        (["Bearer realm=https://a.example"], [Challenge("bearer", {"realm": "https://a.example"})]),
        ([r'Bearer realm="a\"b"'], [Challenge("bearer", {"realm": 'a"b'})]),
        (
            ['Bearer realm="one", Basic realm="two"'],
            [Challenge("bearer", {"realm": "one"}), Challenge("basic", {"realm": "two"})],
        ),
        (
            ['Bearer realm="one"', "Basic"],
            [Challenge("bearer", {"realm": "one"}), Challenge("basic", {})],
        ),
        (['Bearer realm="first",realm="second"'], [Challenge("bearer", {"realm": "first"})]),
        ([], []),
        (["=,=,"], []),
    ],
)
def test_challenges_are_read_as_the_standard_has_them(
    headers: list[str], challenges: list[Challenge]
) -> None:
    assert parse_challenges(headers) == challenges


@given(st.lists(st.text(), max_size=8))
def test_no_header_makes_the_reader_fail(headers: list[str]) -> None:
    parse_challenges(headers)


@pytest.mark.parametrize("piece", ["a ", "a=", 'a="', '\\"', "a=b,", " ", ","])
def test_long_hostile_headers_are_read_at_once(piece: str) -> None:
    parse_challenges(["Bearer " + piece * 1_000_000] * 10)
