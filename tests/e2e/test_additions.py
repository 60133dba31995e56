"""A platform that injects a sidecar: learnt under Audit, then let in as it is and not otherwise."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.e2e.lab import EDITOR, Lab, Object
from tests.e2e.mesh import MESH, PROXY, Mesh, open_mesh
from tests.e2e.test_training import trainseal
from tests.stage.jobs import FINISH
from tests.stage.waiting import eventually


@pytest.fixture(scope="module")
def mesh(lab: Lab) -> Iterator[Mesh]:
    found = open_mesh(lab)
    yield found
    found.close()


@pytest.fixture(scope="module")
def learnt(lab: Lab, mesh: Mesh) -> list[Any]:
    """The additions that a run under Audit teaches."""
    job = mesh.job("learnt", "good")
    lab.apply(job)
    lab.wait_for_phase(job, "Running")
    said = trainseal(
        lab, "policy", "learn-additions", "learnt", "-n", MESH, "-o", "json",
        kubeconfig=lab.target.kubeconfig,
    )  # fmt: skip
    lab.delete(job)
    proposal = json.loads(said)
    assert (proposal["left"], proposal["pods"], proposal["sealsVerified"]) == ([], 1, True)
    additions: list[Any] = proposal["additions"]
    return additions


def test_a_platforms_sidecar_is_let_in_as_it_was_learnt_and_not_otherwise(
    lab: Lab, mesh: Mesh, learnt: list[Any], apply: Callable[[Object], Object]
) -> None:
    # But for its name, and who has still to say why.
    (addition,) = learnt
    own = ("name", "reason")
    assert {k: v for k, v in addition.items() if k not in own} == {
        k: v for k, v in mesh.addition.items() if k not in own
    }
    mesh.policy("Enforce", learnt)

    job = apply(mesh.job("meshed", "good"))
    lab.wait_for_phase(job, "Running")
    (pod,) = lab.pods(job)
    assert [c["name"] for c in pod["spec"]["initContainers"]] == [PROXY, "trainseal-gate"]

    # Who enters it is told, and it is watched; what it does itself is nobody's difference.
    name = pod["metadata"]["name"]
    lab.kubectl("exec", name, "-c", PROXY, "--", "sh", "-c", "sleep 12; true", namespace=MESH)

    def entered() -> list[Object]:
        return [f for f in mesh.findings(pod) if f["id"] == "process.entered"]

    eventually(lambda: bool(entered()), "who entered the sidecar is told", seconds=30)
    (session,) = entered()
    assert (session["container"], session["user"]) == (PROXY, EDITOR)
    lab.kubectl("exec", name, "-c", "trainer", "--", *FINISH, namespace=MESH)
    lab.wait_for_phase(job, "Succeeded")
    assert [f for f in mesh.findings(pod) if f["severity"] != "Info"] == []

    for kind, words in (("other", "none of those listed"), ("writes", "could write to it")):
        mesh.wait_for_refusal(apply(mesh.job(f"mesh-{kind}", kind)), words)


def test_a_sidecar_that_writes_to_signed_code_is_found_where_nothing_is_refused(
    lab: Lab, mesh: Mesh, learnt: list[Any], apply: Callable[[Object], Object]
) -> None:
    mesh.policy("Audit", learnt)
    job = apply(mesh.job("audited", "writes"))
    lab.wait_for_phase(job, "Running")
    (pod,) = lab.pods(job)

    def told() -> bool:
        return any(
            f["id"] == "pod.changed" and "could write to it" in f["message"]
            for f in mesh.findings(pod)
        )

    eventually(told, "the controller tells of the mount", seconds=40)
    script = "echo 'lr = 0' >> /etc/mesh/c/wait.py"
    lab.admin("exec", "-n", MESH, pod["metadata"]["name"], "-c", PROXY, "--", "sh", "-c", script)

    def changed() -> list[Object]:
        return [f for f in mesh.findings(pod) if f["id"] == "file.changed"]

    eventually(lambda: bool(changed()), "the write to signed code is found", seconds=30)
    assert {f["severity"] for f in changed()} == {"Critical"}
