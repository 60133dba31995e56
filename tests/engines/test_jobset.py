"""TrainingJobs that JobSet runs, with its own controller and webhooks."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.cluster import CommandError
from tests.e2e.lab import EDITOR, TEAM, Lab
from tests.e2e.reports import answered_by, condition
from tests.e2e.test_responses import edit, held, release
from tests.engines.runs import (
    Apply,
    finish,
    found_on,
    let_editor_edit,
    own_pod,
    running,
    suspend,
    tried,
    with_failing_server,
    with_server,
)
from tests.guides.ground import ADMIN, Ground
from tests.stage.jobs import trainer
from tests.stage.signing import signed
from tests.stage.waiting import eventually

Object = dict[str, Any]
MARK = "jobset.sigs.k8s.io"


@pytest.fixture(scope="module", autouse=True)
def editor_of_jobsets(lab: Lab) -> None:
    """Who edits may make and change JobSets as well: the role edit knows none."""
    let_editor_edit(lab, "jobsets", "jobset.x-k8s.io")


def test_a_signed_job_of_two_roles_runs_as_a_jobset_to_its_end(
    lab: Lab, ground: Ground, apply: Apply
) -> None:
    job = apply(signed(two_roles(lab, "pretrain", "finish.py"), lab.alice))
    status = lab.wait_for_phase(job, "Succeeded")
    assert jobset(lab, job)["status"]["terminalState"] == "Completed"
    assert len(lab.pods(job)) == 3
    ground.walk("how-to/engines.md", ADMIN).take("kubectl get jobset,jobs -n research -o name")
    seal = lab.get("sealedrun", status["sealedRun"])
    bound = [(o["role"], o["kind"], o["name"]) for o in seal["status"]["binding"]["objects"]]
    assert bound == [
        ("", "JobSet", "pretrain"),
        ("worker", "Job", "pretrain-worker-0"),
        ("server", "Job", "pretrain-server-0"),
    ]
    assert found_on(lab, job) == []


def test_a_job_that_was_changed_after_it_was_signed_is_refused(lab: Lab) -> None:
    job = signed(two_roles(lab, "set-changed", "finish.py"), lab.alice)
    trainer(job)["command"] = ["python3", "/workspace/other.py"]
    assert "does not" in lab.refusal(job) or "another" in lab.refusal(job)
    assert lab.accepts(signed(two_roles(lab, "set-changed", "finish.py"), lab.alice))


def test_a_run_is_suspended_and_resumed(lab: Lab, apply: Apply) -> None:
    job = apply(signed(two_roles(lab, "set-pauses"), lab.alice))
    lab.wait_for_phase(job, "Running")
    suspend(lab, job, True)
    lab.wait_for_phase(job, "Suspended")
    eventually(lambda: not running(lab, job), "its pods are gone", 90)
    assert jobset(lab, job)["spec"]["suspend"] is True
    assert [j["spec"]["suspend"] for j in child_jobs(lab, job)] == [True, True]
    suspend(lab, job, False)
    lab.wait_for_phase(job, "Running")
    finish(lab, job)
    lab.wait_for_phase(job, "Succeeded")
    assert found_on(lab, job) == []


def test_a_run_goes_with_its_training_job(lab: Lab, apply: Apply) -> None:
    job = apply(signed(two_roles(lab, "set-goes"), lab.alice))
    lab.wait_for_phase(job, "Running")
    lab.kubectl("delete", "trainingjob", "set-goes", "--wait=false")
    eventually(
        lambda: not lab.pods(job) and not child_jobs(lab, job),
        "JobSet, Jobs and pods are gone",
        120,
    )


def test_a_held_run_stands_until_somebody_releases_it(lab: Lab, apply: Apply) -> None:
    with answered_by(lab, "Suspend"):
        job = apply(signed(two_roles(lab, "set-held"), lab.alice))
        lab.wait_for_phase(job, "Running")
        worker = running(lab, job)[0]
        eventually(lambda: condition(lab, worker, "Watching") == "True", "its agent watches")
        edit(lab, worker)
        eventually(lambda: held(lab, job) == "Suspend", "the run is held")
        lab.wait_for_phase(job, "Suspended")
        eventually(lambda: not running(lab, job), "its pods are gone", 90)
        assert jobset(lab, job)["spec"]["suspend"] is True
        release(lab, job)
        lab.wait_for_phase(job, "Running")
        finish(lab, job)
        lab.wait_for_phase(job, "Succeeded")


def test_a_run_whose_worker_fails_too_often_fails_and_nothing_of_it_is_a_finding(
    lab: Lab, apply: Apply
) -> None:
    """JobSet's controller then takes the other role's Job away."""
    job = with_failing_server(lab, two_roles(lab, "set-fails"))
    apply(signed(job, lab.alice))
    status = lab.wait_for_phase(job, "Failed", 300)
    assert "set-fails-server-0" in status["message"]
    eventually(lambda: not running(lab, job), "no pod is left", 90)
    assert jobset(lab, job)["status"]["terminalState"] == "Failed"
    # What was found is told within a minute.
    assert found_on(lab, job) == []


@pytest.fixture(scope="module")
def running_job(lab: Lab) -> Object:
    """A run of one worker that is on."""
    job = lab.job("set-guarded")
    job["spec"]["engine"] = "JobSet"
    job = signed(job, lab.alice)
    lab.apply(job)
    lab.wait_for_phase(job, "Running")
    return job


def test_nobody_makes_a_job_of_the_jobset_beside_its_controller(
    lab: Lab, running_job: Object
) -> None:
    """With the owner, the labels and the pods of a real one."""
    (real,) = child_jobs(lab, running_job)
    assert real["metadata"]["ownerReferences"][0]["kind"] == "JobSet", "the controller's was let in"
    forged = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": "set-guarded-worker-1",
            "namespace": TEAM,
            "labels": real["metadata"]["labels"],
            "ownerReferences": real["metadata"]["ownerReferences"],
        },
        "spec": {**copy.deepcopy(real["spec"]), "suspend": False},
    }
    said = lab.refusal(forged)
    assert "trainseal-jobs" in said
    assert EDITOR in said


def test_nobody_has_jobsets_controller_make_one(lab: Lab, running_job: Object) -> None:
    """A JobSet of the editor's own, whose Jobs would pass for the run's."""
    real = jobset(lab, running_job)
    forged = own_jobset(lab, real["spec"]["replicatedJobs"])
    said = lab.refusal(forged)
    assert "trainseal-jobsets" in said
    assert EDITOR in said
    plain = copy.deepcopy(real["spec"]["replicatedJobs"])
    for part in plain:
        del part["template"]["metadata"]
        part["template"]["spec"] = {"template": {"spec": own_pod(lab, gpus=1)}}
    with pytest.raises(CommandError, match="asks for GPUs"):
        lab.create(own_jobset(lab, plain))
    eventually(lambda: "JobSet mallorys" in tried(lab), "it is on record", 20)
    for part in plain:
        part["template"]["spec"]["template"]["spec"] = own_pod(lab, gpus=0)
    assert lab.accepts(own_jobset(lab, plain))


@pytest.mark.parametrize(
    ("kind", "name", "patch"),
    [
        ("jobset", "set-guarded", {"spec": {"suspend": True}}),
        ("jobset", "set-guarded", {"metadata": {"labels": {"trainseal.dev/seal": "other"}}}),
        ("jobset", "set-guarded", {"metadata": {"finalizers": ["example.org/stay"]}}),
        ("job", "set-guarded-worker-0", {"spec": {"suspend": True}}),
        ("job", "set-guarded-worker-0", {"spec": {"parallelism": 2}}),
        ("job", "set-guarded-worker-0", {"metadata": {"ownerReferences": None}}),
        (
            "job",
            "set-guarded-worker-0",
            {"metadata": {"labels": {f"{MARK}/restart-attempt": "x"}}},
        ),
        (
            "job",
            "set-guarded-worker-0",
            {"metadata": {"labels": {f"{MARK}/replicatedjob-name": None}}},
        ),
    ],
)
def test_nobody_changes_the_jobset_or_its_jobs(
    lab: Lab, running_job: Object, kind: str, name: str, patch: Object
) -> None:
    with pytest.raises(CommandError, match="belongs to TrainSeal"):
        lab.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps(patch))
    lab.kubectl(
        "patch", kind, name, "--type=merge", "-p", '{"metadata":{"annotations":{"note":"mine"}}}'
    )
    assert lab.status(running_job)["phase"] == "Running"


def test_nobody_says_for_its_controller_that_a_jobset_has_ended(
    lab: Lab, running_job: Object
) -> None:
    done = {"type": "Completed", "status": "True", "reason": "Mallory", "message": "done"}
    done["lastTransitionTime"] = "2026-11-23T12:00:00Z"
    patch = json.dumps({"status": {"conditions": [done]}})
    words = ("patch", "jobset", "set-guarded", "--subresource=status", "--type=merge", "-p", patch)
    with pytest.raises(CommandError, match="found a change of its status by"):
        lab.kubectl(*words)
    assert lab.status(running_job)["phase"] == "Running"


def test_a_job_that_somebody_deletes_is_not_made_again_for_the_run(lab: Lab, apply: Apply) -> None:
    """JobSet's controller makes another; no pod of it is let in, and the run is over."""
    job = apply(signed(two_roles(lab, "set-loses"), lab.alice))
    lab.wait_for_phase(job, "Running")
    before = {p["metadata"]["name"] for p in lab.pods(job)}
    lab.kubectl("delete", "job", "set-loses-server-0", "--wait=false")
    status = lab.wait_for_phase(job, "Failed")
    assert "set-loses-server-0 " in status["message"]
    eventually(lambda: not running(lab, job), "no pod is left", 90)
    assert {p["metadata"]["name"] for p in lab.pods(job)} <= before
    eventually(
        lambda: "object.deleted" in found_on(lab, job),
        "the deletion is a finding",
        90,
    )


def two_roles(lab: Lab, name: str, script: str = "wait.py", engine: str = "JobSet") -> Object:
    """Two workers and a server."""
    job = lab.job(name, script)
    job["spec"]["engine"] = engine
    return with_server(job)


def own_jobset(lab: Lab, parts: list[Object]) -> Object:
    """The editor's."""
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {"name": "mallorys", "namespace": TEAM},
        "spec": {"replicatedJobs": parts},
    }


def jobset(lab: Lab, job: Object) -> Object:
    """The run's JobSet."""
    name = job["metadata"]["name"]
    found: Object = json.loads(lab.admin("get", "jobset", name, "-n", TEAM, "-o", "json"))
    return found


def child_jobs(lab: Lab, job: Object) -> list[Object]:
    """What JobSet's controller made."""
    return lab.listed("jobs", labels=f"trainseal.dev/job={job['metadata']['name']}")
