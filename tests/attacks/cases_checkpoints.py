"""Group *Checkpoints and data*: what a trainer completed is given other content."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from tests.attacks.case import Case, Finding, NotTried
from tests.attacks.scene import Scene
from tests.stage.waiting import eventually
from trainseal.agent.checkpointmount import ways_to

GROUP = "Checkpoints and data"
#: Written once by the training, and left alone by it.
FIRST, SECOND = "step-0.pt", "step-25.pt"
#: A file that nobody of the pod changed is left alone for a minute: its writer may tell yet.
_SECONDS = 240.0


def _has_manifest(scene: Scene, name: str) -> None:
    def there() -> bool:
        items = json.loads(scene.lab.kubectl("get", "checkpoints", "-o", "json"))["items"]
        return any(
            file["path"] == name
            for item in items
            if item["spec"]["pod"]["uid"] == scene.uid
            for file in item["spec"]["files"]
        )

    eventually(there, f"{name} has a manifest", 120)


def _behind(scene: Scene) -> Path:
    """The volume's own directory on the node."""
    pid = scene.first_process()
    top = os.stat(f"/proc/{pid}/root/checkpoints")  # noqa: PTH116
    for way in ways_to(pid, "/checkpoints", "/proc/self/root"):
        path = Path(way)
        if path.is_dir() and path.stat().st_ino == top.st_ino:
            return path
    raise AssertionError("the node has no way to the volume")


def _altered(scene: Scene) -> float:
    _has_manifest(scene, FIRST)
    began = time.time()
    with (_behind(scene) / FIRST).open("r+b") as file:
        file.seek(200)
        file.write(b"\0\0\0\0")
    return began


def _touched(scene: Scene) -> float:
    _has_manifest(scene, FIRST)
    began = time.time()
    os.utime(_behind(scene) / FIRST)
    (_behind(scene) / FIRST).chmod(0o644)
    return began


def _overwritten(scene: Scene) -> float:
    _has_manifest(scene, SECOND)
    return scene.sh(f"cat /checkpoints/latest.pt > /checkpoints/{SECOND}")


CASES = (
    Case(
        GROUP, "weights altered on the volume, without code", "AML.T0018",
        Finding("checkpoint.replaced", f"/checkpoints/{FIRST}", by="", seconds=_SECONDS),
        _altered,
        _touched,
        "times and mode of a checkpoint set from the node",
    ),
    Case(
        GROUP, "a checkpoint overwritten by exec", "AML.T0018",
        Finding("checkpoint.replaced", f"/checkpoints/{SECOND}"),
        _overwritten,
        lambda s: s.sh("cp /checkpoints/latest.pt /checkpoints/mine.pt; rm /checkpoints/mine.pt"),
        "a checkpoint copied and the copy removed",
    ),
    Case(
        GROUP, "a pickle that runs code on load", "AML.T0011.000",
        NotTried("a trainer that loads one; a job that goes on from one is refused"),
    ),
    Case(
        GROUP, "a dataset shard replaced", "AML.T0020",
        NotTried("signed datasets"),
    ),
)  # fmt: skip
