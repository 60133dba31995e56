"""TrainingJobs that Kubeflow's training operator runs, with its own controller and webhooks."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
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
from tests.stage.jobs import SHORT_CODE, trainer
from tests.stage.signing import signed
from tests.stage.waiting import eventually

Object = dict[str, Any]
MARK = "training.kubeflow.org"
OPERATOR = "system:serviceaccount:kubeflow:training-operator"
#: The first worker is told something by each of the others.
MEET = """
import os, socket, time
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
port = int(os.environ["MASTER_PORT"])
assert os.environ["PET_NNODES"] == str(world)
if rank == 0:
    with socket.create_server(("", port)) as server:
        met = {int(server.accept()[0].makefile().readline()) for _ in range(world - 1)}
    print("met", sorted(met), flush=True)
    assert met == set(range(1, world))
else:
    while True:
        try:
            there = socket.create_connection((os.environ["MASTER_ADDR"], port), timeout=5)
        except OSError:
            time.sleep(0.2)
        else:
            break
    there.sendall(f"{rank}\\n".encode())
    there.close()
"""


@pytest.fixture(scope="module", autouse=True)
def editor_of_pytorchjobs(lab: Lab) -> None:
    """Who edits may do everything with PyTorchJobs as well, as Kubeflow's own role lets them."""
    let_editor_edit(lab, "pytorchjobs", "kubeflow.org")


def test_a_signed_job_runs_to_its_end_and_its_workers_meet_at_the_first(
    lab: Lab, ground: Ground, apply: Apply
) -> None:
    job = with_script(lab, "pretrain", MEET)
    job["spec"]["roles"][0]["replicas"] = 3
    apply(signed(job, lab.alice))
    status = lab.wait_for_phase(job, "Succeeded")
    assert len(lab.pods(job)) == 3
    ground.walk("how-to/engines.md", ADMIN).take("kubectl get pytorchjobs,pods -n research -o name")
    seal = lab.get("sealedrun", status["sealedRun"])
    bound = [(o["role"], o["kind"], o["name"]) for o in seal["status"]["binding"]["objects"]]
    assert bound == [("worker", "PyTorchJob", "pretrain-worker")]
    assert "met [1, 2]" in lab.admin("logs", "-n", TEAM, "pretrain-worker-worker-0")
    assert found_on(lab, job) == []
    services = [r["spec"]["object"] for r in lab.listed("accessrecords") if "object" in r["spec"]]
    assert not [s for s in services if s["name"].startswith("pretrain")], "the operator's own"


def test_a_job_of_two_roles_is_a_pytorchjob_each(lab: Lab, apply: Apply) -> None:
    job = apply(signed(two_roles(lab, "torch-roles", "finish.py"), lab.alice))
    lab.wait_for_phase(job, "Succeeded")
    owners = {p["metadata"]["ownerReferences"][0]["name"] for p in lab.pods(job)}
    assert owners == {"torch-roles-worker", "torch-roles-server"}
    assert found_on(lab, job) == []


def test_a_job_that_was_changed_after_it_was_signed_is_refused(lab: Lab) -> None:
    job = signed(torch_job(lab, "torch-changed"), lab.alice)
    trainer(job)["command"] = ["python3", "/workspace/other.py"]
    assert "does not" in lab.refusal(job) or "another" in lab.refusal(job)
    assert lab.accepts(signed(torch_job(lab, "torch-changed"), lab.alice))


def test_a_job_that_the_operator_would_not_run_is_refused_in_words(lab: Lab) -> None:
    job = torch_job(lab, "torch-named")
    trainer(job)["name"] = "trainer"
    assert "expected one of the name pytorch" in lab.refusal(signed(job, lab.alice))


def test_a_run_is_suspended_and_resumed(lab: Lab, apply: Apply) -> None:
    job = apply(signed(two_roles(lab, "torch-pauses"), lab.alice))
    lab.wait_for_phase(job, "Running")
    suspend(lab, job, True)
    lab.wait_for_phase(job, "Suspended")
    eventually(lambda: not lab.pods(job), "its pods are gone", 90)
    for role in ("worker", "server"):
        assert root(lab, job, role)["spec"]["runPolicy"]["suspend"] is True
    suspend(lab, job, False)
    lab.wait_for_phase(job, "Running")
    finish(lab, job)
    lab.wait_for_phase(job, "Succeeded")
    assert found_on(lab, job) == []


def test_a_run_goes_with_its_training_job(lab: Lab, apply: Apply) -> None:
    job = apply(signed(torch_job(lab, "torch-goes"), lab.alice))
    lab.wait_for_phase(job, "Running")
    lab.kubectl("delete", "trainingjob", "torch-goes", "--wait=false")
    eventually(lambda: not lab.pods(job) and not roots(lab, job), "all of it is gone", 120)


def test_a_held_run_stands_until_somebody_releases_it(lab: Lab, apply: Apply) -> None:
    with answered_by(lab, "Suspend"):
        job = apply(signed(torch_job(lab, "torch-held"), lab.alice))
        lab.wait_for_phase(job, "Running")
        (worker,) = lab.pods(job)
        eventually(lambda: condition(lab, worker, "Watching") == "True", "its agent watches")
        edit(lab, worker)
        eventually(lambda: held(lab, job) == "Suspend", "the run is held")
        lab.wait_for_phase(job, "Suspended")
        eventually(lambda: not lab.pods(job), "its pods are gone", 90)
        assert root(lab, job)["spec"]["runPolicy"]["suspend"] is True
        release(lab, job)
        lab.wait_for_phase(job, "Running")
        finish(lab, job)
        lab.wait_for_phase(job, "Succeeded")


def test_a_run_whose_worker_fails_fails_and_nothing_of_it_is_a_finding(
    lab: Lab, apply: Apply
) -> None:
    job = with_failing_server(lab, two_roles(lab, "torch-fails"))
    apply(signed(job, lab.alice))
    status = lab.wait_for_phase(job, "Failed")
    assert "torch-fails-server" in status["message"]
    eventually(lambda: not running(lab, job), "no pod of the other role is left", 90)
    assert found_on(lab, job) == []


def test_a_pod_that_somebody_deletes_ends_the_run_and_is_found(lab: Lab, apply: Apply) -> None:
    job = torch_job(lab, "torch-loses")
    job["spec"]["roles"][0]["replicas"] = 2
    apply(signed(job, lab.alice))
    lab.wait_for_phase(job, "Running")
    eventually(lambda: lab.status(job)["ready"] == "2/2", "both are at work")
    lab.kubectl("delete", "pod", "torch-loses-worker-worker-1", "--wait=false")
    lab.wait_for_phase(job, "Failed")
    eventually(
        lambda: any(i.startswith("pod.deleted") for i in found_on(lab, job)),
        "the deletion is a finding",
        90,
    )
    assert "pod.unrecorded" not in found_on(lab, job), "what the operator takes away is none"


@pytest.fixture(scope="module")
def running_job(lab: Lab) -> Object:
    """A run of one worker that is on."""
    job = signed(torch_job(lab, "torch-guarded"), lab.alice)
    lab.apply(job)
    lab.wait_for_phase(job, "Running")
    return job


@pytest.mark.parametrize(
    "patch",
    [
        {"spec": {"runPolicy": {"suspend": True}}},
        {"spec": {"pytorchReplicaSpecs": {"Worker": {"replicas": 2}}}},
        {"metadata": {"labels": {"trainseal.dev/seal": "other"}}},
        {"metadata": {"labels": {"kueue.x-k8s.io/max-exec-time-seconds": "1"}}},
        {"metadata": {"finalizers": ["example.org/stay"]}},
        {"metadata": {"ownerReferences": None}},
    ],
)
def test_nobody_changes_the_pytorchjob(lab: Lab, running_job: Object, patch: Object) -> None:
    change = ("patch", "pytorchjob", "torch-guarded-worker", "--type=merge", "-p")
    with pytest.raises(CommandError, match="belongs to TrainSeal"):
        lab.kubectl(*change, json.dumps(patch))
    lab.kubectl(*change, '{"metadata":{"annotations":{"note":"mine"}}}')
    assert lab.status(running_job)["phase"] == "Running"


def test_nobody_says_for_the_operator_that_it_has_ended(lab: Lab, running_job: Object) -> None:
    done = {"type": "Succeeded", "status": "True", "reason": "Mallory", "message": "done"}
    patch = json.dumps({"status": {"conditions": [done]}})
    words = ("patch", "pytorchjob", "torch-guarded-worker", "--type=merge", "-p", patch)
    with pytest.raises(CommandError, match="found a change of its status by"):
        lab.kubectl(*words, "--subresource=status")
    assert lab.status(running_job)["phase"] == "Running"


def test_nobody_scales_it(lab: Lab, running_job: Object) -> None:
    """Its replicas have a way of their own, which an autoscaler of the editor's would go, too."""
    with pytest.raises(CommandError, match="found a change of its scale by"):
        lab.kubectl("scale", "pytorchjob/torch-guarded-worker", "--replicas=2")
    assert root(lab, running_job)["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] == 1


def test_nobody_leaves_its_pods_behind(lab: Lab, running_job: Object) -> None:
    with pytest.raises(CommandError, match="leaves its pods behind"):
        lab.kubectl("delete", "pytorchjob", "torch-guarded-worker", "--cascade=orphan")


def test_nobody_makes_a_pod_of_it_beside_the_operator(lab: Lab, running_job: Object) -> None:
    """With the owner, the labels and the content of a real one."""
    (real,) = lab.pods(running_job)
    said = lab.refusal(pod_like(real))
    assert EDITOR in said
    with pytest.raises(CommandError, match="AlreadyExists"):  # the same of the operator's is let in
        as_the_operator(lab, pod_like(real))


def other_index(pod: Object) -> None:
    pod["metadata"]["labels"][f"{MARK}/replica-index"] = "1"


def other_role(pod: Object) -> None:
    pod["metadata"]["labels"]["trainseal.dev/role"] = "server"


def other_kind(pod: Object) -> None:
    pod["metadata"]["labels"][f"{MARK}/replica-type"] = "master"


def other_rank(pod: Object) -> None:
    env = pod["spec"]["containers"][0]["env"]
    env[:] = [e for e in env if e["name"] != "RANK"] + [{"name": "RANK", "value": "0"}]


def an_init_container(pod: Object) -> None:
    image = pod["spec"]["containers"][0]["image"]
    pod["spec"]["initContainers"].append({"name": "init-pytorch", "image": image})


@pytest.mark.parametrize(
    "change", [other_index, other_role, other_kind, other_rank, an_init_container]
)
def test_a_pod_of_the_operators_that_is_not_what_its_place_says_is_refused(
    lab: Lab, running_job: Object, change: Callable[[Object], None]
) -> None:
    (real,) = lab.pods(running_job)
    made = pod_like(real)
    change(made)
    with pytest.raises(CommandError, match="is not what SealedRun"):
        as_the_operator(lab, made)


def test_nobody_makes_a_pod_that_the_operator_would_count(lab: Lab, running_job: Object) -> None:
    """It asks for no GPU and bears no label of ours: by owner and labels it would be a worker."""
    (real,) = lab.pods(running_job)
    mine = pod_like(real)
    mine["metadata"]["name"] = "torch-guarded-worker-worker-7"
    mine["metadata"]["ownerReferences"] = []
    labels = mine["metadata"]["labels"]
    mine["metadata"]["labels"] = {k: v for k, v in labels.items() if k.startswith(MARK)}
    mine["spec"] = own_pod(lab, 0, "pytorch")
    assert "pytorchjob-pods" in lab.refusal(mine) or "PyTorchJob's pods" in lab.refusal(mine)
    del mine["metadata"]["labels"][f"{MARK}/operator-name"]
    created = lab.create(mine)
    gains = json.dumps({"metadata": {"labels": {f"{MARK}/operator-name": "pytorchjob-controller"}}})
    name = created["metadata"]["name"]
    with pytest.raises(CommandError, match="PyTorchJob's pods"):
        lab.kubectl("patch", "pod", name, "--type=merge", "-p", gains)
    lab.kubectl("delete", "pod", name, "--wait=false")


def test_nobody_has_the_operator_make_one(lab: Lab, running_job: Object) -> None:
    """A PyTorchJob of the editor's own, whose pods would pass for the run's, or ask for GPUs."""
    spec = root(lab, running_job)["spec"]
    said = lab.refusal(own(spec))
    assert "trainseal-pytorchjobs" in said
    assert EDITOR in said
    template = spec["pytorchReplicaSpecs"]["Worker"]["template"]
    del template["metadata"]
    template["spec"] = own_pod(lab, 1, "pytorch")
    with pytest.raises(CommandError, match="asks for GPUs"):
        lab.create(own(spec))
    eventually(lambda: "PyTorchJob mallorys" in tried(lab), "it is on record", 20)
    template["spec"] = own_pod(lab, 0, "pytorch")
    assert lab.accepts(own(spec))


def test_a_pytorchjob_without_gpus_is_nobodys_business(lab: Lab) -> None:
    container = {**own_pod(lab, 0, "pytorch")["containers"][0], "command": ["true"]}
    template = {"spec": {"containers": [container]}}
    master = {"replicas": 1, "restartPolicy": "Never", "template": template}
    lab.create(own({"pytorchReplicaSpecs": {"Master": master}}))
    lab.admin(
        *("wait", "pytorchjob/mallorys", "-n", TEAM, "--for=condition=Succeeded", "--timeout=240s")
    )
    lab.kubectl("delete", "pytorchjob", "mallorys", "--wait=false")


def torch_job(lab: Lab, name: str, script: str = "wait.py") -> Object:
    """One worker."""
    job = lab.job(name, script)
    job["spec"]["engine"] = "PyTorchJob"
    trainer(job)["name"] = "pytorch"
    return job


def with_script(lab: Lab, name: str, text: str) -> Object:
    """One worker that runs this."""
    job = torch_job(lab, name, "script.py")
    reference = lab.push_tree(name, {**SHORT_CODE, "script.py": text}, lab.alice)
    job["spec"]["code"][0]["oci"]["reference"] = reference
    return job


def two_roles(lab: Lab, name: str, script: str = "wait.py") -> Object:
    """Two workers and a server."""
    return with_server(torch_job(lab, name, script))


def own(spec: Object) -> Object:
    """The editor's."""
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "mallorys", "namespace": TEAM},
        "spec": spec,
    }


def pod_like(real: Object) -> Object:
    """What the operator sent to have it made."""
    kept = ("name", "namespace", "labels", "annotations", "ownerReferences")
    made = copy.deepcopy(real)
    del made["status"], made["spec"]["nodeName"]
    made["metadata"] = {k: v for k, v in made["metadata"].items() if k in kept}
    return {"apiVersion": "v1", "kind": "Pod", **made}


def as_the_operator(lab: Lab, obj: Object) -> str:
    """Makes it in a dry run."""
    return lab.admin("create", "--dry-run=server", "-f", "-", f"--as={OPERATOR}", stdin=obj)


def root(lab: Lab, job: Object, role: str = "worker") -> Object:
    """A role's PyTorchJob."""
    name = f"{job['metadata']['name']}-{role}"
    found: Object = json.loads(lab.admin("get", "pytorchjob", name, "-n", TEAM, "-o", "json"))
    return found


def roots(lab: Lab, job: Object) -> list[str]:
    """Names of the PyTorchJobs of a run."""
    label = f"trainseal.dev/job={job['metadata']['name']}"
    return lab.admin("get", "pytorchjob", "-n", TEAM, "-l", label, "-o", "name").split()
