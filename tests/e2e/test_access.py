"""Who gets into a running worker, or ends it, is on record by name."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.cluster import CommandError
from tests.e2e.lab import EDITOR, TEAM, Lab, Object
from tests.stage.jobs import FINISH
from tests.stage.waiting import eventually


@pytest.fixture
def worker(lab: Lab, apply: Callable[[Object], Object], request: pytest.FixtureRequest) -> Object:
    """The one pod of a job that runs; under a name of its own."""
    name = "access-" + request.node.name.removeprefix("test_").replace("_", "-")
    job = apply(lab.signed_job(name[:30].rstrip("-")))
    lab.wait_for_phase(job, "Running")
    (pod,) = lab.pods(job)
    return pod


def records(lab: Lab, pod: Object) -> list[Object]:
    """What is on record of a pod, as its editor may read it."""
    items = json.loads(lab.kubectl("get", "accessrecords", "-o", "json"))["items"]
    uid = pod["metadata"]["uid"]
    return [item["spec"] for item in items if item["spec"]["pod"]["uid"] == uid]


def name_of(pod: Object) -> str:
    found: str = pod["metadata"]["name"]
    return found


def test_an_exec_works_and_names_who_ran_what(lab: Lab, worker: Object) -> None:
    said = lab.kubectl("exec", name_of(worker), "-c", "trainer", "--", "cat", "/etc/hostname")
    assert said.strip() == worker["spec"]["hostname"]
    (found,) = records(lab, worker)
    assert found["username"] == EDITOR
    assert "system:authenticated" in found["groups"]
    assert found["command"] == ["cat", "/etc/hostname"]
    assert (found["action"], found["container"], found["allowed"]) == ("Exec", "trainer", True)
    assert found["node"] == worker["spec"]["nodeName"]
    assert found["sealedRun"] == worker["metadata"]["labels"]["trainseal.dev/seal"]


def test_a_worker_that_is_deleted_is_one_record(lab: Lab, worker: Object) -> None:
    """The kubelet deletes it once more when its containers have ended: that is none."""
    lab.kubectl("delete", "pod", name_of(worker), "--timeout=60s")
    (found,) = records(lab, worker)
    assert (found["action"], found["username"]) == ("Delete", EDITOR)


def test_a_worker_that_ends_well_leaves_no_record_but_that_of_who_told_it_to(
    lab: Lab, worker: Object
) -> None:
    lab.kubectl("exec", name_of(worker), "-c", "trainer", "--", *FINISH)
    job = worker["metadata"]["labels"]["trainseal.dev/job"]
    lab.wait_for_phase({"metadata": {"name": job, "namespace": TEAM}}, "Succeeded")
    lab.kubectl("delete", "trainingjob", job, "--timeout=60s")

    def gone() -> bool:
        return not lab.admin(
            "get", "pods", "-n", TEAM, "-l", f"trainseal.dev/job={job}", "-o", "name"
        )

    eventually(gone, "its pods are gone")
    assert [r["action"] for r in records(lab, worker)] == ["Exec"]


def test_a_pod_of_nobodys_is_left_alone(lab: Lab, apply: Callable[[Object], Object]) -> None:
    pod = apply(
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "access-bare", "namespace": TEAM},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {"name": "main", "image": lab.image, "command": ["sleep", "infinity"]}
                ],
            },
        }
    )
    lab.admin("wait", "pod/access-bare", "-n", TEAM, "--for=condition=Ready", "--timeout=60s")
    assert lab.kubectl("exec", "access-bare", "--", "echo", "in") == "in\n"
    assert records(lab, lab.get("pod", name_of(pod))) == []


def test_the_record_is_nobodys_to_change_or_take_away(lab: Lab, worker: Object) -> None:
    lab.kubectl("exec", name_of(worker), "-c", "trainer", "--", "true")
    selector = f"trainseal.dev/seal={worker['metadata']['labels']['trainseal.dev/seal']}"
    (line,) = lab.kubectl("get", "access", "-l", selector, "-o", "name").splitlines()
    for by in (lab.kubectl, lambda *args: lab.admin("-n", TEAM, *args)):
        with pytest.raises(CommandError, match=r"Forbidden|forbidden|denied"):
            by("delete", line)
        with pytest.raises(CommandError, match=r"Forbidden|forbidden|denied|cannot be changed"):
            by("patch", line, "--type=merge", "-p", '{"spec": {"username": "bob"}}')
