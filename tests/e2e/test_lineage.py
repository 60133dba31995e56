"""What came of a run and what went into it, for real: statements, lineage, other tools."""

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
from tests.e2e.saved import LAST, RESPONDER, SAVE, kept, keyring, runs, saving, signed_as, trainseal
from tests.e2e.test_watch import OPTIMIZER
from tests.guides.ground import ADMIN, Ground
from tests.stage.waiting import eventually

CLAIM = "lineage"
#: A run's last files are waited for; then it is signed.
STATED = 180


@pytest.fixture(scope="module")
def code(lab: Lab) -> str:
    """The script, signed by alice."""
    return lab.push_tree("saving", {"save.py": SAVE}, lab.alice)


@pytest.fixture(scope="module")
def volume(lab: Lab) -> Iterator[Path]:
    """A claim with a directory of the node behind it; a responder of the namespace."""
    with kept(lab, CLAIM) as folder:
        yield folder


def ended(lab: Lab, job: Object, pod: str) -> str:
    """Lets it write once more and end; its seal, once the statement is there."""
    with contextlib.suppress(CommandError):  # the container ends with the session
        lab.kubectl("exec", pod, "--", *LAST)
    lab.wait_for_phase(job, "Succeeded")
    return stated(lab, job)


def stated(lab: Lab, job: Object) -> str:
    """Waits for the statement on the job's run; its seal."""
    seal = str(lab.status(job)["sealedRun"])
    eventually(
        lambda: bool(lab.get("sealedrun", seal)["status"].get("statement")),
        "the run has a statement",
        STATED,
    )
    return seal


def said(lab: Lab, seal: str) -> Any:
    """What the statement says."""
    return json.loads(lab.get("runstatement", seal)["status"]["payload"])


def lineage(lab: Lab, *args: str) -> Any:
    """Exit code and what was found."""
    arguments = ("lineage", *args, "--keyring", keyring(lab), "-o", "json")
    try:
        return 0, json.loads(trainseal(lab, *arguments, user=RESPONDER))
    except CommandError as error:
        return error.returncode, json.loads(error.stdout)


def test_a_run_that_ends_is_stated_and_its_checkpoints_lead_back_over_two_runs(
    lab: Lab, ground: Ground, apply: Callable[[Object], Object], code: str, volume: Path
) -> None:
    """Looked at as how-to/lineage.md says."""
    first = apply(saving(lab, code, "char-lm", "lineage", CLAIM))
    pod = runs(lab, first)
    seal = str(lab.status(first)["sealedRun"])
    signed_as(lab, seal, "step-1.bin")
    ended(lab, first, pod)
    statement = said(lab, seal)
    assert {s["name"] for s in statement["subject"]} == {"step-1.bin", "step-2.bin"}
    predicate = statement["predicate"]
    assert predicate["outcome"] == "Succeeded"
    assert not [f for f in predicate["watch"]["findings"] if f["severity"] != "Info"]
    assert predicate["watch"]["agents"] is True
    assert predicate["watch"]["pods"] == 1

    # A second run goes on from there.
    second = saving(lab, code, "char-lm-on", "lineage", CLAIM)
    bob = lab.target.user_kubeconfig("bob@example.org")
    lab.target.kubectl("apply", "-n", TEAM, "-f", "-", input=json.dumps(second), kubeconfig=bob)
    apply(second)  # it is there already: this takes it away at the end
    pod = runs(lab, second)
    on = str(lab.status(second)["sealedRun"])
    (earlier,) = lab.get("sealedrun", on)["spec"]["earlier"]
    assert earlier["sealedRun"] == seal
    signed_as(lab, on, "step-3.bin")
    ended(lab, second, pod)
    items = [c for c in lab.listed("checkpoints") if c["spec"]["sealedRun"] == on]
    name = max(items, key=lambda c: str(c["spec"]["completed"]))["metadata"]["name"]
    exit_code, found = lineage(lab, name)
    assert (exit_code, found["verdict"]) == (0, "verified")
    assert [run["name"] for run in found["runs"]] == [on, seal]

    walk = ground.walk("how-to/lineage.md", ADMIN)
    walk.known["char-lm-on-worker-0-p2m8d-71c0aa20-9b1c0f3a77e0"] = name
    copied = walk.folder / "copy"
    shutil.copytree(volume / "lineage", copied, ignore=shutil.ignore_patterns("step-[34].bin"))
    walk.go()
    verify = "model_signing verify key ./copy --signature output.sig --public_key operator.pub"
    assert walk.run(verify, ADMIN)[0] == 0
    (copied / "step-2.bin").write_bytes(b"poisoned")
    assert walk.run(verify, ADMIN)[0] != 0

    # Somebody with the rights of an editor cannot make it say something else.
    path = ("patch", "runstatement", seal, "--type=merge")
    for patch in ({"status": {"outcome": "Failed"}}, {"spec": {"sealedRun": on}}):
        with pytest.raises(CommandError):
            lab.kubectl(*path, "-p", json.dumps(patch), "--subresource=status")
        with pytest.raises(CommandError):
            lab.kubectl(*path, "-p", json.dumps(patch))
    with pytest.raises(CommandError):
        lab.kubectl("delete", "runstatement", seal)


def test_a_finding_stands_in_the_statement_and_what_is_tainted_is_no_output(
    lab: Lab, apply: Callable[[Object], Object], code: str, volume: Path
) -> None:
    del volume
    job = apply(saving(lab, code, "tampered", "tampered", CLAIM))
    pod = runs(lab, job)
    seal = str(lab.status(job)["sealedRun"])
    signed_as(lab, seal, "step-1.bin")
    lab.kubectl("exec", pod, "--", "sh", "-c", f"echo '# mallory' >> {OPTIMIZER}")
    eventually(
        lambda: bool(lab.get("sealedrun", seal)["status"].get("taint")), "the run is tainted", 20
    )
    ended(lab, job, pod)
    statement = said(lab, seal)
    tainted = {t["name"] for t in statement["predicate"]["outputs"]["tainted"]}
    outputs = {s["name"] for s in statement["subject"]}
    assert "step-2.bin" in tainted
    # The first is an output unless what was found can have been so before it was complete.
    assert "step-1.bin" in tainted or outputs == {"step-1.bin"}
    assert not outputs & tainted
    findings = [f["id"] for f in statement["predicate"]["watch"]["findings"]]
    assert "file.changed" in findings
    items = [c for c in lab.listed("checkpoints") if c["spec"]["sealedRun"] == seal]
    last = max(items, key=lambda c: str(c["spec"]["completed"]))["metadata"]["name"]
    exit_code, found = lineage(lab, last)
    assert exit_code == 1
    assert found["checkpoint"]["tainted"].startswith("file.changed")
    with pytest.raises(CommandError):
        trainseal(
            lab, "lineage", last, "--keyring", keyring(lab),
            "--bundle", str(lab.folder / "no.sig"), user=RESPONDER,
        )  # fmt: skip
    assert not (lab.folder / "no.sig").exists()
