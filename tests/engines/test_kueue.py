"""Kueue for real: what it lets start, stops and lets start again, with the built-in engine.

Two pools of nodes, of which the one node is in one or the other.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator

import pytest

from tests.cluster import CommandError
from tests.e2e.lab import TEAM, Lab, Object, changed
from tests.e2e.reports import answered_by, condition
from tests.e2e.test_elastic import choose
from tests.e2e.test_responses import edit, release
from tests.engines.runs import finish, running, suspend
from tests.engines.test_pytorchjob import torch_job
from tests.guides.ground import ADMIN, Ground
from tests.stage.queues import POOL, admission_check, cluster_queue, flavor, local_queue
from tests.stage.signing import signed
from tests.stage.waiting import eventually

QUEUE, CHECK = "gpus", "provenance"
Apply = Callable[[Object], Object]


@pytest.fixture(autouse=True)
def queues(lab: Lab) -> Iterator[None]:
    """A queue with one GPU in the blue pool and one in the green; the node is blue."""
    move_node(lab, "blue")
    made = [
        *(flavor("blue"), flavor("green")),
        cluster_queue(QUEUE, {"blue": 1, "green": 0}),
        local_queue(QUEUE, TEAM, QUEUE),
    ]
    for obj in made:
        lab.admin("apply", "-f", "-", stdin=obj)
    yield
    for obj in reversed(made):
        lab.delete(obj)
    for obj in reversed(made):
        place = ("-n", TEAM) if "namespace" in obj["metadata"] else ()
        name = f"{obj['kind'].lower()}.kueue.x-k8s.io/{obj['metadata']['name']}"
        lab.admin("wait", name, *place, "--for=delete", "--timeout=240s")


# What there is to be seen -------------------------------------------------------------------------


def move_node(lab: Lab, pool: str) -> None:
    """The one node is of another pool from now on."""
    lab.admin("label", "nodes", "--all", "--overwrite", f"{POOL}={pool}")


def queued(lab: Lab, name: str, script: str = "wait.py", engine: str = "Job") -> Object:
    """A signed job that names the queue: what is asked of it is not signed."""
    job = lab.job(name, script) if engine != "PyTorchJob" else torch_job(lab, name, script)
    job["spec"]["engine"] = engine
    return changed(
        signed(job, lab.alice), lambda j: j["spec"].update(scheduling={"queueName": QUEUE})
    )


def workload(lab: Lab, job: Object) -> Object:
    """What Kueue made of the run's Job; empty while it made nothing."""
    uid = lab.engine(job)["metadata"]["uid"]
    chosen = ("-n", TEAM, "-l", f"kueue.x-k8s.io/job-uid={uid}", "-o", "json")
    items = json.loads(lab.admin("get", "workloads.kueue.x-k8s.io", *chosen))["items"]
    return items[0] if items else {}


def says(lab: Lab, job: Object, type_: str) -> str:
    """What the condition of the run's Workload says; empty where it has none."""
    return said_of(workload(lab, job), type_)


def said_of(workload: Object, type_: str) -> str:
    """What a Workload's condition says; empty where it has none."""
    conditions = workload.get("status", {}).get("conditions", [])
    return next((c["status"] for c in conditions if c["type"] == type_), "")


def answer(lab: Lab, job: Object) -> tuple[str, str]:
    """The state of our check of the run's Workload, and its words."""
    return answer_of(workload(lab, job))


def answer_of(workload: Object) -> tuple[str, str]:
    """The state of our check, and its words; empty where it lists none."""
    checks = workload.get("status", {}).get("admissionChecks", [])
    return next(((c["state"], c["message"]) for c in checks if c["name"] == CHECK), ("", ""))


def holds_quota(lab: Lab, job: Object) -> bool:
    """Whether Kueue keeps a part of the queue's quota for it."""
    return says(lab, job, "QuotaReserved") == "True"


def pool_of(lab: Lab, job: Object) -> str:
    """Where Kueue placed the run's pods."""
    spec = lab.engine(job)["spec"]["template"]["spec"]
    return str(spec.get("nodeSelector", {}).get(POOL, ""))


def set_queue(lab: Lab, **spec: object) -> None:
    """Changes the ClusterQueue."""
    change = json.dumps({"spec": spec})
    lab.admin("patch", "clusterqueue", QUEUE, "--type=merge", "-p", change)


def sealed_once(lab: Lab, job: Object) -> bool:
    """Whether the run has one seal, with nothing found."""
    status = lab.status(job)
    return status["run"] == 1 and not status.get("drifted") and not status.get("findings")


# Queueing -----------------------------------------------------------------------------------------


def test_a_signed_job_waits_for_quota_is_admitted_and_runs_to_its_end(
    lab: Lab, apply: Apply
) -> None:
    first, second = queued(lab, "first-queued"), queued(lab, "second-queued", "finish.py")
    apply(first)
    lab.wait_for_phase(first, "Running")
    assert pool_of(lab, first) == "blue"
    apply(second)
    eventually(lambda: bool(workload(lab, second)), "Kueue knows of the second")
    eventually(lambda: says(lab, second, "QuotaReserved") == "False", "it is told to wait")
    status = lab.wait_for_phase(second, "Sealed")
    assert "waiting for the queue gpus" in status["message"]
    assert not lab.pods(second)
    finish(lab, first)
    lab.wait_for_phase(first, "Succeeded")
    lab.wait_for_phase(second, "Succeeded")
    assert sealed_once(lab, first)
    assert sealed_once(lab, second)


@pytest.mark.usefixtures("checked")
@pytest.mark.parametrize("engine", ["JobSet", "TrainJob", "PyTorchJob"])
def test_runs_by_other_engines_wait_in_the_queue_and_give_its_quota_back_when_they_are_suspended(
    lab: Lab, apply: Apply, engine: str
) -> None:
    names = (f"{which}-{engine.lower()}" for which in ("first", "second"))
    first, second = (queued(lab, name, engine=engine) for name in names)
    apply(first)
    lab.wait_for_phase(first, "Running")
    (pod,) = lab.pods(first)
    # Kueue places a TrainJob by a field that this trainer does not have.
    placed = None if engine == "TrainJob" else {POOL: "blue"}
    assert pod["spec"].get("nodeSelector") == placed
    apply(second)
    words = "waiting for the queue gpus"
    eventually(lambda: words in lab.status(second).get("message", ""), "the second waits for it")
    assert not lab.pods(second)
    suspend(lab, first, True)
    lab.wait_for_phase(second, "Running")
    eventually(lambda: not running(lab, first), "the pods of the first are gone")
    suspend(lab, first, False)
    for job in (second, first):
        lab.wait_for_phase(job, "Running")
        finish(lab, job)
        lab.wait_for_phase(job, "Succeeded")
        assert sealed_once(lab, job)


def test_what_kueue_drains_is_suspended_without_a_finding_and_goes_on_elsewhere(
    lab: Lab, apply: Apply
) -> None:
    job = apply(queued(lab, "drained"))
    lab.wait_for_phase(job, "Running")
    set_queue(lab, stopPolicy="HoldAndDrain")
    eventually(lambda: not lab.pods(job), "its pods are gone")
    eventually(lambda: not holds_quota(lab, job), "its quota is free")
    assert lab.engine(job)["spec"]["suspend"]
    # Its place is in the other pool from now on.
    move_node(lab, "green")
    set_queue(lab, stopPolicy="None", **moved({"blue": 0, "green": 1}))
    lab.wait_for_phase(job, "Running")
    eventually(lambda: pool_of(lab, job) == "green", "it runs in the other pool")
    finish(lab, job)
    lab.wait_for_phase(job, "Succeeded")
    assert sealed_once(lab, job)


def moved(gpus: dict[str, int]) -> Object:
    """The queue's quota of each flavor anew."""
    return {"resourceGroups": cluster_queue(QUEUE, gpus)["spec"]["resourceGroups"]}


def test_a_run_that_is_preempted_waits_and_goes_on_when_there_is_quota(
    lab: Lab, apply: Apply, urgent: str
) -> None:
    set_queue(lab, preemption={"withinClusterQueue": "LowerPriority"})
    job = apply(queued(lab, "preempted"))
    lab.wait_for_phase(job, "Running")
    rival = changed(
        queued(lab, "urgent"), lambda j: j["spec"]["scheduling"].update(priorityClassName=urgent)
    )
    apply(rival)
    lab.wait_for_phase(rival, "Running")
    eventually(lambda: lab.engine(job)["spec"]["suspend"], "the other one is suspended")
    finish(lab, rival)
    lab.wait_for_phase(job, "Running")
    finish(lab, job)
    lab.wait_for_phase(job, "Succeeded")
    assert sealed_once(lab, job)
    assert sealed_once(lab, rival)


def test_a_run_that_is_scaled_waits_for_its_quota_anew_and_goes_on(lab: Lab, apply: Apply) -> None:
    """As more than there is room for it waits; as what it was before it goes on."""
    set_queue(lab, **moved({"blue": 2, "green": 0}))
    job = lab.job("scaled")
    job["spec"]["roles"][0]["replicas"] = {"min": 1, "max": 3}
    job["spec"]["scheduling"] = {"queueName": QUEUE, "replicas": {"worker": 1}}
    apply(signed(job, lab.alice))
    for workers in (1, 2):
        choose(lab, job, workers)
        eventually(lambda n=workers: ready(lab, job) == n, f"{workers} run")  # type: ignore[misc]
    choose(lab, job, 3)
    eventually(lambda: lab.engine(job)["spec"]["suspend"] and not lab.pods(job), "three wait")
    choose(lab, job, 2)
    eventually(lambda: ready(lab, job) == 2, "two run again")
    assert sealed_once(lab, job)
    finish(lab, job)
    lab.wait_for_phase(job, "Succeeded")
    assert sealed_once(lab, job)


def ready(lab: Lab, job: Object) -> int:
    """How many workers run."""
    return sum(
        container.get("ready", False)
        for pod in running(lab, job)
        for container in pod["status"].get("containerStatuses", [])
    )


# Asked before it is admitted --------------------------------------------------------------------


@pytest.fixture
def checked(lab: Lab, queues: None) -> Iterator[None]:
    """The queue asks TrainSeal first."""
    check = admission_check(CHECK, "trainseal.dev/provenance")
    lab.admin("apply", "-f", "-", stdin=check)
    lab.admin("wait", "admissioncheck", CHECK, "--for=condition=Active", "--timeout=240s")
    set_queue(lab, admissionChecksStrategy={"admissionChecks": [{"name": CHECK}]})
    yield
    set_queue(lab, admissionChecksStrategy=None)
    lab.delete(check)


@pytest.mark.usefixtures("checked")
def test_a_signed_job_is_admitted_once_it_is_verified(
    lab: Lab, ground: Ground, apply: Apply
) -> None:
    job = apply(queued(lab, "char-lm", "finish.py"))
    lab.wait_for_phase(job, "Succeeded")
    walk = ground.walk("how-to/kueue.md", ADMIN)
    for command in ("kubectl get tj char-lm", "kubectl get workloads"):
        walk.take(command)
    assert says(lab, job, "Admitted") == "True" or says(lab, job, "Finished") == "True"
    assert answer(lab, job)[0] == "Ready"
    assert sealed_once(lab, job)


@pytest.mark.usefixtures("checked")
def test_what_is_of_no_run_holds_no_quota_and_a_signed_job_gets_it(
    lab: Lab, ground: Ground, apply: Apply
) -> None:
    lab.admin("create", "-f", "-", stdin=unsigned(lab))
    try:
        # With its quota Kueue takes our words away; they are said again.
        words = "expected a signed TrainingJob"
        eventually(lambda: words in answer_of(of_unsigned(lab))[1], "it is told why")
        eventually(lambda: answer_of(of_unsigned(lab))[0] == "Rejected", "it is rejected")
        ground.walk("how-to/kueue.md", ADMIN).take(
            "kubectl get workloads -o "
            "custom-columns=NAME:.metadata.name,CHECK:.status.admissionChecks[*].message"
        )
        job = apply(queued(lab, "after-it", "finish.py"))
        lab.wait_for_phase(job, "Succeeded")
        assert said_of(of_unsigned(lab), "QuotaReserved") != "True"
    finally:
        lab.admin("delete", "tfjob", "unsigned", "-n", TEAM, "--wait=false")


def unsigned(lab: Lab) -> Object:
    """A job of another kind, of which the floor knows nothing, that asks for the queue's GPU."""
    container = {
        "name": "tensorflow",
        "image": lab.image,
        "resources": {"limits": {"nvidia.com/gpu": 1}},
    }
    template = {"spec": {"containers": [container]}}
    worker = {"replicas": 1, "restartPolicy": "Never", "template": template}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "TFJob",
        "metadata": {
            "name": "unsigned",
            "namespace": TEAM,
            "labels": {"kueue.x-k8s.io/queue-name": QUEUE},
        },
        "spec": {"tfReplicaSpecs": {"Worker": worker}},
    }


def of_unsigned(lab: Lab) -> Object:
    """Kueue's Workload of that job; empty while there is none."""
    found = json.loads(lab.admin("get", "workloads.kueue.x-k8s.io", "-n", TEAM, "-o", "json"))
    owners = ((w, w["metadata"]["ownerReferences"][0]) for w in found["items"])
    return next((w for w, owner in owners if owner["kind"] == "TFJob"), {})


@pytest.mark.usefixtures("checked")
def test_a_hold_evicts_and_its_end_lets_the_run_go_on(lab: Lab, apply: Apply) -> None:
    job = apply(queued(lab, "held-in-queue"))
    lab.wait_for_phase(job, "Running")
    (pod,) = lab.pods(job)
    with answered_by(lab, "Suspend"):
        eventually(lambda: condition(lab, pod, "Watching") == "True", "the pod is watched")
        edit(lab, pod)
        lab.wait_for_phase(job, "Suspended")
        eventually(lambda: not holds_quota(lab, job), "its quota is free")
        assert answer(lab, job)[0] == "Retry"
        assert not lab.pods(job)
        other = apply(queued(lab, "gets-its-quota", "finish.py"))
        lab.wait_for_phase(other, "Succeeded")
        assert lab.engine(job)["spec"]["suspend"]
        release(lab, job)
    lab.wait_for_phase(job, "Running")
    eventually(lambda: answer(lab, job)[0] == "Ready", "it is admitted again")
    finish(lab, job)
    lab.wait_for_phase(job, "Succeeded")


@pytest.mark.usefixtures("checked")
def test_a_run_that_its_user_suspends_gives_its_quota_back(lab: Lab, apply: Apply) -> None:
    job = apply(queued(lab, "suspended-in-queue"))
    lab.wait_for_phase(job, "Running")
    suspend(lab, job, True)
    eventually(lambda: not holds_quota(lab, job), "its quota is free")
    other = apply(queued(lab, "meanwhile", "finish.py"))
    lab.wait_for_phase(other, "Succeeded")
    assert lab.engine(job)["spec"]["suspend"]
    suspend(lab, job, False)
    lab.wait_for_phase(job, "Running")
    finish(lab, job)
    lab.wait_for_phase(job, "Succeeded")
    assert sealed_once(lab, job)


@pytest.fixture
def default_queue(lab: Lab, queues: None) -> Iterator[None]:
    """Kueue puts every Job of the namespace into it, and lets none be taken out of any."""
    made = local_queue("default", TEAM, QUEUE)
    lab.admin("apply", "-f", "-", stdin=made)
    yield
    lab.delete(made)


@pytest.mark.usefixtures("checked", "default_queue")
def test_where_no_label_can_be_taken_off_a_run_is_suspended_all_the_same(
    lab: Lab, apply: Apply
) -> None:
    job = apply(queued(lab, "never-let-go"))
    lab.wait_for_phase(job, "Running")
    suspend(lab, job, True)
    eventually(lambda: not lab.pods(job), "its pods are gone")
    eventually(lambda: not holds_quota(lab, job), "its quota is free")
    assert lab.status(job)["phase"] == "Suspended"
    suspend(lab, job, False)
    lab.wait_for_phase(job, "Running")
    finish(lab, job)
    lab.wait_for_phase(job, "Succeeded")


@pytest.mark.usefixtures("checked", "default_queue")
def test_a_run_that_names_no_queue_and_is_in_one_is_left_to_it_and_says_so(
    lab: Lab, apply: Apply
) -> None:
    job = apply(lab.signed_job("by-default"))
    lab.wait_for_phase(job, "Running")
    placed = next(c for c in lab.status(job)["conditions"] if c["type"] == "Placed")
    assert placed["reason"] == "QueueRefused"
    assert "in the queue default" in placed["message"]
    finish(lab, job)
    lab.wait_for_phase(job, "Succeeded")


def test_an_editor_leaves_no_marks_for_the_queue_on_a_run(lab: Lab, apply: Apply) -> None:
    job = apply(queued(lab, "marked"))
    lab.wait_for_phase(job, "Running")
    name = f"{job['metadata']['name']}-worker"
    with pytest.raises(CommandError, match=r"labels or annotations kueue.x-k8s.io/\*"):
        lab.kubectl("label", "job", name, "kueue.x-k8s.io/max-exec-time-seconds=1")
    with pytest.raises(CommandError, match=r"labels or annotations kueue.x-k8s.io/\*"):
        lab.kubectl("annotate", "job", name, "kueue.x-k8s.io/job-min-parallelism=1")
    lab.kubectl("label", "job", name, "team=a")
    finish(lab, job)
    lab.wait_for_phase(job, "Succeeded")


@pytest.mark.usefixtures("checked")
def test_a_signature_that_counts_no_more_is_seen_while_the_run_waits(
    lab: Lab, apply: Apply
) -> None:
    first, second = queued(lab, "ahead"), queued(lab, "waits", "finish.py")
    apply(first)
    lab.wait_for_phase(first, "Running")
    apply(second)
    eventually(lambda: answer(lab, second)[0] == "Pending", "it waits")
    with only_signed_by(lab, "bob"):
        eventually(lambda: answer(lab, second)[0] == "Rejected", "its signature counts no more")
        # What is on is not judged by it.
        assert answer(lab, first)[0] == "Ready"
        finish(lab, first)
        lab.wait_for_phase(first, "Succeeded")
        assert not holds_quota(lab, second)
    eventually(lambda: answer(lab, second)[0] in ("Pending", "Ready"), "it counts again")
    lab.wait_for_phase(second, "Succeeded")


@contextlib.contextmanager
def only_signed_by(lab: Lab, name: str) -> Iterator[None]:
    """The team's policy takes jobs of this person alone, until the end of the block."""
    before = json.loads(lab.admin("get", "provenancepolicy", TEAM, "-o", "json"))["spec"]
    job = {**before["requirements"]["job"], "authorities": [name]}
    _require(lab, job)
    try:
        yield
    finally:
        _require(lab, before["requirements"]["job"])


def _require(lab: Lab, job: Object) -> None:
    change = json.dumps({"spec": {"requirements": {"job": job}}})
    lab.admin("patch", "provenancepolicy", TEAM, "--type=merge", "-p", change)


@pytest.fixture
def urgent(lab: Lab) -> Iterator[str]:
    """A PriorityClass."""
    made = {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": "urgent"},
        "value": 1000,
    }
    lab.admin("apply", "-f", "-", stdin=made)
    yield "urgent"
    lab.delete(made)
