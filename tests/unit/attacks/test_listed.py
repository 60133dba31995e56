"""What the field lists is carried out: each phrase by a case of the page, or a test elsewhere."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.attacks.listed import LISTED
from tests.attacks.test_attacks import CASES

_ROOT = Path(__file__).parents[3]
_PLACES = [
    pytest.param(place, id=f"{group}: {phrase}")
    for group, phrases in LISTED.items()
    for phrase, places in phrases.items()
    for place in places
]


def _is_there(place: str) -> bool:
    path, _, test = place.partition("::")
    if not test:
        return any(case.name == place for case in CASES)
    text = (_ROOT / path).read_text()
    return re.search(rf"^def {re.escape(test)}\b", text, re.MULTILINE) is not None


@pytest.mark.parametrize("place", _PLACES)
def test_a_listed_attack_is_carried_out_or_said_not_to_be(place: str) -> None:
    assert _is_there(place), f"no case or test of this name: {place}"


def test_a_name_that_is_no_cases_or_tests_would_show() -> None:
    assert not _is_there("bare GPU pods")
    assert not _is_there("tests/unit/attacks/test_listed.py::test_that_nobody_wrote")


def test_each_phrase_has_a_place() -> None:
    assert all(places for phrases in LISTED.values() for places in phrases.values())
