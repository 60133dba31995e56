"""Group *Ranks*: one rank of a run made other than its peers, where a policy lets it pass; and what
does not become excepted by coming from an excepted place.

The ranks have no GPU and wait, so that six of them fit on a small machine. They are compared from
five minutes after their start, in two passes of the controller.
"""

from __future__ import annotations

import time

from tests.attacks import cases_code
from tests.attacks.case import Case, Finding
from tests.attacks.scene import TORCH, Scene, open_ranks
from tests.e2e.lab import Lab, Object, make_namespace
from tests.stage.policies import policy
from tests.stage.waiting import eventually

GROUP, CODE = "Ranks", cases_code.GROUP
NAMESPACE = "research-ranks"
#: Ranks by run.
RUNS = {"ranks": 3, "quiet-ranks": 3, "excepted": 1, "quiet-excepted": 1}
PACKAGES = "/usr/lib/python3/dist-packages"
#: The policy says that a tool keeps what it tuned for the machine among the packages.
_PLACE = f"{PACKAGES}/tuned"
_TUNED = f"{_PLACE}/kernels.py"
_INDEX = "batch.kubernetes.io/job-completion-index"

_MORE = """
import ctypes, os, pathlib, time
for name in ("libm.so.6", "libz.so.1"):
    ctypes.CDLL(name)
cache = pathlib.Path("/tmp/torchinductor_root/rank0")
cache.mkdir(parents=True, exist_ok=True)
(cache / "kernel.py").write_text("# compiled for rank 0")
pathlib.Path("/checkpoints/step-1.pt").write_text("weights")
time.sleep(12)
"""


def make_ranks_namespace(lab: Lab) -> None:
    """With a policy that excepts one folder among the packages."""
    make_namespace(lab, NAMESPACE)
    made = policy(
        NAMESPACE,
        NAMESPACE,
        signers=[lab.alice],
        image_signers=[lab.platform],
        registries=list(lab.registries),
    )
    made["spec"]["drift"] = {
        "exceptions": [
            {
                "name": "tuned-kernels",
                "reason": "made for the machine at the first start",
                "findings": ["import.changed", "file.created", "bytecode.written"],
                "paths": [f"{_PLACE}/**"],
            }
        ]
    }
    lab.admin("apply", "-f", "-", stdin=made)


def open_rank_scenes(scene_of: Scene) -> dict[str, Scene]:
    """Of runs that are attacked and of some that are not."""
    return {
        name: open_ranks(scene_of.lab, scene_of.sightings, name, NAMESPACE, ranks=ranks)
        for name, ranks in RUNS.items()
    }


def _pods(scene: Scene) -> list[Object]:
    """By rank."""
    pods = scene.lab.pods(scene.job)
    return sorted(pods, key=lambda pod: int(pod["metadata"]["labels"][_INDEX]))


def _said(scene: Scene, pod: Object) -> bool:
    """Whether the agent says what the rank has beside what was sealed."""
    name = f"{pod['metadata']['name']}-{pod['metadata']['uid'][:8]}"
    status = scene.sightings.report(scene.namespace, name).get("status", {})
    return any("files" in profile for profile in status.get("profiles", []))


def _in(scene: Scene, pod: Object, *words: str) -> None:
    name = pod["metadata"]["name"]
    scene.lab.kubectl("exec", name, "-c", "trainer", "--", *words, namespace=scene.namespace)


def _all_said(scene: Scene) -> list[Object]:
    eventually(
        lambda: len(_pods(scene)) == 3 and all(_said(scene, pod) for pod in _pods(scene)),
        f"all ranks of {scene.job['metadata']['name']} are told of",
        120,
    )
    return _pods(scene)


def _tuned(scene: Scene, pod: Object, text: str) -> None:
    _in(scene, pod, "sh", "-c", f"mkdir -p {PACKAGES}/tuned; echo '{text}' > {_TUNED}")


def _moved(how: str, to: str) -> str:
    return (
        f"mkdir -p {_PLACE}; echo 'evil = 1' > {_PLACE}/{how}.py; {how} -f {_PLACE}/{how}.py {to}"
    )


def _one_rank(scene: Scene) -> float:
    """An editor puts code into one rank, at a place that the policy excepts."""
    pods = _all_said(scene)
    began = time.time()
    _tuned(scene, pods[1], "evil = True")
    return began


def _all_ranks(scene: Scene) -> None:
    """Every rank gets the same file; the first loads and keeps more than the others."""
    pods = _all_said(scene)
    for pod in pods:
        _tuned(scene, pod, "tile = 64")
    _in(scene, pods[0], "python3", "-c", _MORE)


CASES = (
    Case(
        GROUP, "one rank with a file that the policy excepts", "T1480",
        Finding("rank.differs", by="", tells=(_TUNED, "sha256:"), seconds=480),
        _one_rank,
        _all_ranks,
        "all ranks with it; the first with more libraries, caches and checkpoints",
        on="ranks",
    ),
    Case(
        CODE, "written in an excepted place, renamed over code", "T1036.005",
        Finding("file.renamed", f"{TORCH}/optim/rprop.py"),
        lambda s: s.sh(_moved("mv", f"{TORCH}/optim/rprop.py")),
        lambda s: s.sh(_moved("mv", f"{_PLACE}/b.py")),
        "written and renamed within the excepted place",
        on="excepted",
    ),
    Case(
        CODE, "written in an excepted place, hard-linked into code", "T1036.005",
        Finding("file.renamed", f"{TORCH}/optim/tuned.py"),
        lambda s: s.sh(_moved("ln", f"{TORCH}/optim/tuned.py")),
        lambda s: s.sh(f"{_moved('cp', f'{_PLACE}/d.py')}; rm {_PLACE}/d.py"),
        "copied and removed within the excepted place",
        on="excepted",
    ),
)  # fmt: skip
