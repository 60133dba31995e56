"""A signed job runs as often, and as long, as its signers allow."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from tests.e2e.lab import TEAM, Lab, Object
from tests.stage.signing import signed
from tests.stage.waiting import eventually


def bounded(lab: Lab, name: str, **validity: object) -> Object:
    """A job under bounds that no other run of these tests has signed."""
    job = lab.job(name, "finish.py")
    job["spec"]["validity"] = validity
    job["spec"]["config"]["parameters"]["nonce"] = secrets.token_hex(8)
    return signed(job, lab.alice)


def remains(lab: Lab, job: Object) -> str:
    """Names of what is left of a deleted job's run."""
    label = f"trainseal.dev/job={job['metadata']['name']}"
    return lab.admin("get", "jobs,pods,services", "-n", TEAM, "-l", label, "-o", "name")


def test_a_job_does_not_run_more_often_than_its_signers_allow(
    lab: Lab, apply: Callable[[Object], Object]
) -> None:
    job = bounded(lab, "twice", maxRuns=2)
    for run in (1, 2):
        apply(job)
        status = lab.wait_for_phase(job, "Succeeded")
        assert status["run"] == run
        lab.delete(job)
        eventually(lambda: not remains(lab, job), "the run's objects are gone")
    said = lab.refusal(job)
    assert "2 runs of this signed job" in said
    assert "at most 2" in said
    assert "higher maxRuns" in said


def test_a_job_does_not_start_after_the_time_its_signers_set(lab: Lab) -> None:
    def at(distance: timedelta) -> str:
        return (datetime.now(UTC) + distance).strftime("%Y-%m-%dT%H:%M:%SZ")

    said = lab.refusal(bounded(lab, "late", notAfter=at(-timedelta(minutes=1))))
    assert "has passed" in said
    assert "later notAfter" in said
    assert lab.accepts(bounded(lab, "early", notAfter=at(timedelta(days=1))))


def test_a_job_signed_for_another_cluster_is_refused(lab: Lab) -> None:
    uid = lab.admin("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")
    said = lab.refusal(bounded(lab, "foreign", cluster="another"))
    assert "signed for cluster another" in said
    assert lab.accepts(bounded(lab, "native", cluster=uid))
