"""BreakGlasses in the webhook's memory: those that are valid, by run and user."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.sample_objects import break_glass
from tests.unit.world import NOW
from trainseal.admission.permits import Permits, kept

HOUR = timedelta(hours=1)
RUN = ("research", "char-lm-1")


def glass(name: str = "g", until: datetime = NOW + HOUR, **spec: Any) -> dict[str, Any]:
    obj = break_glass(name)
    obj["metadata"] |= {"namespace": "research", "creationTimestamp": NOW.isoformat()}
    obj["spec"] |= {"notAfter": until.isoformat(), **spec}
    return obj


def permits(*objects: dict[str, Any]) -> Permits:
    found = Permits(lambda: NOW)
    for obj in objects:
        found.listen("ADDED", ("research", obj["metadata"]["name"]), kept(obj))
    return found


def test_one_is_found_by_its_run_and_user_alone() -> None:
    (found,) = permits(glass()).of(*RUN, "ann")
    assert (found.name, found.approved_by) == ("g", "carol")
    assert found.ways == frozenset({"Exec"})
    assert (found.created, found.not_after) == (NOW, NOW + HOUR)
    assert permits(glass()).of("other", "char-lm-1", "ann") == ()
    assert permits(glass()).of("research", "char-lm-2", "ann") == ()
    assert permits(glass()).of(*RUN, "carol") == ()


def test_one_that_is_over_is_not_kept() -> None:
    assert permits(glass(until=NOW)).of(*RUN, "ann") == ()


def test_one_that_is_deleted_opens_nothing_any_more() -> None:
    found = permits(glass())
    found.listen("DELETED", ("research", "g"), kept(glass()))
    assert found.of(*RUN, "ann") == ()


@pytest.mark.parametrize(("part", "field"), [("metadata", "creationTimestamp"), ("spec", "user")])
def test_one_that_cannot_be_read_opens_nothing(part: str, field: str) -> None:
    broken = glass()
    found = Permits(lambda: NOW)
    del broken[part][field]
    found.listen("ADDED", ("research", "g"), kept(broken))
    assert found.of(*RUN, "ann") == ()


def test_those_that_are_over_go_when_they_are_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainseal.admission.permits._MANY", 3)
    clock = [NOW]
    found = Permits(lambda: clock[0])
    for number in range(3):
        found.listen("ADDED", ("research", f"g-{number}"), kept(glass(f"g-{number}")))
    clock[0] = NOW + 2 * HOUR
    late = glass("late", NOW + 3 * HOUR)
    found.listen("ADDED", ("research", "late"), kept(late))
    assert [p.name for p in found.of(*RUN, "ann")] == ["late"]
