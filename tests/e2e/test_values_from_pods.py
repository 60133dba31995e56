"""What a signed template takes from its pod is signed too, or guarded until the trainer has it."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.cluster import CommandError
from tests.e2e.lab import Lab, Object, changed
from tests.stage.jobs import FINISH, SHORT_CODE, trainer
from tests.stage.signing import signed
from tests.stage.waiting import eventually

FLAVOR = "example.org/flavor"
SHOW = {**SHORT_CODE, "show.py": "import os\nprint(os.environ['FLAVOR'])\n"}


def from_field(path: str, name: str = "FLAVOR") -> Object:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def takes(path: str, name: str = "FLAVOR") -> Callable[[Object], None]:
    return lambda job: trainer(job)["env"].append(from_field(path, name))


@pytest.mark.parametrize(
    ("path", "name", "words"),
    [
        (f"metadata.annotations['{FLAVOR}']", "FLAVOR", "which can be written after signing"),
        ("metadata.labels['flavor']", "FLAVOR", "which can be written after signing"),
        ("metadata.name", "LD_PRELOAD", "decides what code is loaded"),
    ],
)
def test_what_can_be_written_after_signing_is_no_source_of_a_variable(
    lab: Lab, path: str, name: str, words: str
) -> None:
    said = lab.refusal(signed(changed(lab.job("from-the-pod"), takes(path, name)), lab.alice))
    assert words in said


@pytest.mark.parametrize(
    "path",
    [
        "metadata.annotations['batch.kubernetes.io/job-completion-index']",
        "metadata.name",
        "status.podIP",
        "spec.nodeName",
    ],
)
def test_what_the_cluster_says_of_the_pod_is(lab: Lab, path: str) -> None:
    assert lab.accepts(signed(changed(lab.job("from-the-pod"), takes(path)), lab.alice))


@pytest.fixture
def waiting(lab: Lab, apply: Callable[[Object], Object]) -> Object:
    """A job that takes a variable from its template's annotation, and whose trainer waits.

    Its gate has ended, and a signed init container has not: the kubelet has not read the annotation
    for the trainer yet.
    """
    job = lab.job("flavored", "show.py")
    job["spec"]["code"][0]["oci"]["reference"] = lab.push_tree("show-flavor", SHOW, lab.alice)
    template = job["spec"]["roles"][0]["template"]
    template["metadata"] = {"annotations": {FLAVOR: "small"}}
    template["spec"]["initContainers"] = [
        {"name": "prepare", "image": lab.image, "command": ["python3", "/workspace/wait.py"]}
    ]
    takes(f"metadata.annotations['{FLAVOR}']")(job)
    apply(signed(job, lab.alice))

    def prepares() -> bool:
        return any(
            container["name"] == "prepare" and "running" in container["state"]
            for pod in lab.pods(job)
            for container in pod["status"].get("initContainerStatuses", ())
        )

    eventually(prepares, "the init container runs")
    return job


def test_an_annotation_that_the_trainer_is_given_does_not_change_before_it_starts(
    lab: Lab, waiting: Object
) -> None:
    (pod,) = lab.pods(waiting)
    name = pod["metadata"]["name"]
    for change in ({FLAVOR: "/checkpoints/evil.so"}, {FLAVOR: None}):
        patch = json.dumps({"metadata": {"annotations": change}})
        with pytest.raises(
            CommandError, match=rf"found a change of metadata\.annotations\[{FLAVOR}"
        ):
            lab.kubectl("patch", "pod", name, "--type=merge", "-p", patch)
    # Another one is anybody's: it reaches nobody.
    lab.kubectl("annotate", "pod", name, "example.org/note=mine")
    lab.kubectl("exec", name, "-c", "prepare", "--", *FINISH)
    lab.wait_for_phase(waiting, "Succeeded")
    assert lab.kubectl("logs", name, "-c", "trainer") == "small\n"
