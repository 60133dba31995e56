"""What a run's phase is made of."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit import world
from trainseal.api.trainingjob import RoleStatus, TrainingJob
from trainseal.controller.execution import at_work


def job(phase: str | None) -> TrainingJob:
    obj: dict[str, Any] = world.job_object()
    if phase is not None:
        obj["status"] = {"phase": phase}
    return TrainingJob.parse(obj)


def role(**counts: int) -> RoleStatus:
    known = {"active": 0, "ready": 0, "succeeded": 0, "failed": 0}
    return RoleStatus(name="worker", replicas=2, **{**known, **counts})


@pytest.mark.parametrize("phase", [None, "Sealed", "Suspended", "Running"])
def test_a_run_is_on_once_a_worker_is_ready_and_when_one_has_succeeded(phase: str | None) -> None:
    assert at_work(job(phase), [role(active=2, ready=1)])
    assert at_work(job(phase), [role(active=1, succeeded=1)])


def test_a_run_whose_last_workers_end_is_still_on() -> None:
    assert at_work(job("Running"), [role(active=2)])


@pytest.mark.parametrize("phase", [None, "Sealed", "Suspended"])
def test_a_run_that_waits_for_its_workers_is_not_on_yet(phase: str | None) -> None:
    assert not at_work(job(phase), [role(active=2)])


def test_a_run_without_workers_is_not_on() -> None:
    assert not at_work(job("Running"), [role(failed=1)])
