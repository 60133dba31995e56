"""The controller, killed or stopped in the middle of things: nothing changes in the end."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.e2e.lab import TEAM, Lab, Object, eventually
from tests.stage.jobs import FINISH
from tests.stage.release import NAMESPACE

#: A standby leads within this many seconds after its leader was killed.
TAKEOVER = 15.0


def leader(lab: Lab) -> str:
    """The pod that holds the Lease; empty while nobody does."""
    lease = lab.get("lease", "trainseal-controller", NAMESPACE)
    holder: str = lease["spec"].get("holderIdentity") or ""
    return holder.rpartition("_")[0]


def kill_controllers(lab: Lab) -> None:
    """All of them at once, without a moment to tidy up."""
    lab.admin(
        "delete", "pods", "-n", NAMESPACE, "-l", "app.kubernetes.io/component=controller",
        "--grace-period=0", "--force", "--wait=false",
    )  # fmt: skip


def seals_of(lab: Lab, job: Object) -> list[str]:
    """Names of the seals of this very job object."""
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    uid = lab.get("trainingjob", name, namespace)["metadata"]["uid"]
    found = json.loads(lab.admin("get", "sealedruns", "-n", namespace, "-o", "json"))
    return [s["metadata"]["name"] for s in found["items"] if s["spec"]["job"]["uid"] == uid]


def test_killed_between_seal_and_job_it_goes_on_where_it_was(
    lab: Lab, apply: Callable[[Object], Object]
) -> None:
    # A Service that is in the way holds the controller up after the seal and before the Job.
    obstacle = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "held-up", "namespace": TEAM},
        "spec": {"clusterIP": "None", "selector": {"app": "somebody-elses"}},
    }
    lab.apply(obstacle)
    try:
        job = apply(lab.signed_job("held-up"))
        lab.admin(
            "wait", "trainingjob/held-up", "-n", TEAM, "--timeout=60s",
            "--for=jsonpath={.status.conditions[?(@.type=='Sealed')].reason}=NameTaken",
        )  # fmt: skip
        before = seals_of(lab, job)
        assert len(before) == 1
        assert not lab.admin("get", "jobs", "-n", TEAM, "-l", "trainseal.dev/job=held-up")
        kill_controllers(lab)
    finally:
        lab.delete(obstacle)
    status = lab.wait_for_phase(job, "Running")
    assert seals_of(lab, job) == before == [status["sealedRun"]]


def test_killed_while_a_job_runs_it_follows_the_job_to_its_end(
    lab: Lab, apply: Callable[[Object], Object]
) -> None:
    job = apply(lab.signed_job("followed"))
    before = lab.wait_for_phase(job, "Running")
    (pod,) = lab.pods(job)
    kill_controllers(lab)
    lab.kubectl("exec", pod["metadata"]["name"], "-c", "trainer", "--", *FINISH)
    status = lab.wait_for_phase(job, "Succeeded")
    assert status["sealedRun"] == before["sealedRun"]


@pytest.fixture
def frozen_leader(lab: Lab, cluster: Cluster) -> Iterator[str]:
    """The leader's process, stopped as by a hung machine: it renews nothing and tells nobody."""
    eventually(lambda: bool(leader(lab)), "somebody leads")
    name = leader(lab)
    processes = processes_of(lab.get("pod", name, NAMESPACE)["metadata"]["uid"])
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    yield name
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)


def test_a_standby_takes_over_from_a_leader_that_is_stopped(
    lab: Lab, apply: Callable[[Object], Object], frozen_leader: str
) -> None:
    eventually(lambda: leader(lab) not in ("", frozen_leader), "a standby leads", TAKEOVER)
    job = apply(lab.signed_job("after-takeover"))
    lab.wait_for_phase(job, "Running")


def processes_of(pod_uid: str) -> list[int]:
    """Processes of this machine in the pod's cgroup that run our command."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if pod_uid not in (folder / "cgroup").read_text().replace("_", "-"):
                continue
            if b"controller" in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    assert found, f"no process of pod {pod_uid}"
    return found
