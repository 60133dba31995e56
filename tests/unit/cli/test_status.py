"""`trainseal status`: what was verified, who signed, who asked, what runs."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.unit import world
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_kube import FakeKube, connecting_to
from trainseal.cluster import api
from trainseal.cluster.api import KubeError
from trainseal.controller.sealing import artifacts

NAMESPACE = "/apis/trainseal.dev/v1alpha1/namespaces/research"
JOB = f"{NAMESPACE}/trainingjobs/char-lm"


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch) -> FakeKube:
    """A sealed run of two workers, one of which the gate refused."""
    sealed = world.sealed_world()
    seal, job = sealed.seal, sealed.job
    name = seal["metadata"]["name"]
    job["status"] = {
        "phase": "Running",
        "message": "1/2 workers ready",
        "verified": "verified",
        "jobDigest": seal["spec"]["job"]["digest"],
        "sealedRun": name,
        "run": 1,
        "requester": "bob@example.org",
        "signers": "Alice",
        "roles": [{"name": "worker", "replicas": 2, "ready": 1, "failed": 1}],
        "artifacts": seal["spec"]["artifacts"],
    }
    good, bad = (pod(sealed, index) for index in (0, 1))
    bad["status"] = {
        "phase": "Failed",
        "initContainerStatuses": [
            {
                "name": "trainseal-gate",
                "state": {"terminated": {"exitCode": 1, "message": "train.py: changed\n"}},
            }
        ],
    }
    found = FakeKube(
        {
            JOB: job,
            f"{NAMESPACE}/sealedruns/{name}": seal,
            "/api/v1/namespaces/research/pods": {"items": [good, bad]},
        }
    )
    monkeypatch.setattr(api, "connect", connecting_to(found))
    return found


def pod(sealed: world.World, index: int) -> Any:
    found = sealed.pod(index)
    found["metadata"]["name"] = f"char-lm-worker-{index}"
    found["status"] = {"phase": "Running"}
    return found


def test_it_tells_what_was_verified_who_signed_who_asked_and_what_runs(
    trainseal: Run, kube: FakeKube
) -> None:
    answer = trainseal("status", "char-lm", "-n", "research")
    assert answer.code == 0
    for words in (
        "research/char-lm Running",
        "1/2 workers ready",
        "asked by   bob@example.org at 2026-11-23T12:00:00Z",
        "✓ job research/char-lm signed by Alice",
        f"{world.IMAGE}",
        "policy     research (Enforce)",
        "1/2 ready, 1 failed",
        "gate: train.py: changed",
    ):
        assert words in answer.out


def test_programs_get_the_same_as_json(trainseal: Run, kube: FakeKube) -> None:
    found = json.loads(trainseal("status", "char-lm", "-n", "research", "-o", "json").out)
    assert found["phase"] == "Running"
    assert found["requester"] == "bob@example.org"
    assert [a["outcome"] for a in found["artifacts"]] == ["verified"] * 3
    assert found["pods"][1]["gate"] == "gate: train.py: changed"


def test_a_refused_job_shows_each_artifacts_reason(trainseal: Run, kube: FakeKube) -> None:
    refused = world.verify(world.job_object())
    kube.objects[JOB]["status"] = {
        "phase": "Refused",
        "message": "",
        "artifacts": [a.wire() for a in artifacts(refused.verdicts)],
    }
    answer = trainseal("status", "char-lm", "-n", "research")
    assert "✗ job research/char-lm" in answer.out
    assert "no signature found" in answer.out


def test_a_job_nobody_looked_at_yet_is_pending(trainseal: Run, kube: FakeKube) -> None:
    del kube.objects[JOB]["status"]
    assert "research/char-lm Pending" in trainseal("status", "char-lm", "-n", "research").out


def test_a_job_that_is_not_there_is_said_so(trainseal: Run, kube: FakeKube) -> None:
    answer = trainseal("status", "other", "-n", "research")
    assert answer.code == 1
    assert "no TrainingJob other in namespace research" in answer.err


def test_what_one_may_not_see_is_said_and_the_rest_shown(trainseal: Run, kube: FakeKube) -> None:
    path = "/api/v1/namespaces/research/pods"
    kube.failures[path] = KubeError(403, "Forbidden", "you may not list pods")
    answer = trainseal("status", "char-lm", "-n", "research")
    assert answer.code == 0
    assert "not shown: the pods: you may not list pods" in answer.out


def test_a_cluster_that_is_away_is_undetermined(trainseal: Run, kube: FakeKube) -> None:
    kube.failures[JOB] = KubeError(0, "Unreachable", "connection refused")
    assert trainseal("status", "char-lm", "-n", "research").code == 2


def test_watched_it_says_each_step_once_until_the_run_ends(trainseal: Run, kube: FakeKube) -> None:
    sealed = {"phase": "Sealed", "message": "waiting for its pods"}
    kube.states = [{}, sealed, sealed, {"phase": "Succeeded", "message": "all workers completed"}]
    answer = trainseal("status", "char-lm", "-n", "research", "--watch")
    assert answer.out.splitlines() == [
        "Pending",
        "Sealed: waiting for its pods",
        "Succeeded: all workers completed",
    ]


def test_a_watched_job_that_is_deleted_ends_the_watch(trainseal: Run, kube: FakeKube) -> None:
    suspended = {**kube.objects[JOB], "status": {"phase": "Suspended"}}
    kube.events = [("MODIFIED", suspended), ("BOOKMARK", {}), ("DELETED", suspended)]
    answer = trainseal("status", "char-lm", "-n", "research", "--watch")
    assert answer.code == 1
    assert answer.out.splitlines() == ["Running: 1/2 workers ready", "Suspended"]
