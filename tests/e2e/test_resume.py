"""Going on from another run, for real: the gate compares what lies there, then it starts."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import CommandError
from tests.e2e.lab import EDITOR, Lab, Object
from tests.e2e.saved import LAST, RESPONDER, kept, runs, signed_as, trainseal
from tests.stage.signing import signed
from tests.stage.waiting import eventually
from trainseal.engines.podtemplate import GATE_CONTAINER

CLAIM = "resumed"
STATED = 180
#: Saves a checkpoint in a directory of its own, its marker last, when it is told to; then ends.
ONCE = """\
import json, os, pathlib, pickle, signal, sys

def tensors():
    header = {"w": {"dtype": "U8", "shape": [1 << 16], "data_offsets": [0, 1 << 16]}}
    raw = json.dumps(header).encode()
    return len(raw).to_bytes(8, "little") + raw + os.urandom(1 << 16)

class Evil:
    def __reduce__(self):
        return os.system, ("touch /tmp/loaded",)

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
signal.sigwait({signal.SIGUSR2})
folder = pathlib.Path("/checkpoints/step-1")
folder.mkdir(exist_ok=True)
evil = pathlib.Path(__file__).name == "evil.py"
model = pickle.dumps({"w": Evil()}) if evil else tensors()
for name in ("model.safetensors", ".done"):
    part = folder / f"{name}.part"
    part.write_bytes(model if name != ".done" else b"")
    part.rename(folder / name)
print("saved", flush=True)
signal.sigwait({signal.SIGUSR2})
"""
#: Saves a whole checkpoint, and fails once it is told to; tried again, it says what it has found.
FAILS = """\
import os, pathlib, signal

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2})
signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
folder = pathlib.Path("/checkpoints/step-1")
if (folder / ".done").exists():
    print("went on", flush=True)
else:
    print("began", flush=True)
    folder.mkdir(exist_ok=True)
    (folder / "model").write_bytes(b"weights")
    (folder / ".done").write_bytes(b"")
signal.sigwait({signal.SIGUSR2})
os._exit(1)
"""
#: Reads what it goes on from, and waits.
ON = """\
import pathlib, signal

signal.signal(signal.SIGTERM, lambda *_: exit(143))
size = len(pathlib.Path("/resumed/model.safetensors").read_bytes())
print("resumed", size, flush=True)
signal.pause()
"""


@pytest.fixture(scope="module")
def code(lab: Lab) -> str:
    """The scripts, signed by alice."""
    return lab.push_tree(
        "resuming", {"once.py": ONCE, "evil.py": ONCE, "on.py": ON, "fails.py": FAILS}, lab.alice
    )


@pytest.fixture(scope="module")
def volume(lab: Lab) -> Iterator[Path]:
    """A claim with a directory of the node behind it."""
    with kept(lab, CLAIM) as folder:
        yield folder


def job_of(lab: Lab, code: str, name: str, script: str, **checkpoints: Any) -> Object:
    """Keeps its checkpoints in a directory of the run's own."""
    job = lab.job(name, script)
    job["spec"]["code"][0]["oci"]["reference"] = code
    job["spec"]["checkpoints"] = {
        "mountPath": "/checkpoints",
        "volume": {"persistentVolumeClaim": {"claimName": CLAIM}},
        "path": "resume/{run}",
        **checkpoints,
    }
    return signed(job, lab.alice)


def going_on(lab: Lab, code: str, name: str, run: str) -> Object:
    """Goes on from a run, which `complete` tells whole."""
    source = {"from": {"run": run, "select": "LatestUntainted"}, "mountPath": "/resumed"}
    return job_of(lab, code, name, "on.py", complete={"marker": ".done"}, resume=source)


@pytest.fixture(scope="module")
def before(lab: Lab, code: str, volume: Path) -> tuple[str, Path]:
    """A run of bob's that has ended, with its statement; and its directory on the volume."""
    seal = saved(lab, job_of(lab, code, "before", "once.py"))
    return seal, volume / "resume" / seal / "step-1"


def tell(lab: Lab, pod: str) -> None:
    """Its trainer takes the next step, which may be its end."""
    with contextlib.suppress(CommandError):  # the container ends with the session
        lab.kubectl("exec", pod, "-c", "trainer", "--", *LAST)


def saved(lab: Lab, job: Object) -> str:
    """The seal of a run that saved and has ended, with its statement."""
    lab.apply(job)
    # What ends before it is watched has no manifest.
    pod = runs(lab, job)
    tell(lab, pod)
    seal = str(lab.status(job)["sealedRun"])
    signed_as(lab, seal, "step-1/model.safetensors")
    tell(lab, pod)
    lab.wait_for_phase(job, "Succeeded")
    eventually(
        lambda: bool(lab.get("sealedrun", seal)["status"].get("statement")),
        "the run has a statement",
        STATED,
    )
    return seal


def test_a_run_goes_on_from_the_last_checkpoint_of_another_and_the_seal_says_which(
    lab: Lab, apply: Callable[[Object], Object], code: str, before: tuple[str, Path]
) -> None:
    seal, folder = before
    size = (folder / "model.safetensors").stat().st_size  # in the run's own directory
    job = apply(going_on(lab, code, "on", seal))
    lab.wait_for_phase(job, "Running")
    (pod,) = lab.pods(job)
    name = pod["metadata"]["name"]
    eventually(lambda: f"resumed {size}" in lab.kubectl("logs", name), "it has read it")
    resume = lab.get("sealedrun", str(lab.status(job)["sealedRun"]))["spec"]["resume"]
    assert (resume["sealedRun"], resume["path"]) == (seal, f"resume/{seal}/step-1")


@pytest.mark.parametrize("change", ["a byte", "a file put beside it"])
def test_what_was_changed_between_the_runs_is_refuted_by_the_gate(
    lab: Lab,
    apply: Callable[[Object], Object],
    code: str,
    before: tuple[str, Path],
    change: str,
) -> None:
    seal, folder = before
    model, beside = folder / "model.safetensors", folder / "evil.pt"
    content = model.read_bytes()
    try:
        if change == "a byte":
            model.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        else:
            beside.write_bytes(b"evil")
        job = apply(going_on(lab, code, f"changed-{len(change)}", seal))
        status = lab.wait_for_phase(job, "Failed")
        words = (
            "model.safetensors: changed" if change == "a byte" else "evil.pt: no manifest lists it"
        )
        assert words in status["message"]
        assert "refuted" in status["message"]
    finally:
        model.write_bytes(content)
        beside.unlink(missing_ok=True)
    # Its twin: as it was, it is gone on from.
    again = apply(going_on(lab, code, f"restored-{len(change)}", seal))
    lab.wait_for_phase(again, "Running")


def test_somebody_elses_run_is_not_gone_on_from(
    lab: Lab, apply: Callable[[Object], Object], code: str, before: tuple[str, Path]
) -> None:
    seal, _ = before
    job = going_on(lab, code, "not-mine", seal)
    lab.admin("apply", "-f", "-", stdin=job)
    try:
        status = lab.wait_for_phase(job, "Refused")
        assert f"run {seal} was asked for by {EDITOR}" in status["message"]
    finally:
        lab.delete(job)


def test_a_pickle_is_not_gone_on_from_whatever_its_name(
    lab: Lab, apply: Callable[[Object], Object], code: str, volume: Path
) -> None:
    del volume
    evil = job_of(lab, code, "evil", "evil.py")
    try:
        seal = saved(lab, evil)
        file = signed_as(lab, seal, "step-1/model.safetensors")
        assert (file["format"], file["imports"]) == ("pickle", ["posix.system"])
        shown = trainseal(lab, "checkpoints", "evil", "--seal", seal, user=RESPONDER)
        assert "would import posix.system" in shown
        job = apply(going_on(lab, code, "on-evil", seal))
        status = lab.wait_for_phase(job, "Refused")
        words = "model.safetensors: found pickle that would import posix.system"
        assert words in status["message"]
    finally:
        lab.delete(evil)


def fails(lab: Lab, code: str, name: str) -> tuple[Object, str]:
    """A run that has saved a checkpoint, which is signed; its pod."""
    job = job_of(lab, code, name, "fails.py", complete={"marker": ".done"})
    lab.apply(job)
    pod = runs(lab, job)
    seal = str(lab.status(job)["sealedRun"])
    for file in ("model", ".done"):
        signed_as(lab, seal, f"step-1/{file}")
    return job, pod


def again(lab: Lab, job: Object, before: str) -> str:
    """The pod that takes the place of the one that has failed."""
    found: list[str] = []

    def there() -> bool:
        found[:] = [p["metadata"]["name"] for p in lab.pods(job)]
        return any(name != before for name in found)

    eventually(there, "the worker is tried again", 120)
    return next(name for name in found if name != before)


def said(lab: Lab, pod: str, container: str = "trainer") -> str:
    """What a container has printed; nothing where it has not started."""
    try:
        return lab.kubectl("logs", pod, "-c", container)
    except CommandError:
        return ""


def test_a_worker_that_is_tried_again_goes_on_from_what_its_run_wrote(
    lab: Lab, code: str, volume: Path
) -> None:
    del volume
    job, pod = fails(lab, code, "tried-again")
    try:
        tell(lab, pod)
        other = again(lab, job, pod)
        eventually(lambda: "went on" in said(lab, other), "it goes on", 120)
        assert "2 files of the run's own checkpoints" in said(lab, other, GATE_CONTAINER)
    finally:
        lab.delete(job)


def test_a_worker_that_is_tried_again_does_not_start_on_what_somebody_changed(
    lab: Lab, code: str, volume: Path
) -> None:
    job, pod = fails(lab, code, "spoilt")
    folder = volume / "resume" / str(lab.status(job)["sealedRun"]) / "step-1"
    try:
        (folder / "model").write_bytes(b"weightz")
        tell(lab, pod)
        other = again(lab, job, pod)
        words = "step-1/model: changed: found sha256:"
        eventually(lambda: words in said(lab, other, GATE_CONTAINER), "the gate waits", 120)
        (found,) = [p for p in lab.pods(job) if p["metadata"]["name"] == other]
        assert found["status"]["phase"] == "Pending"
        # Its twin: as it was, though by another ctime, it is gone on from.
        (folder / "model").write_bytes(b"weights")
        eventually(lambda: "went on" in said(lab, other), "it goes on", 120)
    finally:
        lab.delete(job)
