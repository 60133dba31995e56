"""Which checkpoints are tainted, and who signs them off."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest

from tests.sample_objects import checkpoint
from tests.unit.controller.test_holds import SEAL, seen
from tests.unit.world import NOW
from trainseal.api.checkpoint import Checkpoint, CheckpointSpec
from trainseal.api.holdrelease import HoldRelease
from trainseal.api.sealedrun import RunTaint
from trainseal.controller.sightings import Sighting
from trainseal.controller.taints import ruling, run_taint, taint_of

SECOND = timedelta(seconds=1)
BEGAN = NOW - timedelta(days=3)
NAME = "w-0-aaaaaaaa-0123456789ab"


def spec(completed: datetime = NOW, **file: Any) -> CheckpointSpec:
    obj = checkpoint()
    obj["spec"]["completed"] = completed.isoformat()
    obj["spec"]["files"] = [obj["spec"]["files"][0] | file]
    return Checkpoint.parse(obj).spec


def tainted(since: datetime = NOW, **more: Any) -> RunTaint:
    fields = {"since": since, "finding": "file.changed", "severity": "Critical", "message": "x"}
    return RunTaint(**fields | more)


def release(*names: str, user: str = "oncall", name: str = "r-1") -> HoldRelease:
    wire = {"sealedRun": SEAL, "checkpoints": list(names), "user": user, "reason": "looked at"}
    return HoldRelease.parse({"metadata": {"name": name}, "spec": wire})


# Runs --------------------------------------------------------------------------------------------


def run_tainted(
    *sightings: Sighting, before: RunTaint | None = None, now: datetime = NOW
) -> RunTaint | None:
    return run_taint(before, sightings, now, BEGAN)


def told(**changed: Any) -> Sighting:
    """By an event, as it happened."""
    return seen(**{"not_before": changed.get("first_time", NOW), **changed})


def test_a_run_on_which_nothing_was_found_is_not_tainted() -> None:
    assert run_tainted() is None


@pytest.mark.parametrize("severity", ["Warning", "Critical"])
def test_what_an_event_told_taints_from_when_it_was_seen(severity: str) -> None:
    found = run_tainted(told(severity=severity), now=NOW + 5 * SECOND)
    assert found is not None
    assert (found.since, found.finding, found.users) == (NOW, "file.changed", ["mallory"])


def test_a_finding_that_only_informs_taints_nothing() -> None:
    assert run_tainted(seen(severity="Info", id="pod.evicted")) is None


@pytest.mark.parametrize(
    "finding", ["pod.killed", "pod.deleted", "pod.unrecorded", "watch.blind", "watch.misreported"]
)
def test_what_says_nothing_of_what_was_computed_taints_nothing(finding: str) -> None:
    assert run_tainted(seen(id=finding, severity="Critical")) is None


def test_an_unproved_finding_taints_nothing() -> None:
    assert run_tainted(seen(proved=False)) is None


def test_the_first_finding_counts_whatever_came_to_be_known_first() -> None:
    later = run_tainted(told(first_time=NOW + 60 * SECOND), now=NOW + 61 * SECOND)
    first = run_tainted(told(id="env.loader"), before=later, now=NOW + 90 * SECOND)
    assert first is not None
    assert (first.finding, first.since) == ("env.loader", NOW)


def test_a_taint_stays_when_its_report_is_gone() -> None:
    assert run_tainted(before=tainted()) == tainted()


@pytest.mark.parametrize("id_", ["file.changed", "exec.foreign", "map.foreign", "tree.changed"])
def test_what_looking_finds_was_done_since_an_earlier_look(id_: str) -> None:
    found = run_tainted(seen(id=id_, not_before=NOW - 70 * SECOND))
    assert found is not None
    assert found.since == NOW - 70 * SECOND


@pytest.mark.parametrize(
    "id_", ["rank.differs", "gpu.foreign", "object.changed", "checkpoint.replaced"]
)
def test_what_nobody_can_date_was_done_at_any_time_of_the_run(id_: str) -> None:
    found = run_tainted(seen(id=id_))
    assert found is not None
    assert found.since == BEGAN


def test_a_checkpoint_between_an_act_and_its_late_finding_is_tainted() -> None:
    """One rank is given excepted code, saves half a minute later, and is then found to differ."""
    run = run_tainted(seen(id="rank.differs", severity="Warning"))
    assert taint_of(spec(NOW - 74 * SECOND), NOW - 70 * SECOND, run) is not None


def test_a_checkpoint_before_what_an_event_told_is_clean() -> None:
    assert taint_of(spec(NOW - 2 * SECOND), NOW - SECOND, run_tainted(told())) is None


def test_an_agent_whose_clock_is_ahead_makes_no_taint_later() -> None:
    ahead = NOW + timedelta(hours=1)
    found = run_tainted(seen(first_time=ahead, not_before=ahead - 70 * SECOND))
    assert found is not None
    assert found.since == NOW - 70 * SECOND


# Checkpoints -------------------------------------------------------------------------------------


def test_a_checkpoint_of_a_run_without_findings_is_clean() -> None:
    assert taint_of(spec(), NOW, None) is None


def test_a_checkpoint_that_is_older_by_all_clocks_is_clean() -> None:
    assert taint_of(spec(NOW - 9 * SECOND), NOW - SECOND, tainted()) is None


@pytest.mark.parametrize(
    ("completed", "created"),
    [
        (NOW + SECOND, NOW + 2 * SECOND),
        (NOW, NOW),
        (NOW - timedelta(hours=1), NOW + SECOND),  # the agent says so
        (NOW + timedelta(hours=1), NOW - SECOND),
    ],
)
def test_one_that_may_have_come_after_the_finding_is_tainted(
    completed: datetime, created: datetime
) -> None:
    found = taint_of(spec(completed), created, tainted())
    assert found is not None
    assert (found.finding, found.since) == ("file.changed", NOW)


@pytest.mark.parametrize("writer", ["Session", "Outside"])
def test_what_the_trainer_did_not_write_is_tainted_in_any_run(writer: str) -> None:
    found = taint_of(spec(writer=writer), NOW, None)
    assert found is not None
    assert found.finding == "checkpoint.replaced"
    assert "step-20/model.safetensors" in found.message


@pytest.mark.parametrize("writer", ["Trainer", "Container", "Unwatched"])
def test_what_the_pod_wrote_is_not(writer: str) -> None:
    assert taint_of(spec(writer=writer), NOW, None) is None


# Signing off -------------------------------------------------------------------------------------


def test_a_release_signs_off_what_it_names_and_nothing_else() -> None:
    found = ruling(NAME, spec().files, tainted(), [release(NAME)])
    assert found.accepted is not None
    assert (found.accepted.user, found.accepted.reason) == ("oncall", "looked at")
    assert ruling("another", spec().files, tainted(), [release(NAME)]).accepted is None


def test_a_release_of_a_hold_signs_nothing_off() -> None:
    wire = {"sealedRun": SEAL, "hold": "0" * 16, "user": "oncall", "reason": "seen"}
    hold = HoldRelease.parse({"metadata": {"name": "r"}, "spec": wire})
    assert ruling(NAME, spec().files, tainted(), [hold]).accepted is None


def test_whom_a_finding_names_signs_nothing_off_and_somebody_else_does() -> None:
    run = tainted(users=["mallory"])
    own = release(NAME, user="mallory", name="a")
    found = ruling(NAME, spec().files, run, [own])
    assert found.accepted is None
    assert "mallory" in str(found.refused)
    assert ruling(NAME, spec().files, run, [own, release(NAME, name="b")]).accepted is not None


def test_who_wrote_the_file_in_a_session_does_not_sign_it_off() -> None:
    files = spec(writer="Session", user="mallory").files
    assert ruling(NAME, files, None, [release(NAME, user="mallory")]).refused is not None
    assert ruling(NAME, files, None, [release(NAME)]).accepted is not None
