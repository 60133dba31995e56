"""Groups *Around the gate* and *Config*: what an editor tries with kubectl while a job runs, and
what root on the node does to its config.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import subprocess
import time
from collections.abc import Iterator

from tests.attacks.case import Attack, Case, Finding, Refused, Told
from tests.attacks.scene import Scene
from tests.attacks.submitting import submit
from tests.e2e.lab import EDITOR, TEAM, Lab, Object
from tests.stage.waiting import eventually

GATE = "Around the gate"
CONFIG = "Config"
_SELECTOR = json.dumps({"spec": {"selector": {"app": "mallory"}}})


def pod(lab: Lab, gpus: int, labels: Object | None = None) -> Object:
    """A pod of the editor's own."""
    limits = {"nvidia.com/gpu": gpus} if gpus else {}
    container = {"name": "main", "image": lab.image, "resources": {"limits": limits}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "mallory", "namespace": TEAM, "labels": labels or {}},
        "spec": {"containers": [container]},
    }


def _with_its_labels(scene: Scene) -> None:
    labels = scene.pod["metadata"]["labels"]
    submit(scene.lab, pod(scene.lab, 0, {k: v for k, v in labels.items() if "trainseal" in k}))


def kubectl(*words: str) -> Attack:
    """kubectl as the editor; @POD, @SEAL, @JOB and @IMAGE are filled in."""

    def do(scene: Scene) -> float:
        began = time.time()
        scene.lab.kubectl(*(_filled(word, scene) for word in words), namespace=scene.namespace)
        return began

    return do


def _filled(word: str, scene: Scene) -> str:
    for name, value in (
        ("POD", scene.name),
        ("SEAL", scene.seal),
        ("JOB", scene.job["metadata"]["name"]),
        ("IMAGE", scene.lab.image),
    ):
        word = word.replace(f"@{name}", value)
    return word


def _goes_in(*words: str) -> Attack:
    """Begins it, and waits until it is on record by name; it is ended then."""

    def do(scene: Scene) -> float:
        began = time.time()
        action = {"attach": "Attach", "port-forward": "PortForward"}[words[0]]
        kubectl = str(scene.lab.target.tools.kubectl)
        with subprocess.Popen(
            [kubectl, "-n", scene.namespace, words[0], scene.name, *words[1:]],
            env=scene.lab.target.environment(scene.lab.editor),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        ) as process:
            try:
                eventually(lambda: on_record(scene, action), "the access is on record", 60)
            finally:
                process.kill()
        return began

    return do


def on_record(scene: Scene, action: str) -> bool:
    """Whether the editor's access to the pod is."""
    return any(r["action"] == action and r["username"] == EDITOR for r in scene.records())


@contextlib.contextmanager
def _config_mapped(scene: Scene) -> Iterator[float]:
    """Root on the node changes the file that the gate wrote, by a mapping: no write tells of it."""
    path = scene.volume("config") / "config.json"
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as view:
        was = view[:]
        began = time.time()
        view[:] = was.replace(b"0.003", b"0.300")
        assert view[:] != was
        try:
            yield began
        finally:
            view[:] = was


CASES = (
    Case(
        GATE, "bare GPU pod", "T1610", Refused("asks for nvidia.com/gpu"),
        lambda s: submit(s.lab, pod(s.lab, 1)),
        lambda s: submit(s.lab, pod(s.lab, 0)), "a pod without a GPU",
    ),
    Case(
        GATE, "pod with a sealed pod's labels", "T1036", Refused("bears a label of TrainSeal's"),
        _with_its_labels,
        lambda s: submit(s.lab, pod(s.lab, 0, {"app": "notebook"})), "a pod with labels of its own",
    ),
    Case(
        GATE, "image of a running pod patched", "T1525", Refused("sealed by"),
        kubectl("set", "image", "pod/@POD", "trainer=busybox"),
        kubectl("annotate", "pod", "@POD", "example.org/note=harmless"), "an annotation",
    ),
    Case(
        GATE, "kubectl attach", "T1609", Told("access record: Attach, by name"),
        _goes_in("attach", "-c", "trainer"),
        kubectl("logs", "@POD", "-c", "trainer", "--timestamps", "--tail=5"),
        "the last lines of the log",
    ),
    Case(
        GATE, "kubectl port-forward", "T1609", Told("access record: PortForward, by name"),
        _goes_in("port-forward", ":29500"),
        kubectl("logs", "@POD", "-c", "trainer"), "the log read",
    ),
    Case(
        GATE, "headless Service's selector changed", "T1565",
        Refused("a change of what it says by mallory"),
        kubectl("patch", "service", "@JOB", "--type=merge", "-p", _SELECTOR),
        kubectl("annotate", "service", "@JOB", "example.org/note=x"), "an annotation on it",
    ),
    Case(
        GATE, "NetworkPolicy deleted", "T1562",
        Finding("object.deleted", tells=("NetworkPolicy",), seconds=150),
        kubectl("delete", "networkpolicy", "-l", "trainseal.dev/job=@JOB"),
        kubectl("get", "networkpolicy", "-o", "yaml"), "NetworkPolicies read",
    ),
    Case(
        CONFIG, "learning rate of an admitted job changed", "T1565", Refused("spec.config"),
        kubectl(
            "patch", "trainingjob", "@JOB", "--type=merge",
            "-p", '{"spec": {"config": {"parameters": {"learning_rate": 0.3}}}}',
        ),
        kubectl("label", "trainingjob", "@JOB", "team=blue"), "a label on the job",
    ),
    Case(
        CONFIG, "mounted ConfigMap deleted while it runs", "T1565",
        Finding("object.deleted", tells=("ConfigMap attacked-",), seconds=150),
        kubectl("delete", "configmap", "@SEAL-config"),
        kubectl("get", "configmap", "@SEAL-config", "-o", "yaml"), "the ConfigMap read",
    ),
    Case(
        CONFIG, "mounted config changed from the node through a held mapping", "T1565.001",
        Finding("tree.changed", "/etc/training/config.json", by="", tells=("signed", "found")),
        _config_mapped,
        lambda s: (s.volume("config") / "config.json").read_bytes(),
        "root on the node reads the mounted config",
    ),
)  # fmt: skip
