"""Jobs that wait for a signature, as docs/how-to/pending.md says: nothing runs before."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import CommandError
from tests.e2e.lab import EDITOR, PAIR, Lab, Object
from tests.stage.signing import job_bundle, signed
from tests.stage.waiting import eventually

OPERATOR = Path(__file__).parents[2] / "operator"


@pytest.fixture(scope="module", autouse=True)
def _may_wait(lab: Lab) -> Iterator[None]:
    """The policy that wants two persons lets a job wait for the second one."""
    words = ("patch", "provenancepolicy", PAIR, "--type=merge", "-p")
    lab.admin(*words, '{"spec":{"pending":{"maxAgeSeconds":3600}}}')
    probe = lab.job("probe", "finish.py", PAIR)
    eventually(lambda: not lab.answer(probe), "the webhook knows that jobs may wait")
    yield
    lab.admin(*words, '{"spec":{"pending":null}}')
    eventually(lambda: bool(lab.answer(probe)), "the webhook knows that they may not")


@pytest.fixture
def waiting(lab: Lab) -> Iterator[Object]:
    """A job that alice has signed, and bob has not."""
    job = signed(lab.job("waits", "finish.py", PAIR), lab.alice)
    lab.kubectl("apply", "-f", "-", stdin=job, namespace=PAIR)
    lab.wait_for_phase(job, "Pending")
    eventually(lambda: "missing" in lab.status(job), "the controller says who is missing")
    yield job
    lab.delete(job)
    eventually(lambda: not lab.listed("trainingjobs", PAIR), "it is gone")


def approve(lab: Lab, job: Object, *more: str) -> str:
    program = "import sys; from trainseal.cli.main import main; sys.exit(main())"
    words = ("approve", job["metadata"]["name"], "-n", PAIR, "--key", str(lab.bob.key_file), *more)
    return lab.target.run(
        [sys.executable, "-c", program, *words],
        extra={"PYTHONPATH": str(OPERATOR), "COLUMNS": "200"},
    )


def test_kubectl_shows_who_is_missing_and_nothing_of_it_runs(lab: Lab, waiting: Object) -> None:
    shown = lab.kubectl("get", "tj", waiting["metadata"]["name"], namespace=PAIR)
    head, line = shown.splitlines()
    assert line[head.index("MISSING") :].split()[0] == "bob"
    assert line.split()[1:4] == ["Pending", "pending", "alice"]
    assert lab.pods(waiting) == []
    assert lab.listed("jobs", PAIR) == []


def test_who_creates_one_is_told_whom_it_waits_for(lab: Lab) -> None:
    words = ("kubectl", "create", "--dry-run=server", "-f", "-", "-n", PAIR)
    job = signed(lab.job("told", "finish.py", PAIR), lab.alice)
    program = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:], stderr=1))"
    kubectl = str(lab.target.tools.kubectl)
    said = lab.target.run(
        [sys.executable, "-c", program, kubectl, *words[1:]], input=json.dumps(job)
    )
    assert "Warning: pending: policy" in said
    assert "trainseal approve told -n" in said


def test_it_runs_once_the_other_has_looked_at_it_and_signed(lab: Lab, waiting: Object) -> None:
    shown = json.loads(approve(lab, waiting, "-o", "json"))
    assert (shown["signed"], shown["missing"], shown["requester"]) == (False, "bob", EDITOR)
    assert shown["spec"]["config"]["parameters"]["learning_rate"] == 0.003
    said = approve(lab, waiting, "--yes")
    assert "signed with sha256:" in said
    status = lab.wait_for_phase(waiting, "Succeeded")
    assert (status["requester"], status["signers"]) == (EDITOR, "alice, bob, platform")
    assert "missing" not in status
    assert "signed already" in approve(lab, waiting, "--yes")


def test_the_next_of_its_name_shows_what_differs_from_the_run_that_was_approved(lab: Lab) -> None:
    """The run before has left its seal; its TrainingJob is gone."""
    job = lab.job("waits", "finish.py", PAIR)
    job["spec"]["config"]["parameters"]["learning_rate"] = 0.001
    lab.kubectl("apply", "-f", "-", stdin=signed(job, lab.alice), namespace=PAIR)
    try:
        shown = json.loads(approve(lab, job, "-o", "json"))
        assert shown["previous"]["seal"] == "verified"
        assert [(c["path"], c["before"], c["after"]) for c in shown["previous"]["changes"]] == [
            ("spec.config.parameters.learning_rate", 0.003, 0.001)
        ]
    finally:
        lab.delete(job)
    eventually(lambda: not lab.listed("trainingjobs", PAIR), "it is gone")


def patched(lab: Lab, *entries: Object) -> None:
    """An editor writes these signatures into the job; CommandError where they may not."""
    patch = json.dumps({"spec": {"signatures": [*entries]}})
    lab.kubectl("patch", "tj", "waits", "--type=merge", "-p", patch, namespace=PAIR)


def test_a_second_signature_of_the_same_person_lets_nothing_run(lab: Lab, waiting: Object) -> None:
    """By their other key, which the policy names."""
    more = signed(lab.job("waits", "finish.py", PAIR), lab.alice, lab.alice_again)
    before = lab.get("trainingjob", "waits", PAIR)["metadata"]["generation"]
    patched(lab, *more["spec"]["signatures"])
    eventually(
        lambda: lab.status(waiting).get("observedGeneration", 0) > before, "it was looked at"
    )
    status = lab.status(waiting)
    assert (status["phase"], status["missing"]) == ("Pending", "bob")
    assert lab.listed("jobs", PAIR) == []


def test_an_editor_adds_no_junk_and_takes_no_approval_away(lab: Lab, waiting: Object) -> None:
    (hers,) = waiting["spec"]["signatures"]
    job = lab.job("waits", "finish.py", PAIR)
    another = lab.job("another", "finish.py", PAIR)
    for entries, words in (
        ([hers, {"bundle": job_bundle(job, lab.mallory)}], "a signature that does not count"),
        ([hers, {"bundle": job_bundle(another, lab.bob)}], "belongs to another job"),
        ([hers, {"bundle": job_bundle(job, lab.alice)}], "a second signature of alice"),
        ([], "found the signature of alice taken away"),
    ):
        with pytest.raises(CommandError) as refused:
            patched(lab, *entries)
        assert words in refused.value.stderr
    status = lab.status(waiting)
    assert (status["phase"], status["missing"]) == ("Pending", "bob")
    # The twin: the one that is missing, by any tool.
    patched(lab, hers, {"bundle": job_bundle(job, lab.bob)})
    lab.wait_for_phase(waiting, "Succeeded")
    # Once it is sealed they count nothing any more, and may change.
    patched(lab, hers)


def test_what_was_signed_of_it_cannot_be_changed_while_it_waits(lab: Lab, waiting: Object) -> None:
    change: Any = {"spec": {"config": {"parameters": {"learning_rate": 1}}}}
    with pytest.raises(CommandError) as refused:
        lab.kubectl(
            "patch", "tj", waiting["metadata"]["name"], "--type=merge", "-p", json.dumps(change),
            namespace=PAIR,
        )  # fmt: skip
    assert "spec.config: Forbidden: cannot be changed: it is signed" in refused.value.stderr


def test_a_job_that_was_changed_after_it_was_signed_is_refused_and_does_not_wait(lab: Lab) -> None:
    job = signed(lab.job("changed", "finish.py", PAIR), lab.alice)
    job["spec"]["config"]["parameters"]["learning_rate"] = 1
    assert "it was changed after signing" in lab.refusal(job)
