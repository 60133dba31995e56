"""Group *Around the gate*: what passes itself off as a platform's sidecar, in pods of a run."""

from __future__ import annotations

from tests.attacks.case import Attack, Case, Told, Twin
from tests.attacks.cases_api import GATE
from tests.attacks.scene import Scene
from tests.e2e.lab import Lab
from tests.e2e.mesh import MESH, Mesh, open_mesh
from tests.stage.jobs import FINISH

#: Of the one lab that there is.
_MESHES: list[Mesh] = []
_SAYS = Told("the pods are refused; the events of their Job say what of the sidecar is not named")


def _mesh(lab: Lab) -> Mesh:
    """Its policy is enforced, and names the honest platforms."""
    if not _MESHES:
        mesh = open_mesh(lab)
        mesh.policy("Enforce", [mesh.addition, mesh.reading])
        _MESHES.append(mesh)
    return _MESHES[0]


def _injected(kind: str, words: str) -> Attack:
    """A signed job whose pods are given that sidecar."""

    def do(scene: Scene) -> float:
        mesh = _mesh(scene.lab)
        job = mesh.job(f"injected-{kind}", kind)
        scene.lab.apply(job)
        try:
            mesh.wait_for_refusal(job, words)
        finally:
            scene.lab.delete(job)
        return 0.0

    return do


def _trains(kind: str) -> Twin:
    """With a platform's own sidecar, which writes files and runs programs; nothing is found."""

    def do(scene: Scene) -> float:
        lab, mesh = scene.lab, _mesh(scene.lab)
        job = mesh.job(f"injected-{kind}", kind)
        lab.apply(job)
        try:
            lab.wait_for_phase(job, "Running")
            (pod,) = lab.pods(job)
            words = ("exec", pod["metadata"]["name"], "-c", "trainer", "--", *FINISH)
            lab.kubectl(*words, namespace=MESH)
            lab.wait_for_phase(job, "Succeeded")
            assert [f for f in mesh.findings(pod) if f["severity"] != "Info"] == []
        finally:
            lab.delete(job)
        return 0.0

    return do


CASES = (
    Case(
        GATE, "sidecar of another image, under a platform's name", "T1610", _SAYS,
        _injected("other", "none of those listed"), _trains("good"), "the platform's own sidecar",
    ),
    Case(
        GATE, "a platform's sidecar that mounts the code for writing", "T1610", _SAYS,
        _injected("writes", "could write to it"), _trains("reads"), "one that mounts it to read",
    ),
)  # fmt: skip
