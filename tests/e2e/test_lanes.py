"""Notebooks run in a lane as their owners wrote them; what a lane is not for is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest
import yaml

from tests.cluster import CommandError
from tests.e2e.lab import EDITOR, Lab, Object
from tests.e2e.lanes import open_lane
from tests.guides.ground import ADMIN, Ground
from tests.stage import notebooks
from tests.stage.notebooks import LABEL, LANE, SCRATCH
from tests.stage.signing import signed
from tests.stage.waiting import eventually

SPACE = "research-notebooks"
NARROW = "research-lane-narrow"


def opened(lab: Lab, namespace: str, pods: int) -> None:
    """A namespace with a lane of so many pods; the signed image has a tag."""
    crane = str(lab.target.tools["crane"])
    lab.target.run([crane, "tag", "--insecure", lab.on_host(lab.image), "notebook"])
    open_lane(lab, namespace, pods, tagged(lab))


def closed(lab: Lab, namespace: str) -> None:
    lab.admin("delete", "provenancepolicy", namespace)
    lab.admin("delete", "namespace", namespace, "--wait=false")


@pytest.fixture(scope="module")
def lane(lab: Lab) -> Iterator[Lab]:
    """A lane with places for all tests here."""
    opened(lab, SPACE, 8)
    yield lab
    closed(lab, SPACE)


@pytest.fixture
def narrow(lab: Lab) -> Iterator[Lab]:
    """A lane of two pods."""
    opened(lab, NARROW, 2)
    yield lab
    closed(lab, NARROW)


def tagged(lab: Lab) -> str:
    """The signed image as notebooks name it."""
    return f"{lab.image.partition('@')[0]}:notebook"


def running(lab: Lab, name: str) -> Object:
    """The pod, once it runs."""
    lab.admin("wait", "--for=create", f"pod/{name}", "-n", SPACE, "--timeout=240s")
    lab.admin("wait", f"pod/{name}", "-n", SPACE, "--for=condition=Ready", "--timeout=240s")
    return lab.get("pod", name, SPACE)


def test_a_stateful_set_runs_unchanged_and_who_gets_in_is_on_record(
    lane: Lab, ground: Ground, apply: Callable[[Object], Object]
) -> None:
    """Used as how-to/notebooks.md says."""
    apply(notebooks.claim(SCRATCH, SPACE))
    made = notebooks.workload("StatefulSet", "jupyter", SPACE, tagged(lane))
    notebooks.mounting(made["spec"]["template"], SCRATCH)
    walk = ground.walk("how-to/notebooks.md", ADMIN)
    walk.file("jupyter.yaml", yaml.safe_dump(made))
    walk.file("prepared/of.txt", "what was prepared\n")
    walk.instead["kubectl get access"] = f"jupyter-0-… {EDITOR} Exec jupyter-0"
    words = ("exec", "jupyter-0", "--", "sh", "-c", "echo draft >/work/draft; cat /work/draft")

    def entered() -> None:
        running(lane, "jupyter-0")
        assert lane.kubectl(*words, namespace=SPACE) == "draft\n"

    walk.before("kubectl get access", entered)
    walk.go()
    apply(made)  # it is there already: this takes it away at the end
    pod = running(lane, "jupyter-0")
    assert pod["metadata"]["labels"][LABEL] == LANE
    assert pod["spec"]["activeDeadlineSeconds"] == 3600
    assert pod["spec"]["containers"][0]["image"] == lane.image
    items = json.loads(
        lane.kubectl("get", "accessrecords", "-l", f"{LABEL}={LANE}", "-o", "json", namespace=SPACE)
    )["items"]
    (found,) = [item["spec"] for item in items]
    assert (found["action"], found["username"], found["lane"]) == ("Exec", EDITOR, LANE)
    assert found["pod"]["uid"] == pod["metadata"]["uid"]
    assert found["command"] == list(words[3:])


def test_a_deployment_has_its_places_and_the_pod_beyond_the_limit_none(narrow: Lab) -> None:
    deployment = notebooks.workload("Deployment", "render", NARROW, tagged(narrow))
    deployment["spec"]["replicas"] = 3
    narrow.apply(deployment)

    def told() -> bool:
        events = narrow.listed("events", NARROW, fields="reason=FailedCreate")
        return any("expected at most 2" in e["message"] for e in events)

    eventually(told, "the third is refused, and its set is told")
    assert len(narrow.listed("pods", NARROW, labels="app=render")) == 2
    assert "expected at most 2" in narrow.refusal(notebooks.pod("third", NARROW, tagged(narrow)))


def test_an_unsigned_image_is_refused_and_a_signed_one_passes(lane: Lab) -> None:
    unsigned = lane.variant_of_image("lane")
    said = lane.refusal(notebooks.pod("unsigned", SPACE, unsigned))
    assert f"may not run in lane {LANE}" in said
    assert "refuted" in said
    assert lane.accepts(notebooks.pod("signed", SPACE, lane.image))


def test_a_gpu_job_stays_refused_and_a_pod_without_a_gpu_is_nobodys_business(lane: Lab) -> None:
    spec = notebooks.pod("x", SPACE, lane.image)["spec"] | {"restartPolicy": "Never"}
    job: Object = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "trains", "namespace": SPACE},
        "spec": {"template": {"spec": spec}},
    }
    assert "make it a TrainingJob" in lane.refusal(job)
    plain = notebooks.pod("plain", SPACE, lane.image, gpus=0)
    assert lane.accepts(plain)


def test_nothing_is_changed_on_a_notebook_that_runs(
    lane: Lab, apply: Callable[[Object], Object]
) -> None:
    apply(notebooks.pod("kept", SPACE, tagged(lane)))
    running(lane, "kept")
    for change in (
        {"metadata": {"labels": {LABEL: None}}},
        {"spec": {"containers": [{"name": "main", "image": lane.variant_of_image("later")}]}},
        {"metadata": {"annotations": {"cdi.k8s.io/x": "nvidia.com/gpu=all"}}},
    ):
        words = ("patch", "pod", "kept", "-p", json.dumps(change))
        with pytest.raises(CommandError, match=r"found a change of|found an annotation"):
            lane.kubectl(*words, namespace=SPACE)
    lane.kubectl("label", "pod", "kept", "team=blue", namespace=SPACE)


def test_a_run_does_not_mount_what_notebooks_write_and_mounts_another_claim(lane: Lab) -> None:
    def job(claim: str) -> Object:
        made = lane.job("reads", namespace=SPACE)
        volume = {"persistentVolumeClaim": {"claimName": claim}}
        made["spec"]["checkpoints"]["volume"] = volume
        return signed(made, lane.alice)

    said = lane.refusal(job(SCRATCH))
    assert f"claim {SCRATCH}, to which pods in lane {LANE} write without a signature" in said
    assert "trainseal sign code" in said
    assert lane.accepts(job("results"))


def test_a_notebook_ends_in_its_time(lane: Lab, apply: Callable[[Object], Object]) -> None:
    made = notebooks.pod("short", SPACE, tagged(lane))
    made["spec"]["activeDeadlineSeconds"] = 2
    apply(made)

    def ended() -> bool:
        status: Object = lane.get("pod", "short", SPACE)["status"]
        return bool(status.get("reason") == "DeadlineExceeded")

    eventually(ended, "its time is over")
