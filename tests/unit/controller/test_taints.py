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
from trainseal.controller.taints import FOUND_LATE, ruling, run_taint, taint_of

SECOND = timedelta(seconds=1)
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


def test_a_run_on_which_nothing_was_found_is_not_tainted() -> None:
    assert run_taint(None, [], NOW) is None


@pytest.mark.parametrize("severity", ["Warning", "Critical"])
def test_a_finding_taints_from_when_it_was_seen(severity: str) -> None:
    found = run_taint(None, [seen(severity=severity)], NOW + 5 * SECOND)
    assert found is not None
    assert (found.since, found.finding, found.users) == (NOW, "file.changed", ["mallory"])


def test_a_finding_that_only_informs_taints_nothing() -> None:
    assert run_taint(None, [seen(severity="Info", id="pod.evicted")], NOW) is None


@pytest.mark.parametrize(
    "finding", ["pod.killed", "pod.deleted", "pod.unrecorded", "watch.blind", "watch.misreported"]
)
def test_what_says_nothing_of_what_was_computed_taints_nothing(finding: str) -> None:
    assert run_taint(None, [seen(id=finding, severity="Critical")], NOW) is None


def test_an_unproved_finding_taints_nothing() -> None:
    assert run_taint(None, [seen(proved=False)], NOW) is None


def test_the_first_finding_counts_whatever_came_to_be_known_first() -> None:
    later = run_taint(None, [seen(first_time=NOW + 60 * SECOND)], NOW + 61 * SECOND)
    first = run_taint(later, [seen(first_time=NOW, id="env.loader")], NOW + 90 * SECOND)
    assert first is not None
    assert first.finding == "env.loader"
    assert first.since == NOW - FOUND_LATE["env.loader"]


def test_a_taint_stays_when_its_report_is_gone() -> None:
    assert run_taint(tainted(), [], NOW) == tainted()


def test_an_agent_whose_clock_is_ahead_makes_no_taint_later() -> None:
    found = run_taint(None, [seen(first_time=NOW + timedelta(hours=1))], NOW)
    assert found is not None
    assert found.since == NOW


def test_what_only_reading_again_finds_was_done_before_it_was_found() -> None:
    found = run_taint(None, [seen(id="tree.changed")], NOW)
    assert found is not None
    assert found.since == NOW - timedelta(minutes=10)


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
