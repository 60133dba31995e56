"""Nobody's pod becomes a worker of a run, and none keeps its Job from making its own."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterator

import pytest

from tests.cluster import CommandError
from tests.e2e.lab import TEAM, Lab, Object
from tests.stage.jobs import FINISH
from tests.stage.waiting import eventually

JOB_UID = "batch.kubernetes.io/controller-uid"
INDEX = "batch.kubernetes.io/job-completion-index"
_NUMBERS = itertools.count(1)


@pytest.fixture
def running(lab: Lab, apply: Callable[[Object], Object]) -> Object:
    """A sealed job that runs."""
    job = apply(lab.signed_job(f"joined-{next(_NUMBERS)}"))
    lab.wait_for_phase(job, "Running")
    return job


def cpu_spec(lab: Lab) -> Object:
    """A container without a GPU that ends well at once."""
    return {
        "restartPolicy": "Never",
        "containers": [{"name": "main", "image": lab.image, "command": ["python3", "--version"]}],
    }


@pytest.fixture
def ended(lab: Lab) -> Iterator[str]:
    """A pod of the editor's own, without a GPU, that has succeeded."""
    pod: Object = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"ended-{next(_NUMBERS)}", "namespace": TEAM, "labels": {"app": "x"}},
        "spec": cpu_spec(lab),
    }
    lab.apply(pod)
    name = pod["metadata"]["name"]
    lab.admin(
        "wait", f"pod/{name}", "-n", TEAM, "--for=jsonpath={.status.phase}=Succeeded",
        "--timeout=240s",
    )  # fmt: skip
    yield name
    lab.delete(pod)


def labelled(lab: Lab, pod: str, labels: Object) -> str:
    """What is said where the editor's labels are refused; nothing where they are taken."""
    change = {"metadata": {"labels": labels, "annotations": {INDEX: "0"}}}
    try:
        lab.kubectl("patch", "pod", pod, "--type=merge", "-p", json.dumps(change))
    except CommandError as error:
        return error.stderr
    return ""


def test_a_pod_that_has_succeeded_is_not_made_a_worker(
    lab: Lab, running: Object, ended: str
) -> None:
    (worker,) = lab.pods(running)
    job = lab.get("job", f"{running['metadata']['name']}-worker")
    selector = job["spec"]["selector"]["matchLabels"]
    assert set(selector) == {"trainseal.dev/seal", "trainseal.dev/role"}
    assert "found a change of its labels trainseal.dev/*" in labelled(lab, ended, selector)
    assert "was not made for a sealed run" in labelled(
        lab, ended, {JOB_UID: job["metadata"]["uid"]}
    )
    # A UID that no seal is bound to yet: of a run that has just been sealed, for all one knows.
    unknown = "00000000-0000-4000-8000-000000000000"
    assert "bears the label" in labelled(lab, ended, {JOB_UID: unknown})
    # The twin: an ordinary label of an ordinary pod.
    assert not labelled(lab, ended, {"app": "y"})
    status = lab.get("job", job["metadata"]["name"])["status"]
    assert (status["active"], status.get("succeeded", 0)) == (1, 0)
    assert [p["metadata"]["uid"] for p in lab.pods(running)] == [worker["metadata"]["uid"]]


@pytest.fixture
def claimant(lab: Lab, running: Object) -> Iterator[Object]:
    """A Job of the editor's own whose pod bears the UID of the run's Job."""
    uid = lab.get("job", f"{running['metadata']['name']}-worker")["metadata"]["uid"]
    labels = {JOB_UID: uid, "app": "claimant"}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": f"claimant-{next(_NUMBERS)}", "namespace": TEAM},
        "spec": {
            "manualSelector": True,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": cpu_spec(lab)},
        },
    }
    lab.apply(job)
    yield job
    lab.delete(job)
    lab.admin("delete", "pod", "-n", TEAM, "-l", "app=claimant", "--wait=false")


def test_pods_that_bear_the_uid_of_a_runs_job_stall_it_not(
    lab: Lab, running: Object, claimant: Object
) -> None:
    def orphans() -> list[Object]:
        found = lab.admin("get", "pods", "-n", TEAM, "-l", "app=claimant", "-o", "json")
        items: list[Object] = json.loads(found)["items"]
        return [p for p in items if not p["metadata"].get("ownerReferences")]

    name = claimant["metadata"]["name"]
    lab.kubectl("wait", f"job/{name}", "--for=condition=Complete", "--timeout=240s")
    lab.kubectl("delete", "job", name, "--cascade=orphan")
    eventually(lambda: bool(orphans()), "the claimant's pod is nobody's")

    # Its Job still makes what is missing, and comes to its end.
    (before,) = lab.pods(running)
    lab.kubectl("delete", "pod", before["metadata"]["name"], "--wait=false")

    def again() -> list[Object]:
        return [
            p
            for p in lab.pods(running)
            if p["metadata"]["uid"] != before["metadata"]["uid"]
            and any(c["ready"] for c in p["status"].get("containerStatuses", ()))
        ]

    eventually(lambda: bool(again()), "another worker runs")
    (worker,) = again()
    lab.kubectl("exec", worker["metadata"]["name"], "-c", "trainer", "--", *FINISH)
    lab.wait_for_phase(running, "Succeeded")
    assert orphans()
