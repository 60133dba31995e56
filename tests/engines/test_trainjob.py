"""TrainingJobs that Kubeflow's trainer runs, by JobSets, with both controllers and webhooks."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from tests.cluster import CommandError
from tests.e2e.lab import EDITOR, TEAM, Lab
from tests.e2e.reports import answered_by, condition
from tests.e2e.test_responses import edit, held, release
from tests.engines.conftest import TRAINER_ACCOUNT
from tests.engines.runs import (
    Apply,
    finish,
    found_on,
    let_editor_edit,
    own_pod,
    running,
    suspend,
    with_failing_server,
)
from tests.engines.test_jobset import child_jobs, jobset, two_roles
from tests.guides.ground import ADMIN, Ground
from tests.stage.jobs import trainer
from tests.stage.signing import signed
from tests.stage.waiting import eventually

Object = dict[str, Any]
API = "trainer.kubeflow.org/v1alpha1"
GUARDED = "train-guarded"


@pytest.fixture(scope="module", autouse=True)
def editor_of_trainjobs(lab: Lab) -> None:
    """Who edits may make and change all that a TrainJob is made of: the role edit knows none."""
    let_editor_edit(lab, "trainjobs", "trainer.kubeflow.org", "jobset.x-k8s.io")


def test_a_signed_job_of_two_roles_runs_as_a_trainjob_to_its_end(
    lab: Lab, ground: Ground, apply: Apply
) -> None:
    job = apply(signed(in_two_roles(lab, "pretrain", "finish.py"), lab.alice))
    status = lab.wait_for_phase(job, "Succeeded")
    eventually(lambda: ended(lab, job) == "Complete", "the trainer says so, too")
    pods = lab.pods(job)
    assert len(pods) == 3
    told = {e["name"] for p in pods for c in p["spec"]["containers"] for e in c["env"]}
    assert {"MASTER_ADDR", "WORLD_SIZE"} <= told
    assert not any(name.startswith("PET_") for name in told)
    ground.walk("how-to/engines.md", ADMIN).take(
        "kubectl get trainjob,trainingruntime,jobset,jobs -n research -o name"
    )
    seal = lab.get("sealedrun", status["sealedRun"])
    bound = [(o["role"], o["kind"], o["name"]) for o in seal["status"]["binding"]["objects"]]
    assert bound == [
        ("", "TrainJob", "pretrain"),
        ("", "TrainingRuntime", "trainseal-pretrain"),
        ("", "JobSet", "pretrain"),
        ("worker", "Job", "pretrain-worker-0"),
        ("server", "Job", "pretrain-server-0"),
    ]
    assert found_on(lab, job) == []


def test_a_job_that_was_changed_after_it_was_signed_is_refused(lab: Lab) -> None:
    job = signed(in_two_roles(lab, "train-changed", "finish.py"), lab.alice)
    trainer(job)["command"] = ["python3", "/workspace/other.py"]
    assert "does not" in lab.refusal(job) or "another" in lab.refusal(job)
    assert lab.accepts(signed(in_two_roles(lab, "train-changed", "finish.py"), lab.alice))


def test_a_run_is_suspended_placed_and_resumed(lab: Lab, apply: Apply) -> None:
    job = apply(signed(in_two_roles(lab, "train-pauses"), lab.alice))
    lab.wait_for_phase(job, "Running")
    suspend(lab, job, True)
    lab.wait_for_phase(job, "Suspended")
    eventually(lambda: not running(lab, job), "its pods are gone", 90)
    assert suspended(lab, job) == [True] * 4
    where = {"spec": {"scheduling": {"nodeSelector": {"kubernetes.io/os": "linux"}}}}
    patch = ("--type=merge", "-p", json.dumps(where))
    lab.kubectl("patch", "trainingjob", "train-pauses", *patch)
    eventually(lambda: placed(lab, job) == ["linux"] * 6, "all of it is placed")
    suspend(lab, job, False)
    lab.wait_for_phase(job, "Running")
    assert suspended(lab, job) == [False] * 4
    assert placed(lab, job) == ["linux"] * 6
    assert {p["spec"]["nodeSelector"]["kubernetes.io/os"] for p in running(lab, job)} == {"linux"}
    finish(lab, job)
    lab.wait_for_phase(job, "Succeeded")
    assert found_on(lab, job) == []


def test_a_run_goes_with_its_training_job(lab: Lab, apply: Apply) -> None:
    job = apply(signed(in_two_roles(lab, "train-goes"), lab.alice))
    lab.wait_for_phase(job, "Running")
    lab.kubectl("delete", "trainingjob", "train-goes", "--wait=false")
    eventually(
        lambda: not lab.pods(job) and not child_jobs(lab, job) and made(lab, job) == [],
        "TrainJob, runtime, JobSet, Jobs and pods are gone",
        120,
    )


def test_a_held_run_stands_until_somebody_releases_it(lab: Lab, apply: Apply) -> None:
    with answered_by(lab, "Suspend"):
        job = apply(signed(in_two_roles(lab, "train-held"), lab.alice))
        lab.wait_for_phase(job, "Running")
        worker = running(lab, job)[0]
        eventually(lambda: condition(lab, worker, "Watching") == "True", "its agent watches")
        edit(lab, worker)
        eventually(lambda: held(lab, job) == "Suspend", "the run is held")
        lab.wait_for_phase(job, "Suspended")
        eventually(lambda: not running(lab, job), "its pods are gone", 90)
        assert suspended(lab, job) == [True] * 4
        release(lab, job)
        lab.wait_for_phase(job, "Running")
        finish(lab, job)
        lab.wait_for_phase(job, "Succeeded")


def test_a_run_whose_worker_fails_too_often_fails_and_nothing_of_it_is_a_finding(
    lab: Lab, apply: Apply
) -> None:
    """JobSet's controller then takes the other role's Job away."""
    job = with_failing_server(lab, in_two_roles(lab, "train-fails"))
    apply(signed(job, lab.alice))
    status = lab.wait_for_phase(job, "Failed", 300)
    assert "train-fails-server-0" in status["message"]
    eventually(lambda: not running(lab, job), "no pod is left", 90)
    eventually(lambda: ended(lab, job) == "Failed", "the trainer says so, too")
    assert found_on(lab, job) == []


@pytest.fixture(scope="module")
def running_job(lab: Lab) -> Object:
    """A run of one worker that is on."""
    job = lab.job(GUARDED)
    job["spec"]["engine"] = "TrainJob"
    job = signed(job, lab.alice)
    lab.apply(job)
    lab.wait_for_phase(job, "Running")
    return job


OVER: Object = {
    "podSpecOverrides": [{"targetJobs": [{"name": "worker"}], "nodeSelector": {"a": "b"}}]
}


@pytest.mark.parametrize(
    ("kind", "name", "patch"),
    [
        ("trainjob", GUARDED, {"spec": {"suspend": True}}),
        ("trainjob", GUARDED, {"spec": {"suspend": True, **OVER}}),
        ("trainjob", GUARDED, {"spec": {"trainer": {"command": ["sh"]}}}),
        ("trainjob", GUARDED, {"spec": {"labels": {"trainseal.dev/seal": "other"}}}),
        ("trainjob", GUARDED, {"metadata": {"labels": {"trainseal.dev/seal": None}}}),
        ("trainjob", GUARDED, {"metadata": {"labels": {"kueue.x-k8s.io/queue-name": "mine"}}}),
        ("trainjob", GUARDED, {"metadata": {"finalizers": ["example.org/stay"]}}),
        ("trainjob", GUARDED, {"metadata": {"ownerReferences": None}}),
        ("trainingruntime", f"trainseal-{GUARDED}", {"spec": {"mlPolicy": {"numNodes": 9}}}),
        ("trainingruntime", f"trainseal-{GUARDED}", {"spec": {"template": {"spec": None}}}),
        ("trainingruntime", f"trainseal-{GUARDED}", {"metadata": {"labels": None}}),
        ("trainingruntime", f"trainseal-{GUARDED}", {"metadata": {"ownerReferences": None}}),
        ("jobset", GUARDED, {"spec": {"suspend": True}}),
        ("jobset", GUARDED, {"metadata": {"labels": {"trainseal.dev/job": None}}}),
        ("jobset", GUARDED, {"metadata": {"ownerReferences": None}}),
        ("job", f"{GUARDED}-worker-0", {"spec": {"parallelism": 2}}),
    ],
)
def test_nobody_changes_what_a_run_is_made_of(
    lab: Lab, running_job: Object, kind: str, name: str, patch: Object
) -> None:
    with pytest.raises(CommandError, match="belongs to TrainSeal"):
        lab.kubectl("patch", kind, name, "--type=merge", "-p", json.dumps(patch))
    lab.kubectl(
        "patch", kind, name, "--type=merge", "-p", '{"metadata":{"annotations":{"note":"mine"}}}'
    )
    assert lab.status(running_job)["phase"] == "Running"


@pytest.mark.parametrize(("kind", "type_"), [("trainjob", "Complete"), ("jobset", "Completed")])
def test_nobody_says_for_the_controllers_that_a_run_has_ended(
    lab: Lab, running_job: Object, kind: str, type_: str
) -> None:
    done = {"type": type_, "status": "True", "reason": "Mallory", "message": "done"}
    done["lastTransitionTime"] = "2026-11-23T12:00:00Z"
    patch = json.dumps({"status": {"conditions": [done]}})
    words = ("patch", kind, GUARDED, "--subresource=status", "--type=merge", "-p", patch)
    with pytest.raises(CommandError, match="found a change of its status by"):
        lab.kubectl(*words)
    assert lab.status(running_job)["phase"] == "Running"


def test_nobody_has_the_trainer_make_jobs_that_would_pass_for_a_runs(
    lab: Lab, running_job: Object
) -> None:
    """By the run's own runtime, by a copy of it, or by labels of a TrainJob."""
    for forged in (
        own_trainjob(f"trainseal-{GUARDED}"),
        own_trainjob("mine", labels={"trainseal.dev/seal": "forged"}),
        own_trainjob("mine", metadata={"trainseal.dev/job": GUARDED}),
        copy_of(lab.admin("get", "trainingruntime", f"trainseal-{GUARDED}", *IN_JSON), "mine"),
        own_runtime(lab, "trainseal-mine"),
    ):
        said = lab.refusal(forged)
        assert "trainseal-trainjobs" in said
        assert EDITOR in said
    forged = copy.deepcopy(jobset(lab, running_job))
    parts = forged["spec"]["replicatedJobs"]
    owners = forged["metadata"]["ownerReferences"]
    said = lab.refusal(
        {
            "apiVersion": "jobset.x-k8s.io/v1alpha2",
            "kind": "JobSet",
            "metadata": {"name": "mallorys", "namespace": TEAM, "ownerReferences": owners},
            "spec": {"replicatedJobs": parts},
        }
    )
    assert "trainseal-jobsets" in said


def test_a_trainjob_that_asks_for_gpus_is_no_way_around_signatures(
    lab: Lab, running_job: Object
) -> None:
    own = own_trainjob("mine")
    own["spec"]["trainer"] = {"resourcesPerNode": {"limits": {"nvidia.com/gpu": 1}}}
    assert "asks for GPUs" in lab.refusal(own)
    # One whose runtime asks for them is told so by an event: its JobSet is not made.
    lab.create(own_runtime(lab, "with-gpus", gpus=1))
    lab.create({**own_trainjob("with-gpus"), "metadata": {"name": "greedy", "namespace": TEAM}})
    eventually(lambda: "asks for GPUs" in events(lab, "greedy"), "its maker hears why")
    assert lab.admin("get", "jobset", "-n", TEAM, "greedy", "--ignore-not-found") == ""


def test_trainjobs_of_others_without_gpus_are_nobodys_business(
    lab: Lab, running_job: Object
) -> None:
    """The benign twin of the two above, from its runtime to its end."""
    lab.create(own_runtime(lab, "plain"))
    lab.create({**own_trainjob("plain"), "metadata": {"name": "plain", "namespace": TEAM}})
    lab.admin("wait", "-n", TEAM, "trainjob/plain", "--for=condition=Complete", "--timeout=240s")
    change = '{"spec":{"labels":{"team":"mine"}}}'
    lab.kubectl("patch", "trainjob", "plain", "--type=merge", "-p", change)


def test_a_jobset_that_somebody_deletes_is_not_made_again_for_the_run(
    lab: Lab, apply: Apply
) -> None:
    """The trainer makes another; no pod of it is let in, and the run is over."""
    job = apply(signed(in_two_roles(lab, "train-loses"), lab.alice))
    lab.wait_for_phase(job, "Running")
    before = {p["metadata"]["name"] for p in lab.pods(job)}
    lab.kubectl("delete", "jobset", "train-loses", "--wait=false")
    status = lab.wait_for_phase(job, "Failed")
    assert "train-loses" in status["message"]
    eventually(lambda: not running(lab, job), "no pod is left", 90)
    assert {p["metadata"]["name"] for p in lab.pods(job)} <= before
    eventually(
        lambda: "object.deleted" in found_on(lab, job),
        "the deletion is a finding",
        90,
    )


def test_the_trainers_account_is_there(lab: Lab) -> None:
    """Whom the chart lets make the JobSets of runs; `trainseal doctor` tells one that is not."""
    _, _, namespace, name = TRAINER_ACCOUNT.split(":")
    assert lab.admin("get", "serviceaccount", name, "-n", namespace, "-o", "name")


IN_JSON = ("-n", TEAM, "-o", "json")


def in_two_roles(lab: Lab, name: str, script: str = "wait.py") -> Object:
    """Two workers and a server."""
    return two_roles(lab, name, script, "TrainJob")


def own_trainjob(
    runtime: str, labels: Object | None = None, metadata: Object | None = None
) -> Object:
    """The editor's."""
    return {
        "apiVersion": API,
        "kind": "TrainJob",
        "metadata": {"name": "mallorys", "namespace": TEAM, "labels": metadata or {}},
        "spec": {
            "runtimeRef": {"name": runtime, "kind": "TrainingRuntime"},
            "labels": labels or {},
        },
    }


def own_runtime(lab: Lab, name: str, gpus: int = 0) -> Object:
    """The editor's, of a pod that ends at once."""
    pod = own_pod(lab, gpus, "node")
    pod["containers"][0]["command"] = ["true"]
    node = {"name": "node", "template": {"spec": {"template": {"spec": pod}}}}
    return {
        "apiVersion": API,
        "kind": "TrainingRuntime",
        "metadata": {"name": name, "namespace": TEAM},
        "spec": {"template": {"spec": {"replicatedJobs": [node]}}},
    }


def copy_of(text: str, name: str) -> Object:
    """What another object says, under another name and without labels of its own."""
    obj: Object = json.loads(text)
    return {**obj, "metadata": {"name": name, "namespace": TEAM}}


def trainjob(lab: Lab, job: Object) -> Object:
    """The run's TrainJob."""
    found: Object = json.loads(lab.admin("get", "trainjob", job["metadata"]["name"], *IN_JSON))
    return found


def runtime_of(lab: Lab, job: Object) -> Object:
    """The run's runtime."""
    name = f"trainseal-{job['metadata']['name']}"
    found: Object = json.loads(lab.admin("get", "trainingruntime", name, *IN_JSON))
    return found


def made(lab: Lab, job: Object) -> list[str]:
    """What there is of a run above its Jobs."""
    label = f"trainseal.dev/job={job['metadata']['name']}"
    kinds = "trainjobs,trainingruntimes,jobsets"
    return lab.admin("get", kinds, "-n", TEAM, "-l", label, "-o", "name").split()


def suspended(lab: Lab, job: Object) -> list[bool]:
    """TrainJob, JobSet and Jobs."""
    objects = [trainjob(lab, job), jobset(lab, job), *child_jobs(lab, job)]
    return [obj["spec"]["suspend"] for obj in objects]


def placed(lab: Lab, job: Object) -> list[str]:
    """Which system the pods are to run on, by all that says where they go."""
    sets = [runtime_of(lab, job)["spec"]["template"], jobset(lab, job)]
    jobs = [p["template"] for s in sets for p in s["spec"]["replicatedJobs"]]
    pods = [j["spec"]["template"]["spec"] for j in (*jobs, *child_jobs(lab, job))]
    return [pod.get("nodeSelector", {}).get("kubernetes.io/os", "") for pod in pods]


def ended(lab: Lab, job: Object) -> str:
    """How the trainer says that a run has ended; empty if it does not."""
    conditions = trainjob(lab, job).get("status", {}).get("conditions", [])
    return "".join(
        c["type"]
        for c in conditions
        if c["status"] == "True" and c["type"] in ("Complete", "Failed")
    )


def events(lab: Lab, name: str) -> str:
    """What was told of an object."""
    fields = f"involvedObject.name={name}"
    return " ".join(e.get("message", "") for e in lab.listed("events", fields=fields))
