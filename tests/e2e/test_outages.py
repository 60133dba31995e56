"""Controllers killed or stopped in the middle of things, a webhook that is away: all goes on."""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster, CommandError
from tests.cluster.processes import Process
from tests.e2e.lab import EDITOR, TEAM, Lab, Object, make_namespace
from tests.e2e.refusals import refused_to_us
from tests.stage.jobs import FINISH
from tests.stage.policies import policy
from tests.stage.release import NAMESPACE
from tests.stage.signing import signed
from tests.stage.waiting import eventually

#: A standby leads within this many seconds after its leader was killed.
TAKEOVER = 15.0


def leader(lab: Lab) -> str:
    """The pod that holds the Lease; empty while nobody does."""
    lease = lab.get("lease", "trainseal-controller", NAMESPACE)
    holder: str = lease["spec"].get("holderIdentity") or ""
    return holder.rpartition("_")[0]


def kill_controllers(lab: Lab) -> None:
    """All of them at once, by SIGKILL from the node: no moment to tidy up, no Lease given back.

    Returns once they are gone; the kubelet starts them again.
    """
    rollout(lab, "controller")  # both are there: an earlier test may have killed them
    selector = ("-n", NAMESPACE, "-l", "app.kubernetes.io/component=controller")
    pods = json.loads(lab.admin("get", "pods", *selector, "-o", "json"))["items"]
    numbers = [n for pod in pods for n in processes_of(pod["metadata"]["uid"], b"controller")]
    killed = [process for n in numbers if (process := Process.running(n)) is not None]
    assert len(killed) >= 2, f"found controllers {numbers}, expected those of two replicas"
    for process in killed:
        os.kill(process.pid, signal.SIGKILL)
    eventually(lambda: not any(p.alive for p in killed), "the controllers are gone", 5)


def seals_of(lab: Lab, job: Object) -> list[str]:
    """Names of the seals of this very job object."""
    name, namespace = job["metadata"]["name"], job["metadata"]["namespace"]
    uid = lab.get("trainingjob", name, namespace)["metadata"]["uid"]
    found = json.loads(lab.admin("get", "sealedruns", "-n", namespace, "-o", "json"))
    return [s["metadata"]["name"] for s in found["items"] if s["spec"]["job"]["uid"] == uid]


@pytest.mark.usefixtures("cluster")
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
            "wait", "trainingjob/held-up", "-n", TEAM, "--timeout=240s",
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


@pytest.mark.usefixtures("cluster")
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
    # Both: a kubelet waits before it starts again what was killed a moment ago.
    rollout(lab, "controller")
    eventually(lambda: bool(leader(lab)), "somebody leads")
    name = leader(lab)
    processes = processes_of(lab.get("pod", name, NAMESPACE)["metadata"]["uid"], b"controller")
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


def rollout(lab: Lab, component: str) -> None:
    """Waits until all replicas are ready."""
    place = (f"deployment/trainseal-{component}", "-n", NAMESPACE)
    lab.admin("rollout", "status", *place, "--timeout=240s")


def processes_of(pod_uid: str, word: bytes) -> list[int]:
    """Processes of this machine in the pod's cgroup whose command has that word."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if pod_uid not in (folder / "cgroup").read_text().replace("_", "-"):
                continue
            if word in (folder / "cmdline").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    assert found, f"no process of pod {pod_uid}"
    return found


# The webhook ------------------------------------------------------------------------------------


@contextlib.contextmanager
def webhook_away(lab: Lab) -> Iterator[None]:
    """No replica is there within the block; all are ready again after it."""
    assert refused_to_us(lab) == []  # their logs go with them
    place = ("deployment/trainseal-webhook", "-n", NAMESPACE)
    replicas = lab.get("deployment", "trainseal-webhook", NAMESPACE)["spec"]["replicas"]
    lab.admin("scale", *place, "--replicas=0")
    try:
        yield
    finally:
        lab.admin("scale", *place, f"--replicas={replicas}")
        rollout(lab, "webhook")


@pytest.mark.usefixtures("cluster")
def test_while_the_webhook_is_away_nothing_new_is_trusted_and_all_else_goes_on(
    lab: Lab, apply: Callable[[Object], Object]
) -> None:
    job = apply(lab.signed_job("before-it-went"))
    lab.wait_for_phase(job, "Running")
    (pod,) = lab.pods(job)
    name = pod["metadata"]["name"]
    good = lab.signed_job("after-it-came-back")
    with webhook_away(lab):
        eventually(lambda: "failed calling webhook" in lab.answer(good), "the webhook is away")

        # Fails closed: a good job, a GPU pod by the floor, a way into a sealed pod.
        assert "ValidatingAdmissionPolicy 'trainseal-pods'" in lab.refusal(plain_pod(lab, gpus=1))
        with pytest.raises(CommandError) as refused:
            lab.kubectl("exec", name, "-c", "trainer", "--", "true")
        assert 'failed calling webhook "connect.access.trainseal.dev"' in refused.value.stderr

        # The rest of the cluster works, and a run that goes on comes to its end.
        plain = apply(plain_pod(lab))
        lab.admin("wait", "pod/plain", "-n", TEAM, "--for=condition=Ready", "--timeout=240s")
        lab.delete(plain)
        (trainer,) = processes_of(pod["metadata"]["uid"], b"/workspace/wait.py")
        os.kill(trainer, signal.SIGUSR1)
        status = lab.wait_for_phase(job, "Succeeded")
        seal = lab.get("sealedrun", status["sealedRun"])
        assert seal["status"]["phase"] == "Succeeded"
    eventually(lambda: not lab.answer(good), "a good job is accepted again")
    apply(good)
    lab.wait_for_phase(good, "Running")
    (pod,) = lab.pods(good)
    lab.kubectl("exec", pod["metadata"]["name"], "-c", "trainer", "--", "true")


def plain_pod(lab: Lab, gpus: int = 0) -> Object:
    """A pod as anybody may write it."""
    resources = {"limits": {"nvidia.com/gpu": gpus}} if gpus else {}
    command = ["sleep", "infinity"]
    container = {"name": "main", "image": lab.image, "command": command, "resources": resources}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "plain", "namespace": TEAM},
        "spec": {"terminationGracePeriodSeconds": 1, "containers": [container]},
    }


# Stuck --------------------------------------------------------------------------------------------

STUCK = "research-stuck"


@pytest.fixture
def stuck(lab: Lab, apply: Callable[[Object], Object]) -> Iterator[Object]:
    """A worker in a namespace that is being deleted, kept there by a finalizer of the editor's."""
    make_namespace(lab, STUCK)
    made = policy(
        STUCK,
        STUCK,
        signers=[lab.alice],
        image_signers=[lab.platform],
        registries=lab.registries,
    )
    lab.admin("apply", "-f", "-", stdin=made)
    job = signed(lab.job("stuck", namespace=STUCK), lab.alice)
    eventually(lambda: not lab.answer(job), "the webhook knows the policy")
    apply(job)
    lab.wait_for_phase(job, "Running")
    (pod,) = lab.pods(job)
    keep = '{"metadata": {"finalizers": ["example.org/keep"]}}'
    name = pod["metadata"]["name"]
    lab.kubectl("patch", "pod", name, "--type=merge", "-p", keep, namespace=STUCK)
    lab.admin("delete", "namespace", STUCK, "--wait=false")
    yield pod
    free = '{"metadata": {"finalizers": null}}'
    with contextlib.suppress(CommandError):  # where the test did it
        lab.admin("patch", "pod", name, "-n", STUCK, "--type=merge", "-p", free)
    lab.admin("delete", "provenancepolicy", STUCK, "--ignore-not-found")


def test_a_namespace_that_is_stuck_is_freed_and_who_did_it_is_on_record(
    lab: Lab, stuck: Object
) -> None:
    name = stuck["metadata"]["name"]

    def going() -> bool:
        return "deletionTimestamp" in lab.get("pod", name, STUCK)["metadata"]

    eventually(going, "the namespace's end has come to the pod")
    # No record can be made here any more, and the deletion is not held up by that.
    lab.kubectl("delete", "pod", name, "--force", "--grace-period=0", "--wait=false",
                namespace=STUCK)  # fmt: skip
    selector = f"trainseal.dev/namespace={STUCK}"

    def recorded() -> list[Object]:
        found = lab.admin("get", "accessrecords", "-n", NAMESPACE, "-l", selector, "-o", "json")
        items: list[Object] = json.loads(found)["items"]
        return [i["spec"] for i in items]

    eventually(lambda: bool(recorded()), "it is on record in the release's namespace")
    assert {(r["action"], r["username"], r["pod"]["name"]) for r in recorded()} == {
        ("Delete", EDITOR, name)
    }
    free = '{"metadata": {"finalizers": null}}'
    lab.kubectl("patch", "pod", name, "--type=merge", "-p", free, namespace=STUCK)
    eventually(
        lambda: not lab.admin("get", "namespace", STUCK, "--ignore-not-found", "-o", "name"),
        "the namespace is gone",
        120,
    )
