"""Groups *Around the gate* and *Config*: what an editor tries with kubectl while a job runs, and
what root on the node does to its config.

What is asked of the webhook before a job starts has its cases in tests/e2e.
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
from tests.e2e.lab import EDITOR, Object
from tests.stage.waiting import eventually

GATE = "Around the gate"
CONFIG = "Config"
_SELECTOR = json.dumps({"spec": {"selector": {"app": "mallory"}}})


def _pod(scene: Scene, gpus: int, labels: Object | None = None) -> Object:
    limits = {"nvidia.com/gpu": gpus} if gpus else {}
    container = {"name": "main", "image": scene.lab.image, "resources": {"limits": limits}}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "mallory", "namespace": scene.namespace, "labels": labels or {}},
        "spec": {"containers": [container]},
    }


def _create(scene: Scene, obj: Object) -> None:
    words = ("create", "--dry-run=server", "-f", "-")
    scene.lab.kubectl(*words, stdin=obj, namespace=scene.namespace)


def _with_its_labels(scene: Scene) -> None:
    labels = scene.pod["metadata"]["labels"]
    _create(scene, _pod(scene, 0, {k: v for k, v in labels.items() if "trainseal" in k}))


def _kubectl(*words: str) -> Attack:
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
                eventually(lambda: _on_record(scene, action), "the access is on record", 60)
            finally:
                process.kill()
        return began

    return do


def _on_record(scene: Scene, action: str) -> bool:
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
        lambda s: _create(s, _pod(s, 1)),
        lambda s: _create(s, _pod(s, 0)), "a pod without a GPU",
    ),
    Case(
        GATE, "pod with a sealed pod's labels", "T1036", Refused("bears a label of TrainSeal's"),
        _with_its_labels,
        lambda s: _create(s, _pod(s, 0, {"app": "notebook"})), "a pod with labels of its own",
    ),
    Case(
        GATE, "debug container (kubectl debug)", "T1609", Refused("ephemeral"),
        _kubectl("debug", "@POD", "--image=@IMAGE", "-c", "mallory", "--", "sleep", "1"),
        _kubectl("describe", "pod", "@POD"),
        "the pod described",
    ),
    Case(
        GATE, "image of a running pod patched", "T1525", Refused("sealed by"),
        _kubectl("set", "image", "pod/@POD", "trainer=busybox"),
        _kubectl("annotate", "pod", "@POD", "example.org/note=harmless"), "an annotation",
    ),
    Case(
        GATE, "seal edited", "T1562", Refused("orbidden"),
        _kubectl("patch", "sealedrun", "@SEAL", "--type=merge", "-p", '{"spec": {"run": 7}}'),
        _kubectl("get", "sealedrun", "@SEAL", "-o", "yaml"), "the seal read",
    ),
    Case(
        GATE, "kubectl attach", "T1609", Told("access record: Attach, by name"),
        _goes_in("attach", "-c", "trainer"),
        _kubectl("logs", "@POD", "-c", "trainer", "--timestamps", "--tail=5"),
        "the last lines of the log",
    ),
    Case(
        GATE, "kubectl port-forward", "T1609", Told("access record: PortForward, by name"),
        _goes_in("port-forward", ":29500"),
        _kubectl("logs", "@POD", "-c", "trainer"), "the log read",
    ),
    Case(
        GATE, "headless Service's selector changed", "T1565",
        Refused("a change of what it says by mallory"),
        _kubectl("patch", "service", "@JOB", "--type=merge", "-p", _SELECTOR),
        _kubectl("annotate", "service", "@JOB", "example.org/note=x"), "an annotation on it",
    ),
    Case(
        GATE, "NetworkPolicy deleted", "T1562",
        Finding("object.deleted", tells=("NetworkPolicy",), seconds=150),
        _kubectl("delete", "networkpolicy", "-l", "trainseal.dev/job=@JOB"),
        _kubectl("get", "networkpolicy", "-o", "yaml"), "NetworkPolicies read",
    ),
    Case(
        CONFIG, "learning rate of an admitted job changed", "T1565", Refused("spec.config"),
        _kubectl(
            "patch", "trainingjob", "@JOB", "--type=merge",
            "-p", '{"spec": {"config": {"parameters": {"learning_rate": 0.3}}}}',
        ),
        _kubectl("label", "trainingjob", "@JOB", "team=blue"), "a label on the job",
    ),
    Case(
        CONFIG, "mounted ConfigMap deleted while it runs", "T1565",
        Finding("object.deleted", tells=("ConfigMap attacked-",), seconds=150),
        _kubectl("delete", "configmap", "@SEAL-config"),
        _kubectl("get", "configmap", "@SEAL-config", "-o", "yaml"), "the ConfigMap read",
    ),
    Case(
        CONFIG, "mounted config changed from the node through a held mapping", "T1565.001",
        Finding("tree.changed", "/etc/training/config.json", by="", tells=("signed", "found")),
        _config_mapped,
        lambda s: (s.volume("config") / "config.json").read_bytes(),
        "root on the node reads the mounted config",
    ),
)  # fmt: skip
