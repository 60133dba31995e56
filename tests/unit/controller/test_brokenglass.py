"""Who got in by a BreakGlass: found, and what of it waits for another person's review."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.sample_objects import break_glass
from tests.unit.controller.test_holds import SEAL, finding
from tests.unit.controller.test_taints import tainted
from tests.unit.world import NOW
from trainseal.api.breakglass import BreakGlass
from trainseal.api.holdrelease import HoldRelease
from trainseal.api.sealedrun import MAX_BROKEN_GLASS, BrokenGlass
from trainseal.controller.brokenglass import unreviewed, uses, with_glass
from trainseal.controller.disturbances import Record
from trainseal.controller.holds import next_hold
from trainseal.controller.sightings import Sighting
from trainseal.controller.taints import run_taint
from trainseal.provenance.drift import CompiledDrift

SECOND = timedelta(seconds=1)
GLASS = {"g-1": BreakGlass.parse(break_glass("g-1"))}


def record(name: str = "r-1", at: datetime = NOW, **changed: Any) -> Record:
    fields: dict[str, Any] = {
        "name": name,
        "pod": "char-lm-worker-0",
        "pod_uid": "u",
        "node": "n1",
        "action": "Exec",
        "user": "ann",
        "time": at,
        "break_glass": "g-1",
    }
    return Record(**fields | changed)


def used(name: str = "g-1", first: datetime = NOW, last: datetime = NOW) -> Sighting:
    """The finding on it."""
    evidence = {"breakGlass": name, "firstUse": first.isoformat(), "lastUse": last.isoformat()}
    found = finding(
        id="access.broke-glass",
        key=hashlib.sha256(name.encode()).hexdigest()[:16],
        severity="Warning",
        user="ann",
        evidence=evidence,
    )
    return Sighting(SEAL, "", found)


def waits(name: str = "g-1", since: datetime = NOW, last: datetime = NOW) -> BrokenGlass:
    return BrokenGlass(name=name, user="ann", since=since, last_use=last)


def review(at: datetime = NOW, name: str = "g-1", user: str = "carol") -> HoldRelease:
    spec = {"sealedRun": SEAL, "breakGlass": name, "user": user, "reason": "looked"}
    metadata = {"name": "r", "creationTimestamp": at.isoformat()}
    return HoldRelease.parse({"metadata": metadata, "spec": spec})


# Findings ---------------------------------------------------------------------------------------


def test_each_break_glass_that_was_used_is_one_finding() -> None:
    records = [
        record("r-2", NOW + SECOND, action="Attach", pod="char-lm-worker-1"),
        record(),
        record("r-3", break_glass=""),
        record("r-4", break_glass="g-0"),
    ]
    gone, found = uses(GLASS, records)
    assert found.message == (
        "ann got into char-lm-worker-0, char-lm-worker-1 by BreakGlass g-1, approved by carol: "
        "hangs"
    )
    assert (found.user, found.access_record, found.occasion) == ("ann", "r-2", "r-2")
    assert found.evidence["uses"] == "2"
    assert found.evidence["ways"] == "Attach, Exec"
    assert found.not_before == NOW
    assert "approved by somebody who is not known any more" in gone.message


def test_who_only_resized_did_not_get_in() -> None:
    (resized,) = uses(GLASS, [record(action="Resize")])
    assert resized.message.startswith("ann resized char-lm-worker-0 by BreakGlass g-1")
    (both,) = uses(GLASS, [record(action="Resize"), record("r-2")])
    assert both.message.startswith("ann got into char-lm-worker-0 by BreakGlass g-1")


def test_one_that_nobody_used_is_none() -> None:
    assert not list(uses(GLASS, [record(break_glass="")]))


def test_it_holds_no_run_and_taints_none_for_good() -> None:
    freezes = CompiledDrift(responses=(("Warning", "Freeze"),))
    assert next_hold(None, [used()], (), [freezes], NOW) is None
    assert run_taint(None, [used()], NOW, NOW) is None


# Review -----------------------------------------------------------------------------------------


def test_a_use_waits_until_somebody_else_has_reviewed_it() -> None:
    assert unreviewed([], [used()], []) == [waits()]
    assert unreviewed([], [used()], [review(user="ann")]) == [waits()]
    assert unreviewed([], [used()], [review(name="g-2")]) == [waits()]
    assert unreviewed([], [used()], [review(user="ann"), review()]) == []


def test_a_review_does_not_cover_what_came_after_it() -> None:
    later = used(last=NOW + 5 * SECOND)
    (found,) = unreviewed([], [later], [review(NOW + 4 * SECOND)])
    assert found.last_use == NOW + 5 * SECOND
    assert unreviewed([], [later], [review(NOW + 5 * SECOND)]) == []


def test_a_use_waits_also_when_its_report_is_gone() -> None:
    assert unreviewed([waits()], [], []) == [waits()]
    assert unreviewed([waits()], [], [review()]) == []


def test_what_is_known_of_a_use_never_shrinks() -> None:
    before = waits(since=NOW - SECOND, last=NOW + SECOND)
    assert unreviewed([before], [used()], []) == [before]


def test_those_that_find_no_room_come_after_the_review_of_others() -> None:
    many = [used(f"g-{n}", first=NOW + n * SECOND) for n in range(MAX_BROKEN_GLASS + 2)]
    first = unreviewed([], many, [])
    assert [g.name for g in first] == [f"g-{n}" for n in range(MAX_BROKEN_GLASS)]
    reviewed = [review(NOW + 60 * SECOND, g.name) for g in first]
    assert [g.name for g in unreviewed(first, many, reviewed)] == ["g-8", "g-9"]


@pytest.mark.parametrize("field", ["breakGlass", "firstUse", "lastUse"])
def test_a_finding_that_lacks_something_is_none_of_these(field: str) -> None:
    whole = used()
    evidence = {k: v for k, v in (whole.finding.evidence or {}).items() if k != field}
    broken = whole.finding.model_copy(update={"evidence": evidence})
    assert unreviewed([], [Sighting(SEAL, "", broken)], []) == []
    assert unreviewed([], [Sighting(SEAL, "", whole.finding, proved=False)], []) == []


# Taint ------------------------------------------------------------------------------------------


def test_a_run_is_tainted_from_the_first_use_while_it_waits() -> None:
    found = with_glass(None, [waits(since=NOW + SECOND / 2)])
    assert found is not None
    assert (found.since, found.finding) == (NOW, "access.broke-glass")
    assert found.users == ["ann"]
    assert with_glass(None, []) is None


def test_the_earlier_taint_counts_and_everybody_who_is_named_signs_nothing_off() -> None:
    later = tainted(NOW + 9 * SECOND, users=["mallory"])
    found = with_glass(later, [waits()])
    assert found is not None
    assert (found.since, found.finding, found.users) == (
        NOW,
        "access.broke-glass",
        ["mallory", "ann"],
    )
    earlier = tainted(NOW - SECOND, users=["mallory"])
    found = with_glass(earlier, [waits()])
    assert found is not None
    assert (found.since, found.finding) == (earlier.since, "file.changed")
    assert found.users == ["mallory", "ann"]
