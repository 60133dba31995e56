"""Checkpoints, for real: signed while the job trains, tainted by a finding, barring the next."""

from __future__ import annotations

import contextlib
import json
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
from tests.stage.waiting import eventually


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
    lab: Lab, apply: Callable[[Object], Object], code: str, volume: Path
) -> None:
    del volume
    job = apply(saving(lab, code, "poisoned", "tainted"))
    pod = runs(lab, job)
    seal = lab.status(job)["sealedRun"]
    signed_as(lab, seal, "step-1.bin")
    lab.kubectl("exec", pod, "--", "sh", "-c", f"echo '# mallory' >> {OPTIMIZER}")
    eventually(
        lambda: bool(lab.get("sealedrun", seal)["status"].get("taint")), "the run is tainted", 20
    )
    lab.kubectl("exec", pod, "--", *ANOTHER)
    assert signed_as(lab, seal, "step-2.bin")["status"]["tainted"]["finding"] == "file.changed"
    lab.delete(job)
    lab.admin("wait", "--for=delete", f"pod/{pod}", "-n", TEAM, "--timeout=60s")

    # Resumed, under its own name and digest, and by a job that mounts what lies above.
    for name, path in (("poisoned", "tainted"), ("sweeping", "tainted/below")):
        refused = apply(saving(lab, code, name, path))
        status = lab.wait_for_phase(refused, "Refused")
        for words in ("step-2.bin", "file.changed", "accept poisoned", "mallory@example.org"):
            assert words in status["message"]
    elsewhere = apply(saving(lab, code, "elsewhere", "other"))
    lab.wait_for_phase(elsewhere, "Running")

    reason = ("--reason", "compared with a run of our own")
    with pytest.raises(CommandError) as denied:
        trainseal(lab, "checkpoints", "accept", "poisoned", *reason, user="mallory@example.org")
    assert "trainseal-responder" in denied.value.stderr
    trainseal(lab, "checkpoints", "accept", "poisoned", *reason, user=RESPONDER)
    listed = ("checkpoints", "poisoned", "--seal", seal, "-o", "json")
    said: Any = json.loads(trainseal(lab, *listed, user=RESPONDER))
    tainted = [c["status"] for c in said["checkpoints"] if "tainted" in c["status"]]
    assert tainted
    assert all(status["accepted"]["user"] == RESPONDER for status in tainted)
    lab.wait_for_phase(saving(lab, code, "poisoned", "tainted"), "Running", 120)
