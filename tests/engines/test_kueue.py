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
from tests.stage.jobs import FINISH
from tests.stage.queues import POOL, cluster_queue, flavor, local_queue
from tests.stage.waiting import eventually

QUEUE = "gpus"
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
        lab.admin("wait", name, *place, "--for=delete", "--timeout=60s")


# What there is to be seen -------------------------------------------------------------------------


def move_node(lab: Lab, pool: str) -> None:
    """The one node is of another pool from now on."""
    lab.admin("label", "nodes", "--all", "--overwrite", f"{POOL}={pool}")


def queued(lab: Lab, name: str, script: str = "wait.py") -> Object:
    """A signed job that names the queue: what is asked of it is not signed."""
    job = lab.signed_job(name, script)
    return changed(job, lambda j: j["spec"].update(scheduling={"queueName": QUEUE}))


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


def finish(lab: Lab, job: Object) -> None:
    """Tells the worker to end well."""
    (pod,) = lab.pods(job)
    with contextlib.suppress(CommandError):  # it may end before the session does
        lab.kubectl("exec", pod["metadata"]["name"], "-c", "trainer", "--", *FINISH)


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
