"""GPU pods beside TrainSeal, and what sealed pods may hold."""

from __future__ import annotations

import copy
import itertools
import json
from collections.abc import Callable, Iterator

import pytest

from tests.cluster import CommandError
from tests.e2e.lab import TEAM, Lab, Object, changed
from tests.e2e.test_training import trainseal
from tests.stage.jobs import trainer
from tests.stage.signing import signed
from tests.stage.waiting import eventually


def pod(lab: Lab, name: str, gpus: int = 1) -> Object:
    """A pod as anybody may write it."""
    resources = {"limits": {"nvidia.com/gpu": gpus}} if gpus else {}
    container = {"name": "main", "image": lab.image, "resources": resources}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": TEAM},
        "spec": {"containers": [container]},
    }


def test_a_bare_gpu_pod_is_refused_and_says_what_to_do(lab: Lab) -> None:
    said = lab.refusal(pod(lab, "bare"))
    assert "asks for nvidia.com/gpu and is not part of a sealed run" in said
    assert "TrainingJob" in said


def test_a_pod_without_a_gpu_is_nobodys_business(lab: Lab) -> None:
    assert lab.accepts(pod(lab, "cpu", gpus=0))


def test_a_job_of_kubernetes_cannot_bring_gpu_pods_either(lab: Lab) -> None:
    spec = {**pod(lab, "x")["spec"], "restartPolicy": "Never"}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "bare-job", "namespace": TEAM},
        "spec": {"template": {"spec": spec}, "backoffLimit": 0},
    }
    assert "make it a TrainingJob" in lab.refusal(job)


def test_nor_can_a_replica_set(lab: Lab) -> None:
    labels = {"app": "bare-replicas"}
    replicas = {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "metadata": {"name": "bare-replicas", "namespace": TEAM},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod(lab, "x")["spec"]},
        },
    }
    assert "are not part of a sealed run" in lab.refusal(replicas)


_NUMBERS = itertools.count(1)


@pytest.fixture
def running(lab: Lab, apply: Callable[[Object], Object]) -> Object:
    """A sealed job that runs."""
    job = apply(lab.signed_job(f"sealed-{next(_NUMBERS)}"))
    lab.wait_for_phase(job, "Running")
    return job


def test_a_pod_does_not_join_a_run_by_its_labels_or_its_owner(lab: Lab, running: Object) -> None:
    (sealed,) = lab.pods(running)
    labelled = pod(lab, "labelled")
    labels = sealed["metadata"]["labels"]
    labelled["metadata"]["labels"] = {k: v for k, v in labels.items() if "trainseal" in k}
    assert "bears a label of TrainSeal's" in lab.refusal(labelled)

    # With the labels that the Job selects by, its controller would adopt the pod.
    labelled["metadata"]["labels"] = labels
    assert "expected the Job controller" in lab.refusal(labelled)
    adopted = pod(lab, "adopted", gpus=0)
    adopted["metadata"]["labels"] = {k: v for k, v in labels.items() if "trainseal" in k}
    assert "expected the Job controller" in lab.refusal(adopted)
    (owner,) = sealed["metadata"]["ownerReferences"]
    adopted["metadata"]["labels"] = {"batch.kubernetes.io/controller-uid": owner["uid"]}
    assert "expected the Job controller" in lab.refusal(adopted)

    owned = copy.deepcopy(labelled)
    owned["metadata"]["name"] = "owned"
    owners = sealed["metadata"]["ownerReferences"]
    owned["metadata"]["ownerReferences"] = [{**owners[0], "blockOwnerDeletion": False}]
    assert "expected the Job controller" in lab.refusal(owned)

    copied = {k: sealed[k] for k in ("apiVersion", "kind", "spec")}
    kept = ("namespace", "labels", "annotations")
    copied["metadata"] = {k: sealed["metadata"][k] for k in kept}
    copied["metadata"] |= {
        "name": "copied",
        "ownerReferences": owned["metadata"]["ownerReferences"],
    }
    assert "expected the Job controller" in lab.refusal(copied)

    # The twin: without a GPU, and without our labels, it is an ordinary pod.
    ordinary = pod(lab, "ordinary", gpus=0)
    ordinary["metadata"]["labels"] = {"app": "ordinary"}
    assert lab.accepts(ordinary)


def test_a_sealed_pod_stays_what_it_is(lab: Lab, running: Object) -> None:
    name = lab.pods(running)[0]["metadata"]["name"]
    for change in (
        ("label", "pod", name, "trainseal.dev/seal-"),
        ("set", "image", f"pod/{name}", "trainer=busybox"),
    ):
        with pytest.raises(
            CommandError, match=r"sealed by|is not what SealedRun|change of its labels"
        ):
            lab.kubectl(*change)
    lab.kubectl("annotate", "pod", name, "example.org/note=harmless")


def _script_in_checkpoints(job: Object) -> None:
    trainer(job)["command"] = ["bash", "/checkpoints/run.sh"]


def _script_in_scratch(job: Object) -> None:
    trainer(job)["command"] = ["sh", "-c", "exec /tmp/run.sh"]


def _path_into_scratch(job: Object) -> None:
    trainer(job)["env"].append({"name": "PYTHONPATH", "value": "/tmp/lib"})


def _starts_in_scratch(job: Object) -> None:
    trainer(job)["workingDir"] = "/tmp"


def _env_from(job: Object) -> None:
    trainer(job)["envFrom"] = [{"secretRef": {"name": "anything"}}]


def _secret(job: Object) -> None:
    source = {"secretKeyRef": {"name": "anything", "key": "x"}}
    trainer(job)["env"].append({"name": "TOKEN", "valueFrom": source})


def _host_path(job: Object) -> None:
    volume = {"name": "host", "hostPath": {"path": "/"}}
    job["spec"]["roles"][0]["template"]["spec"]["volumes"] = [volume]


def _privileged(job: Object) -> None:
    trainer(job)["securityContext"] = {"privileged": True}


def _service_links(job: Object) -> None:
    job["spec"]["roles"][0]["template"]["spec"]["enableServiceLinks"] = True


def _reference_into_checkpoints(job: Object) -> None:
    trainer(job)["env"].append({"name": "SCRIPT", "value": "/checkpoints/run.sh"})
    trainer(job)["command"] = ["bash", "$(SCRIPT)"]


def _behind_another_program(job: Object) -> None:
    trainer(job)["command"] = ["nsys", "profile", "python3", "/checkpoints/train.py"]


def _piped_from_checkpoints(job: Object) -> None:
    trainer(job)["command"] = ["sh", "-c", "cat /checkpoints/run.sh | bash"]


def _by_a_link_of_proc(job: Object) -> None:
    trainer(job)["command"] = ["bash", "/proc/self/root/checkpoints/run.sh"]


def _arguments_alone(job: Object) -> None:
    del trainer(job)["command"]
    trainer(job)["args"] = ["-c", ". /checkpoints/run.sh"]


def _message_over_code(job: Object) -> None:
    trainer(job)["terminationMessagePath"] = "/workspace/wait.py"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_reference_into_checkpoints, "/checkpoints/run.sh, in a writable mount"),
        (_behind_another_program, "/checkpoints/train.py, in a writable mount"),
        (_piped_from_checkpoints, "/checkpoints/run.sh, in a writable mount"),
        (_by_a_link_of_proc, "/checkpoints/run.sh, in a writable mount"),
        (_arguments_alone, "/checkpoints/run.sh, in a writable mount"),
        (_message_over_code, "its default is /dev/termination-log"),
        (_script_in_checkpoints, "/checkpoints/run.sh, in a writable mount"),
        (_script_in_scratch, "/tmp/run.sh, in a writable mount"),
        (_path_into_scratch, "PYTHONPATH names /tmp/lib"),
        (_starts_in_scratch, "/tmp is in a writable mount"),
        (_env_from, "LD_PRELOAD"),
        (_secret, "allowedSecrets"),
        (_host_path, "every mount has a role"),
        (_privileged, "privileged"),
        (_service_links, "MASTER_PORT"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_what_no_signature_makes_safe_is_refused(
    lab: Lab, change: Callable[[Object], None], words: str
) -> None:
    said = lab.refusal(signed(changed(lab.job("unsafe"), change), lab.alice))
    assert words in said


def _script_in_code(job: Object) -> None:
    trainer(job)["command"] = ["bash", "/workspace/run.sh"]


def _writes_to_checkpoints(job: Object) -> None:
    trainer(job)["command"] += ["--output", "/checkpoints/run-1"]


def _reference_into_code(job: Object) -> None:
    trainer(job)["env"] += [
        {"name": "SCRIPT", "value": "/workspace/run.sh"},
        {"name": "OUT", "value": "/checkpoints"},
    ]
    trainer(job)["command"] = ["bash", "$(SCRIPT)", "--out=$(OUT)"]


def _logs_into_checkpoints(job: Object) -> None:
    script = "cat /checkpoints/step; python3 /workspace/wait.py 2>&1 | tee /checkpoints/log"
    trainer(job)["command"] = ["sh", "-c", script]


def _switch(job: Object) -> None:
    trainer(job)["env"].append({"name": "PYTHONUNBUFFERED", "value": "1"})


def _user(job: Object) -> None:
    trainer(job)["securityContext"] = {"runAsUser": 1000, "capabilities": {"drop": ["ALL"]}}


@pytest.mark.parametrize(
    "change",
    [
        _script_in_code,
        _writes_to_checkpoints,
        _reference_into_code,
        _logs_into_checkpoints,
        _switch,
        _user,
    ],
    ids=lambda change: change.__name__.strip("_"),
)
def test_what_is_much_like_it_and_safe_is_accepted(
    lab: Lab, change: Callable[[Object], None]
) -> None:
    assert lab.accepts(signed(changed(lab.job("safe"), change), lab.alice))


def simulated(lab: Lab, *words: str) -> Object:
    """What the command line says of the cluster, to an administrator."""
    try:
        said = trainseal(lab, "simulate", *words, "-o", "json", kubeconfig=lab.target.kubeconfig)
    except CommandError as error:  # the exit code tells that something is not judged
        said = error.stdout
    found: Object = json.loads(said)
    return found


@pytest.fixture
def device_class(lab: Lab) -> Iterator[str]:
    """A DeviceClass whose devices pods may ask for by a name of its own."""
    name = "accel.example"
    obj: Object = {
        "apiVersion": "resource.k8s.io/v1",
        "kind": "DeviceClass",
        "metadata": {"name": name},
        "spec": {"extendedResourceName": "accel.example/card"},
    }
    lab.admin("apply", "-f", "-", stdin=obj)
    yield "accel.example/card"
    lab.delete(obj)


def test_a_device_by_the_name_of_its_class_is_asked_for_in_vain(
    lab: Lab, device_class: str
) -> None:
    asks = pod(lab, "accel", gpus=0)
    limits = asks["spec"]["containers"][0]["resources"].setdefault("limits", {})
    limits[device_class] = 1
    eventually(
        lambda: "a device by its DeviceClass" in lab.answer(asks), "the floor knows the name"
    )
    # The twin: a resource that no class has.
    limits["disk.example/ssd"] = limits.pop(device_class)
    assert lab.accepts(asks)


def test_what_exists_is_judged_as_if_it_were_made_now(lab: Lab, running: Object) -> None:
    name = running["metadata"]["name"]
    plain = pod(lab, f"plain-{name}", gpus=0)
    plain["spec"]["containers"][0]["command"] = ["sleep", "60"]
    lab.apply(plain)
    try:
        said = simulated(lab, "-n", TEAM, "--offline")
    finally:
        lab.delete(plain)
    answers = {f"{o['kind']} {o['name']}": o["answer"] for o in said["objects"]}
    assert answers[f"Pod plain-{name}"] == "passes"
    # Its pods are its TrainingJob's, and that is not judged offline.
    assert answers[f"TrainingJob {name}"] == "undetermined"
    assert f"Job {name}-worker" not in answers
    assert {p["name"] for p in said["policies"]} >= {TEAM}
