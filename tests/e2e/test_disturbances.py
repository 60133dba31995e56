"""Workers that are killed or deleted, objects that are edited: found, and the person named.

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
from pathlib import Path

import pytest

from tests.cluster import Cluster, CommandError
from tests.e2e.lab import EDITOR, TEAM, Lab, Object
from tests.stage.jobs import FINISH, trainer
from tests.stage.signing import signed
from tests.stage.waiting import eventually

_NUMBERS = itertools.count(1)
TERMINATE = ("python3", "-c", "import os, signal; os.kill(1, signal.SIGTERM)")
#: Seconds until what is looked at once a minute must have been.
PASS = 100.0
CONTROLLER = "system:serviceaccount:trainseal-system:trainseal-controller"


@pytest.fixture
def start(lab: Lab) -> Iterator[Callable[..., Object]]:
    """Starts a job as the administrator and waits for its worker; deleted after the test."""
    started: list[Object] = []

    def do(job: Object | None = None, phase: str | None = "Running") -> Object:
        job = job or lab.signed_job(f"disturbed-{next(_NUMBERS)}")
        started.append(job)
        lab.admin("apply", "-f", "-", stdin=job)
        if phase:
            lab.wait_for_phase(job, phase)
        return job

    yield do
    for job in started:
        lab.delete(job)


@pytest.fixture
def job(start: Callable[..., Object]) -> Object:
    """One that runs."""
    return start()


def name_of(obj: Object) -> str:
    found: str = obj["metadata"]["name"]
    return found


def worker(lab: Lab, job: Object) -> Object:
    """The pod that holds the one place of the job."""
    (pod,) = [
        p
        for p in lab.pods(job)
        if "deletionTimestamp" not in p["metadata"] and p["status"]["phase"] == "Running"
    ]
    return pod


def findings(lab: Lab, seal: str) -> list[Object]:
    """What the controller itself found on a run."""
    reports = [r for r in lab.listed("driftreports") if r["metadata"]["name"] == seal]
    return [f for r in reports for f in r.get("status", {}).get("findings", [])]


def found(lab: Lab, job: Object, id_: str, seconds: float = 60) -> Object:
    """Waits for the one finding of this id."""
    seal = lab.status(job)["sealedRun"]

    def of_id() -> list[Object]:
        return [f for f in findings(lab, seal) if f["id"] == id_]

    eventually(lambda: bool(of_id()), f"{id_} is found", seconds)
    (one,) = of_id()
    return one


def ids(lab: Lab, job: Object) -> set[str]:
    # A node's agent that is slow on a small machine is no matter of these tests.
    seal = lab.status(job)["sealedRun"]
    return {f["id"] for f in findings(lab, seal) if not f["id"].startswith("watch.")}


def terminate(lab: Lab, job: Object) -> None:
    """The editor's exec, which ends the trainer."""
    with contextlib.suppress(CommandError):  # the session ends with the container
        lab.kubectl("exec", name_of(worker(lab, job)), "-c", "trainer", "--", *TERMINATE)


def runs_again(lab: Lab, job: Object, before: Object) -> None:
    def replaced() -> bool:
        return any(
            p["metadata"]["uid"] != before["metadata"]["uid"]
            and any(c.get("ready") for c in p["status"].get("containerStatuses", []))
            for p in lab.pods(job)
        )

    eventually(replaced, "another worker runs")


# Attacks ----------------------------------------------------------------------------------------


def test_who_deletes_a_worker_of_anothers_job_is_named(lab: Lab, job: Object) -> None:
    pod = worker(lab, job)
    lab.kubectl("delete", "pod", name_of(pod), "--wait=false")
    seen = found(lab, job, "pod.deleted")
    assert (seen["user"], seen["severity"]) == (EDITOR, "Warning")
    assert seen["evidence"]["podUID"] == pod["metadata"]["uid"]
    assert name_of(pod) in seen["message"]
    runs_again(lab, job, pod)
    eventually(lambda: lab.status(job).get("drifted") == "1 warning", "the job shows it")
    # Nothing else is made of it, also after the pod is long gone.
    pod = worker(lab, job)
    terminate(lab, job)
    found(lab, job, "pod.killed")
    assert ids(lab, job) == {"pod.deleted", "pod.killed"}


def test_a_worker_that_is_killed_from_within_names_who_had_a_session(lab: Lab, job: Object) -> None:
    terminate(lab, job)
    seen = found(lab, job, "pod.killed")
    assert seen["user"] == EDITOR
    assert (seen["evidence"]["signal"], seen["container"]) == ("SIGTERM", "trainer")
    assert seen["accessRecord"]


def test_a_worker_that_is_killed_from_the_node_is_counted_and_accuses_nobody(
    lab: Lab, cluster: Cluster, job: Object
) -> None:
    pod = worker(lab, job)
    for process in trainers(pod["metadata"]["uid"]):
        os.kill(process, signal.SIGKILL)
    seen = found(lab, job, "pod.killed")
    assert "user" not in seen
    assert seen["evidence"]["node"] == pod["spec"]["nodeName"]
    assert seen["evidence"]["signal"] == "SIGKILL"
    assert "unexplained within 24 h: " in seen["message"]
    assert f"{pod['spec']['nodeName']} (" in seen["message"]
    events = lab.kubectl("get", "events", "--field-selector", f"involvedObject.name={name_of(job)}")
    assert "PodKilled" in events


def trainers(pod_uid: str) -> list[int]:
    """Processes of this machine in the pod's cgroup that run the signed script."""
    processes = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if pod_uid not in (folder / "cgroup").read_text().replace("_", "-"):
                continue
            if b"wait.py" in (folder / "cmdline").read_bytes():
                processes.append(int(folder.name))
    assert processes, f"no trainer of pod {pod_uid}"
    return processes


def test_a_service_is_not_edited_and_is_found_where_it_was_all_the_same(
    lab: Lab, job: Object
) -> None:
    edit = (
        *("patch", "service", name_of(job), "-n", TEAM, "--type=merge"),
        *("-p", json.dumps({"spec": {"selector": {"app": "mallory"}}})),
    )
    with pytest.raises(CommandError, match="a change of what it says"):
        lab.kubectl(*edit)
    # With the controller's own credentials, say.
    lab.admin(*edit, f"--as={CONTROLLER}", "--as-group=system:masters")
    seen = found(lab, job, "object.changed")
    assert seen["severity"] == "Critical"
    assert f"Service {name_of(job)}" in seen["message"]
    assert "mallory" in seen["message"]


def test_a_configuration_that_is_deleted_and_made_anew_is_found(lab: Lab, job: Object) -> None:
    name = f"{lab.status(job)['sealedRun']}-config"
    before = lab.get("configmap", name)
    anew = copy.deepcopy(before)
    for field in ("uid", "resourceVersion", "creationTimestamp", "managedFields"):
        anew["metadata"].pop(field, None)
    del anew["metadata"]["labels"]  # what bears them is the controller's to make
    # The same content: only its age tells.
    made = datetime.fromisoformat(before["metadata"]["creationTimestamp"])
    eventually(lambda: datetime.now(UTC) - made > timedelta(seconds=5), "it has an age")
    lab.kubectl("delete", "configmap", name)
    with contextlib.suppress(CommandError):  # the controller may be faster
        lab.kubectl("create", "-f", "-", stdin=anew)
    seen = found(lab, job, "object.deleted", PASS)
    assert f"ConfigMap {name}" in seen["message"]
    assert "made anew" in seen["message"] or "gone" in seen["message"]
    assert seen["user"] == EDITOR
    assert seen["accessRecord"].startswith(f"{name}-")


def test_a_job_that_is_deleted_beneath_a_run_is_found(lab: Lab, job: Object) -> None:
    lab.kubectl("delete", "job", f"{name_of(job)}-worker", "--wait=false")
    seen = found(lab, job, "object.deleted", PASS)
    assert f"Job {name_of(job)}-worker" in seen["message"]
    assert seen["user"] == EDITOR


# Twins ------------------------------------------------------------------------------------------


def test_suspending_resuming_and_ending_well_are_silent(lab: Lab, job: Object) -> None:
    def patch(*, suspend: bool) -> None:
        change = json.dumps({"spec": {"suspend": suspend}})
        lab.admin("patch", "tj", name_of(job), "-n", TEAM, "--type=merge", "-p", change)

    patch(suspend=True)
    lab.wait_for_phase(job, "Suspended")
    patch(suspend=False)  # while the pods of before are still ending
    lab.wait_for_phase(job, "Running")
    before = worker(lab, job)
    terminate(lab, job)
    found(lab, job, "pod.killed")
    assert ids(lab, job) == {"pod.killed"}
    runs_again(lab, job, before)
    lab.kubectl("exec", name_of(worker(lab, job)), "-c", "trainer", "--", *FINISH)
    lab.wait_for_phase(job, "Succeeded")


def test_a_job_that_its_user_deletes_leaves_no_finding(
    lab: Lab, start: Callable[..., Object]
) -> None:
    deleted, other = start(), start()
    seal = lab.status(deleted)["sealedRun"]
    lab.admin("delete", "tj", name_of(deleted), "-n", TEAM, "--timeout=60s")
    eventually(lambda: not lab.pods(deleted), "its pods are gone")
    terminate(lab, other)
    found(lab, other, "pod.killed")
    assert findings(lab, seal) == []


def test_an_eviction_is_told_without_alarm_and_names_who_asked(lab: Lab, job: Object) -> None:
    pod = worker(lab, job)
    eviction = {
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": name_of(pod), "namespace": TEAM},
    }
    path = f"/api/v1/namespaces/{TEAM}/pods/{name_of(pod)}/eviction"
    lab.admin("create", "--raw", path, "-f", "-", stdin=eviction)
    assert found(lab, job, "pod.evicted")["severity"] == "Info"
    runs_again(lab, job, pod)
    assert not lab.engine(job)["status"].get("failed"), "it costs the run none of its lives"
    terminate(lab, job)
    found(lab, job, "pod.killed")
    assert ids(lab, job) == {"pod.evicted", "pod.killed"}


HUNGRY = {"hungry.py": "import time\nx = b'x' * (1 << 30)\ntime.sleep(60)\n"}


def test_a_worker_that_runs_out_of_memory_was_not_killed_by_anybody(
    lab: Lab, start: Callable[..., Object]
) -> None:
    job = lab.job(f"hungry-{next(_NUMBERS)}", "hungry.py")
    job["spec"]["code"][0]["oci"]["reference"] = lab.push_tree("hungry", HUNGRY, lab.alice)
    trainer(job)["resources"]["limits"]["memory"] = "64Mi"
    start(signed(job, lab.alice), None)

    def out_of_memory() -> bool:
        return any(
            c["state"].get("terminated", {}).get("reason") == "OOMKilled"
            for p in lab.pods(job)
            for c in p["status"].get("containerStatuses", [])
        )

    eventually(out_of_memory, "a worker ran out of memory")
    other = start()
    terminate(lab, other)
    found(lab, other, "pod.killed")
    assert ids(lab, job) == set()
