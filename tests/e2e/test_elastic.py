"""Runs that grow, shrink and lose workers to the cluster: they go on, and nothing is found on them.

The requester of these jobs is the administrator, so that the editor is somebody else. What must
stay silent is followed by a kill, whose finding tells that the controller has looked meanwhile.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.cluster import CommandError
from tests.e2e.lab import EDITOR, TEAM, Lab, Object
from tests.e2e.test_disturbances import CONTROLLER, PASS, TERMINATE, findings, found, ids, name_of
from tests.guides.ground import Ground
from tests.stage.ending import commands
from tests.stage.jobs import trainer
from tests.stage.signing import signed
from tests.stage.waiting import eventually

_NUMBERS = itertools.count(1)
SPOT = "spot-1"


@pytest.fixture
def start(lab: Lab) -> Iterator[Callable[..., Object]]:
    """Starts a job as the administrator; deleted after the test."""
    started: list[Object] = []

    def do(job: Object, phase: str | None = "Running") -> Object:
        started.append(job)
        lab.admin("apply", "-f", "-", stdin=job)
        if phase:
            lab.wait_for_phase(job, phase)
        return job

    yield do
    for job in started:
        lab.delete(job)
    for job in started:
        eventually(lambda job=job: not lab.pods(job), "its pods are gone")  # type: ignore[misc]


def elastic(lab: Lab, workers: int, *, name: str = "", **scheduling: object) -> Object:
    """A signed job of one to three workers, of whom so many are chosen."""
    job = lab.job(name or f"elastic-{next(_NUMBERS)}")
    job["spec"]["roles"][0]["replicas"] = {"min": 1, "max": 3}
    job["spec"]["scheduling"] = {"replicas": {"worker": workers}, **scheduling}
    return signed(job, lab.alice)


def choose(lab: Lab, job: Object, workers: int) -> None:
    """The editor's choice."""
    change = json.dumps({"spec": {"scheduling": {"replicas": {"worker": workers}}}})
    lab.kubectl("patch", "tj", name_of(job), "--type=merge", "-p", change)


def index(pod: Object) -> str:
    return str(pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"])


def at_work(lab: Lab, job: Object) -> set[str]:
    """Indexes of the workers that are ready and not told to end."""
    return {
        index(p)
        for p in lab.pods(job)
        if "deletionTimestamp" not in p["metadata"]
        and any(c.get("ready") for c in p["status"].get("containerStatuses", []))
    }


def has_workers(lab: Lab, job: Object, *indexes: str, seconds: float = 120) -> None:
    wanted = set(indexes)
    what = f"workers {', '.join(indexes)} run, and no other is there"
    eventually(
        lambda: at_work(lab, job) == wanted and {index(p) for p in running(lab, job)} == wanted,
        what,
        seconds,
    )


def running(lab: Lab, job: Object) -> list[Object]:
    return [p for p in lab.pods(job) if p["status"]["phase"] in ("Pending", "Running")]


def seal_of(lab: Lab, job: Object) -> Object:
    return lab.get("sealedrun", lab.status(job)["sealedRun"])


def nothing_is_found(lab: Lab, job: Object) -> None:
    """A kill of the first worker is found, and nothing else is."""
    (first,) = [p for p in running(lab, job) if index(p) == "0"]
    with contextlib.suppress(CommandError):  # the session ends with the container
        lab.kubectl("exec", name_of(first), "-c", "trainer", "--", *TERMINATE)
    found(lab, job, "pod.killed")
    assert ids(lab, job) == {"pod.killed"}


# Scaled -----------------------------------------------------------------------------------------


def test_a_run_grows_and_shrinks_within_what_is_signed(
    lab: Lab, ground: Ground, start: Callable[..., Object]
) -> None:
    """It grows as how-to/elastic.md says."""
    job = start(elastic(lab, 1, name="pretrain"))
    has_workers(lab, job, "0")
    before = {p["metadata"]["uid"] for p in running(lab, job)}
    ground.walk("how-to/elastic.md", "ann").go()
    has_workers(lab, job, "0", "1", "2")
    choose(lab, job, 2)
    has_workers(lab, job, "0", "1")
    assert before < {p["metadata"]["uid"] for p in running(lab, job)}, "who stays is not disturbed"
    assert not lab.engine(job)["status"].get("failed"), "it costs the run none of its lives"
    seal = seal_of(lab, job)
    status, requester = seal["status"], seal["spec"]["requester"]["username"]
    told = [(e["number"], e["members"][0]["replicas"], e.get("user")) for e in status["epochs"]]
    assert told == [(1, 1, requester), (2, 3, "ann@example.org"), (3, 2, EDITOR)]
    assert (status["binding"]["epoch"], status["phase"]) == (3, "Bound")
    assert "Scaled" in lab.told(job)
    nothing_is_found(lab, job)


@pytest.mark.parametrize("workers", [0, 4])
def test_nobody_scales_a_run_beyond_what_is_signed(
    lab: Lab, start: Callable[..., Object], workers: int
) -> None:
    words = r"replicas\[worker\]|replicas.worker"
    with pytest.raises(CommandError, match=words):
        lab.admin("apply", "-f", "-", stdin=elastic(lab, workers))
    job = start(elastic(lab, 1))
    with pytest.raises(CommandError, match=words):
        choose(lab, job, workers)
    assert seal_of(lab, job)["status"]["binding"]["epoch"] == 1


def test_a_run_is_scaled_through_its_trainingjob_alone(
    lab: Lab, start: Callable[..., Object]
) -> None:
    """Who changes the Job past the floor gets no pod by it, and is found."""
    job = start(elastic(lab, 1))
    name = f"{name_of(job)}-worker"
    patch = json.dumps({"spec": {"completions": 3, "parallelism": 3}})
    args = ("patch", "job", name, "-n", TEAM, "--type=merge", "-p")
    with pytest.raises(CommandError, match="a change of its spec"):
        lab.kubectl(*args, patch)
    # A number that no epoch said; with the controller's own credentials, say.
    patch = json.dumps({"spec": {"completions": 2, "parallelism": 2}})
    lab.admin(*args, patch, f"--as={CONTROLLER}", "--as-group=system:masters")

    def refused() -> bool:
        fields = f"involvedObject.name={name},reason=FailedCreate"
        events = lab.listed("events", fields=fields)
        return any("an index below 1" in e["message"] for e in events)

    eventually(refused, "the fence refuses the second worker", 60)
    assert {index(p) for p in lab.pods(job)} == {"0"}
    seen = found(lab, job, "object.changed", PASS)
    assert seen["severity"] == "Critical"
    assert "spec.completions: found 2, sealed 1" in seen["message"]


# Taken by the cluster ---------------------------------------------------------------------------


@pytest.fixture
def classes(lab: Lab) -> Iterator[None]:
    """Two priorities."""
    made = [
        {
            "apiVersion": "scheduling.k8s.io/v1",
            "kind": "PriorityClass",
            "metadata": {"name": name},
            "value": value,
        }
        for name, value in (("elastic-low", 10), ("elastic-high", 1000))
    ]
    for obj in made:
        lab.admin("apply", "-f", "-", stdin=obj)
    yield
    for obj in made:
        lab.delete(obj)


def disrupted(pod: Object) -> str:
    """Why the cluster ended a pod; empty where it did not."""
    conditions = pod["status"].get("conditions", [])
    return next((str(c["reason"]) for c in conditions if c["type"] == "DisruptionTarget"), "")


@pytest.mark.usefixtures("classes")
def test_a_worker_that_gives_way_to_a_higher_priority_comes_back_and_nothing_is_found(
    lab: Lab, start: Callable[..., Object]
) -> None:
    low = start(elastic(lab, 2, priorityClassName="elastic-low"))
    has_workers(lab, low, "0", "1")
    first = {p["metadata"]["uid"] for p in running(lab, low)}
    high = lab.job(f"urgent-{next(_NUMBERS)}")
    trainer(high)["resources"]["limits"]["nvidia.com/gpu"] = 7
    high["spec"]["scheduling"] = {"priorityClassName": "elastic-high"}
    start(signed(high, lab.alice))
    # One worker gave its place away; the run goes on with the other, and waits for it.
    eventually(lambda: len(at_work(lab, low)) == 1, "a worker is preempted")
    assert lab.status(low)["phase"] == "Running"
    lab.delete(high)
    has_workers(lab, low, "0", "1", seconds=180)
    assert not first >= {p["metadata"]["uid"] for p in running(lab, low)}
    assert not lab.engine(low)["status"].get("failed"), "it costs the run none of its lives"
    nothing_is_found(lab, low)


@pytest.fixture
def spot(lab: Lab) -> Iterator[None]:
    """A node that a cloud gave, and takes away again: nothing runs on it."""
    node = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": SPOT, "labels": {"spot": "yes"}},
    }
    room = {"cpu": "8", "memory": "32Gi", "pods": "16", "nvidia.com/gpu": "8"}
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "ready"}
    status = {"status": {"capacity": room, "allocatable": room, "conditions": [ready]}}
    lab.admin("apply", "-f", "-", stdin=node)
    patch = ("--subresource=status", "--type=merge", "-p", json.dumps(status))
    lab.admin("patch", "node", SPOT, *patch)

    def free() -> bool:
        found = json.loads(lab.admin("get", "node", SPOT, "-o", "json"))
        return not found["spec"].get("taints")

    eventually(free, "the node takes pods")
    yield
    lab.delete(node)


PREFERS_SPOT = {
    "nodeAffinity": {
        "preferredDuringSchedulingIgnoredDuringExecution": [
            {
                "weight": 100,
                "preference": {
                    "matchExpressions": [{"key": "spot", "operator": "In", "values": ["yes"]}]
                },
            }
        ]
    }
}


@pytest.mark.usefixtures("spot")
def test_a_worker_whose_spot_node_is_reclaimed_runs_elsewhere_and_nothing_is_found(
    lab: Lab, start: Callable[..., Object]
) -> None:
    job = start(elastic(lab, 1, affinity=copy.deepcopy(PREFERS_SPOT)), None)

    def on(node: str) -> list[Object]:
        return [p for p in lab.pods(job) if p["spec"].get("nodeName") == node]

    eventually(lambda: bool(on(SPOT)), "the worker is on the spot node")
    (lost,) = on(SPOT)
    # The notice, and then the end: nobody is left there who could end the pod.
    lab.admin("taint", "node", SPOT, "reclaimed=now:NoExecute")
    eventually(
        lambda: all(disrupted(p) == "DeletionByTaintManager" for p in on(SPOT)),
        "the worker is told to leave",
    )
    lab.admin("delete", "node", SPOT)
    has_workers(lab, job, "0", seconds=240)
    lab.wait_for_phase(job, "Running")
    assert lost["metadata"]["uid"] not in {p["metadata"]["uid"] for p in lab.pods(job)}
    assert not lab.engine(job)["status"].get("failed"), "it costs the run none of its lives"
    nothing_is_found(lab, job)


@contextlib.contextmanager
def power_cut(node: str) -> Iterator[None]:
    """The node's kubelet and agent do nothing, as where its network or its power is gone."""
    flags = {f"--node={node}".encode(), f"--hostname-override={node}".encode()}
    stopped = [pid for pid, words in commands() if not flags.isdisjoint(words)]
    assert len(stopped) > 1, f"found {len(stopped)} processes of node {node}"
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        for pid in stopped:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.usefixtures("cluster")  # its node is this machine
def test_a_node_that_is_lost_for_a_while_is_no_silent_agent(
    lab: Lab, start: Callable[..., Object]
) -> None:
    """The twin of an agent that alone is stopped, which is found (`tests/attacks`)."""
    job = start(elastic(lab, 1))
    has_workers(lab, job, "0")
    node = running(lab, job)[0]["spec"]["nodeName"]
    lease = ("get", "lease", f"trainseal-agent-{node}", "-n", "trainseal-system")

    def heard_of() -> datetime:
        renewed = lab.admin(*lease, "-o", "jsonpath={.spec.renewTime}")
        return datetime.fromisoformat(renewed)

    # Longer than an agent that alone is silent has, and shorter than the cluster waits for a node.
    with power_cut(node):
        last = heard_of()
        eventually(
            lambda: datetime.now(UTC) - last > timedelta(seconds=24), "the agent is silent", 60
        )
    eventually(lambda: heard_of() > last, "the node is heard of again")
    nothing_is_found(lab, job)
    seal = lab.status(job)["sealedRun"]
    assert "watch.silent" not in {f["id"] for f in findings(lab, seal)}
