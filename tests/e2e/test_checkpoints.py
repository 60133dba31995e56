"""Checkpoints, for real: signed while the job trains, tainted by a finding, barring the next."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import CommandError
from tests.e2e.lab import TEAM, Lab, Object
from tests.e2e.saved import (
    ANOTHER,
    LAST,
    RESPONDER,
    SAVE,
    kept,
    keyring,
    runs,
    saving,
    signed_as,
    trainseal,
)
from tests.e2e.test_watch import OPTIMIZER
from tests.guides.ground import Ground
from tests.stage.waiting import eventually

#: Writes a checkpoint when it starts and each time it is told to (SIGUSR1), of which each but the
#: first is a pickle under another format's name.
POISONED = """\
import collections, json, os, pathlib, pickle, signal, struct

class Poison:
    def __reduce__(self):
        return os.system, ("true",)

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
header = json.dumps({"w": {"dtype": "U8", "shape": [1 << 20], "data_offsets": [0, 1 << 20]}})
content = struct.pack("<Q", len(header)) + header.encode() + bytes(1 << 20)
root = pathlib.Path("/checkpoints")
step = 60 + 20 * len([*root.glob("step-*")])
while True:
    folder = root / f"step-{step}"
    folder.mkdir()
    part = folder / "part"
    part.write_bytes(content)
    part.rename(folder / "model.safetensors")
    signal.sigwaitinfo({signal.SIGUSR1})
    content = pickle.dumps([Poison(), collections.OrderedDict(), bytes(1 << 20)])
    step += 20
"""
#: The second, as it is listed.
LISTED = """\
tainted file.changed char-lm-worker-0-x7kq2-0aa3b1c2-c20e7711d4a5
sha256:1d77aa0e6c3b9f10 4718592 pickle step-80/model.safetensors
would import posix.system, collections.OrderedDict
tainted by char-lm-worker-0-x7kq2: a signed file was changed: …/optim/sgd.py, by mallory@example.org
`trainseal checkpoints accept char-lm --reason …` signs them off
"""
WHOLE, POISON = "step-60/model.safetensors", "step-80/model.safetensors"


@pytest.fixture(scope="module")
def code(lab: Lab) -> str:
    """The script, signed by alice."""
    return lab.push_tree("saving", {"save.py": SAVE}, lab.alice)


@pytest.fixture(scope="module")
def volume(lab: Lab) -> Iterator[Path]:
    """A claim with a directory of the node behind it; a responder of the namespace."""
    with kept(lab) as folder:
        yield folder


def test_what_a_training_completes_is_signed_to_its_last_file_and_can_be_gone_on_from(
    lab: Lab, apply: Callable[[Object], Object], code: str, volume: Path
) -> None:
    job = apply(saving(lab, code, "saving", "clean"))
    pod = runs(lab, job)
    seal = lab.status(job)["sealedRun"]
    first = signed_as(lab, seal, "step-1.bin")
    assert first["writer"] in ("Trainer", "Unwatched")
    assert "tainted" not in first["status"]

    # It writes once more and ends at once: also that file is read.
    with contextlib.suppress(CommandError):  # the container ends with the session
        lab.kubectl("exec", pod, "--", *LAST)
    lab.wait_for_phase(job, "Succeeded")
    assert signed_as(lab, seal, "step-2.bin")["digest"]

    folder = volume / "clean"
    given = ("--job", "saving", "--keyring", keyring(lab))
    words = trainseal(lab, "checkpoints", "verify", str(folder), *given, user=RESPONDER)
    assert "all 2 files are as signed" in words
    (folder / "step-1.bin").write_bytes(b"poisoned")
    with pytest.raises(CommandError) as refused:
        trainseal(lab, "checkpoints", "verify", str(folder), *given, user=RESPONDER)
    assert "step-1.bin" in refused.value.stdout
    (folder / "step-1.bin").unlink()

    # The twin: a job that goes on from it runs.
    again = apply(saving(lab, code, "saving-on", "clean"))
    runs(lab, again)


def test_after_a_finding_checkpoints_are_tainted_and_bar_the_next_job_until_they_are_signed_off(
    lab: Lab, ground: Ground, apply: Callable[[Object], Object], volume: Path
) -> None:
    """Looked at as how-to/checkpoints.md says."""
    code = lab.push_tree("poisoned", {"save.py": POISONED}, lab.alice)
    job = apply(saving(lab, code, "char-lm", "tainted"))
    pod = runs(lab, job)
    seal = lab.status(job)["sealedRun"]
    signed_as(lab, seal, WHOLE)
    lab.kubectl("exec", pod, "--", "sh", "-c", f"echo '# mallory' >> {OPTIMIZER}")
    eventually(
        lambda: bool(lab.get("sealedrun", seal)["status"].get("taint")), "the run is tainted", 20
    )
    lab.kubectl("exec", pod, "--", *ANOTHER)
    assert signed_as(lab, seal, POISON)["status"]["tainted"]["finding"] == "file.changed"
    lab.delete(job)
    lab.admin("wait", "--for=delete", f"pod/{pod}", "-n", TEAM, "--timeout=240s")

    # Resumed, under its own name and digest, and by a job that mounts what lies above.
    for name, path in (("char-lm", "tainted"), ("sweeping", "tainted/below")):
        refused = apply(saving(lab, code, name, path))
        status = lab.wait_for_phase(refused, "Refused")
        for words in (POISON, "file.changed", "accept char-lm", "mallory@example.org"):
            assert words in status["message"]
    elsewhere = apply(saving(lab, code, "elsewhere", "other"))
    lab.wait_for_phase(elsewhere, "Running")

    reason = ("--reason", "compared with a run of our own")
    with pytest.raises(CommandError) as denied:
        trainseal(lab, "checkpoints", "accept", "char-lm", *reason, user="mallory@example.org")
    assert "trainseal-responder" in denied.value.stderr
    ann = "ann@example.org"
    ground.bind(ann, "trainseal-responder")
    walk = ground.walk("how-to/checkpoints.md", "ann")
    listed = "trainseal checkpoints char-lm -n research"
    walk.statuses |= {f"{listed} -o": 0, listed: 1}
    # Whether the first was complete before the edit, nobody can say as exactly as the page does.
    walk.instead |= {f"{listed} -o": "", listed: LISTED}
    shutil.copytree(volume / "tainted" / "step-60", walk.folder / "step-60")
    shutil.copytree(volume / "tainted", walk.folder / "ckpt")
    walk.go()
    said: Any = json.loads((walk.folder / "manifests.json").read_text())
    tainted = [c["status"] for c in said["checkpoints"] if "tainted" in c["status"]]
    assert tainted
    assert all(status["accepted"]["user"] == ann for status in tainted)
    lab.wait_for_phase(saving(lab, code, "char-lm", "tainted"), "Running")
