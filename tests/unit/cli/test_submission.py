"""`trainseal submit`: signed, applied, followed; what stands in the way is said before."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_kube import FakeKube, connecting_to
from trainseal.cli import submission
from trainseal.cli.codesigning import SignedCode
from trainseal.cluster import api
from trainseal.cluster.api import KubeError
from trainseal.provenance.canonical import job_digest
from trainseal.provenance.yamlreader import read_documents
from trainseal.registry.references import Reference

JOBS = "/apis/trainseal.dev/v1alpha1/namespaces/research/trainingjobs"
JOB = f"{JOBS}/char-lm"
NEW = "sha256:" + "d" * 64
RUNNING = {"phase": "Running", "message": "2/2 workers ready"}
DONE = {"phase": "Succeeded", "message": "all workers completed"}


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch, keys: dict[str, Path]) -> FakeKube:
    """A cluster without the job; whatever tree is pushed gets the digest NEW."""
    found = FakeKube()
    monkeypatch.setattr(api, "connect", connecting_to(found))

    async def sign_code(_c: object, _d: Path, push: Reference, *_: object) -> SignedCode:
        found.calls.append(f"PUSH {push}")
        return SignedCode(push.at(NEW), NEW, 1, 1, True, 1)

    monkeypatch.setattr(submission, "sign_code", sign_code)
    return found


def submit(trainseal: Run, *arguments: str) -> Any:
    return trainseal("submit", "-f", "job.yaml", "--key", "alice.key", *arguments)


def running(kube: FakeKube, job: Path, status: Any) -> None:
    """The job of the file is in the cluster already, and has come this far."""
    value = read(job)
    value["metadata"]["uid"] = "uid-before"
    kube.objects[JOB] = value | {"status": status}


def read(job: Path) -> Any:
    return read_documents(job.read_bytes(), "job.yaml")[0].value


def test_it_signs_applies_and_follows_until_it_runs(
    trainseal: Run, kube: FakeKube, job: Path
) -> None:
    kube.states = [{}, {"phase": "Sealed", "message": "waiting"}, RUNNING, DONE]
    answer = submit(trainseal)
    assert answer.code == 0
    assert answer.out == "trainingjob.trainseal.dev/char-lm created\n"
    assert answer.err.splitlines()[-3:] == [
        "Pending",
        "Sealed: waiting",
        "Running: 2/2 workers ready",
    ]
    assert kube.objects[JOB]["spec"]["signatures"] == read(job)["spec"]["signatures"]


def test_the_codes_digest_goes_into_the_job_before_it_is_signed(
    trainseal: Run, kube: FakeKube, job: Path
) -> None:
    assert submit(trainseal, "--code", "src", "--wait", "none").code == 0
    assert "PUSH registry.example/research/code" in kube.calls
    assert read(job)["spec"]["code"][0]["oci"]["reference"].endswith(f"code@{NEW}")
    assert job_digest(kube.objects[JOB]) == job_digest(read(job))


def test_a_repository_to_push_to_may_be_named(trainseal: Run, kube: FakeKube, job: Path) -> None:
    submit(trainseal, "--code", "trainer=src", "--push", "trainer=r.example/x:1", "--wait", "none")
    assert "PUSH r.example/x:1" in kube.calls


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--code", "other=src"], "no code mount other"),
        (["--code", "src", "--code", "trainer=src"], "given twice"),
        (["--push", "r.example/x"], "without --code"),
        (["--code", "src", "--push", "NOT A REFERENCE"], "not an image reference"),
    ],
)
def test_a_wrong_tree_is_refused_before_anything_is_done(
    trainseal: Run, kube: FakeKube, job: Path, arguments: list[str], words: str
) -> None:
    before = job.read_bytes()
    answer = submit(trainseal, *arguments)
    assert answer.code == 64
    assert words in answer.err
    assert kube.calls == []
    assert job.read_bytes() == before


def test_a_placeholder_for_code_asks_for_a_repository(
    trainseal: Run, kube: FakeKube, job: Path
) -> None:
    value = read(job)
    value["spec"]["code"][0]["oci"]["reference"] = "CODE"
    job.write_text(json.dumps(value))
    assert "--push trainer=" in submit(trainseal, "--code", "src").err


def test_a_finished_run_of_that_name_is_said_and_nothing_is_pushed(
    trainseal: Run, kube: FakeKube, job: Path
) -> None:
    running(kube, job, DONE)
    answer = submit(trainseal, "--code", "src")
    assert answer.code == 1
    assert "--replace" in answer.err
    assert kube.calls == [f"GET {JOB}"]


def test_a_finished_run_is_replaced_where_that_is_asked_for(
    trainseal: Run, kube: FakeKube, job: Path
) -> None:
    running(kube, job, DONE)
    assert submit(trainseal, "--replace", "--wait", "none").code == 0
    steps = [c for c in kube.calls if not c.startswith("GET")]
    assert steps == [f"TRY {JOBS}", f"DELETE {JOB}", f"POST {JOBS}"]


def test_a_replacement_that_admission_refuses_deletes_nothing(
    trainseal: Run, kube: FakeKube, job: Path
) -> None:
    running(kube, job, DONE)
    kube.refusal = KubeError(403, "Forbidden", 'webhook "w" denied the request: no signature')
    answer = submit(trainseal, "--replace")
    assert answer.code == 1
    assert "no signature" in answer.err
    assert JOB in kube.objects


def test_a_run_that_goes_on_with_the_same_digest_is_followed(
    trainseal: Run, kube: FakeKube, job: Path
) -> None:
    running(kube, job, RUNNING)
    answer = submit(trainseal, "--replace")
    assert answer.code == 0
    assert "nothing was applied" in answer.err
    assert not [c for c in kube.calls if c.startswith(("POST", "DELETE"))]


def test_another_run_that_goes_on_is_never_deleted(
    trainseal: Run, kube: FakeKube, job: Path
) -> None:
    running(kube, job, RUNNING)
    job.write_text(job.read_text().replace("steps: 2000", "steps: 2001"))
    answer = submit(trainseal, "--replace")
    assert answer.code == 1
    assert "is going on" in answer.err
    assert JOB in kube.objects


@pytest.mark.parametrize("phase", ["Failed", "Refused"])
def test_a_run_that_fails_is_a_failure(
    trainseal: Run, kube: FakeKube, job: Path, phase: str
) -> None:
    kube.states = [{}, {"phase": phase, "message": "gate of pod x: train.py: changed"}]
    answer = submit(trainseal, "--wait", "end")
    assert answer.code == 1
    assert "train.py: changed" in answer.err


@pytest.mark.parametrize("wait", ["run", "end"])
def test_a_job_that_waits_for_a_person_is_not_waited_for(
    trainseal: Run, kube: FakeKube, job: Path, wait: str
) -> None:
    pending = {"phase": "Pending", "verified": "pending", "message": "waiting for signatures"}
    kube.states = [{}, pending]
    answer = submit(trainseal, "--wait", wait)
    assert answer.code == 0
    assert answer.err.splitlines()[-1] == "Pending: waiting for signatures"


def test_to_the_end_means_to_the_end(trainseal: Run, kube: FakeKube, job: Path) -> None:
    kube.states = [RUNNING, RUNNING, DONE]
    answer = submit(trainseal, "--wait", "end")
    assert answer.code == 0
    assert answer.err.splitlines()[-1] == "Succeeded: all workers completed"


def test_a_job_submitted_to_wait_is_not_waited_for(
    trainseal: Run, kube: FakeKube, job: Path
) -> None:
    job.write_text(f"{job.read_text()}  suspend: true\n")
    kube.states = [{"phase": "Suspended", "message": "suspended by the user"}]
    assert submit(trainseal).code == 0


def test_the_namespace_is_the_contexts_where_nobody_names_one(
    trainseal: Run, kube: FakeKube, job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.write_text(job.read_text().replace("  namespace: research\n", ""))
    config = {
        "current-context": "here",
        "contexts": [
            {"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "research"}}
        ],
        "clusters": [{"name": "c", "cluster": {"server": "https://cluster.example"}}],
        "users": [{"name": "u", "user": {}}],
    }
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    assert submit(trainseal, "--wait", "none", "--kubeconfig", "kubeconfig").code == 0
    assert JOB in kube.objects


def test_other_objects_in_the_file_are_left_to_kubectl(
    trainseal: Run, kube: FakeKube, job: Path
) -> None:
    other = "apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: ckpt}\n"
    job.write_text(f"{other}---\n{job.read_text()}")
    answer = submit(trainseal, "--wait", "none")
    assert "note: PersistentVolumeClaim in the same file: not applied" in answer.err
    assert list(kube.objects) == [JOB]
