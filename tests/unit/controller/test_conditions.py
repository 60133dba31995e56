"""Conditions as Kubernetes does them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit import world
from trainseal.api.model import Condition
from trainseal.controller.conditions import MAX_MESSAGE, Wanted, merge, status_of

LATER = world.NOW + timedelta(hours=1)
STATUS = st.sampled_from(["True", "False", "Unknown"])
WANTED = st.builds(Wanted, st.sampled_from("ABC"), STATUS, st.just("Reason"), st.text(max_size=5))


def times(conditions: Any) -> dict[str, str]:
    return {c["type"]: c["lastTransitionTime"] for c in conditions}


def test_a_time_moves_only_when_its_status_does() -> None:
    first = merge(
        None, [Wanted("Sealed", "False", "Waiting"), Wanted("A", "True", "X")], 1, world.NOW
    )
    second = merge(first, [Wanted("Sealed", "False", "StillWaiting", "new words")], 2, LATER)
    assert times(second) == times(first)
    assert second[0]["reason"] == "StillWaiting"
    third = merge(second, [Wanted("Sealed", "True", "Bound")], 2, LATER)
    assert times(third) == {"Sealed": "2026-11-23T13:00:00Z", "A": "2026-11-23T12:00:00Z"}


@pytest.mark.parametrize("present", [None, "x", ["x"], [{"type": "A", "status": "True"}]])
def test_a_status_that_somebody_mangled_is_mended(present: Any) -> None:
    (found,) = merge(present, [Wanted("A", "True", "X")], 1, world.NOW)
    assert Condition.model_validate(found)


def test_a_long_message_is_cut() -> None:
    (found,) = merge(None, [Wanted("A", "True", "X", "m" * 9999)], 1, world.NOW)
    assert len(str(found["message"])) == MAX_MESSAGE


@given(st.lists(WANTED), st.lists(WANTED))
def test_each_type_stands_once_and_saying_it_again_changes_nothing(
    before: list[Wanted], after: list[Wanted]
) -> None:
    once = merge(merge(None, before, 1, world.NOW), after, 2, LATER)
    types = [str(c["type"]) for c in once]
    assert sorted(set(types)) == sorted(types)
    last = {w.type: w.status for w in [*before, *after]}
    assert {c["type"]: c["status"] for c in once} == last
    again = [w for w in after if last[w.type] == w.status]
    assert times(merge(once, again, 2, LATER + timedelta(hours=1))) == times(once)


def test_an_object_without_a_status_has_an_empty_one() -> None:
    assert status_of({}) == status_of({"status": None}) == {}
