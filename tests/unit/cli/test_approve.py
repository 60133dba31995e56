"""`trainseal approve`: what is shown is what is signed, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.unit import world
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_kube import FakeKube, connecting_to
from trainseal.api.sealedrun import SealedRun
from trainseal.cluster import api
from trainseal.provenance.canonical import job_digest
from trainseal.provenance.sealedjobs import kept_job
from trainseal.provenance.tickets import TICKET_ANNOTATION, Ticket, issue_ticket

Object = dict[str, Any]
NAMESPACE = "/apis/trainseal.dev/v1alpha1/namespaces/research"
JOB = f"{NAMESPACE}/trainingjobs/char-lm"
SEALS = f"{NAMESPACE}/sealedruns"


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch) -> FakeKube:
    """A job that Alice has signed and that waits for Bob, and no run before it."""
    job = world.signed_job()
    ticket = Ticket("carol@example.org", "uid-carol", job_digest(job), world.NOW)
    job["metadata"] |= {
        "resourceVersion": "7",
        "generation": 2,
        "annotations": {TICKET_ANNOTATION: issue_ticket(world.TICKET_KEY, ticket)},
    }
    job["status"] = {"phase": "Pending", "missing": "Bob", "observedGeneration": 2}
    found = FakeKube({JOB: job, SEALS: {"items": []}})
    monkeypatch.setattr(api, "connect", connecting_to(found))
    return found


def approved_before(kube: FakeKube, change: Callable[[Object], object]) -> Object:
    """An approved run of the name, of a job that was another one."""
    before = world.sealed_world(change)
    seal = before.seal
    seal["status"]["signed"] = kept_job(SealedRun.parse(seal), before.job)
    kube.objects[SEALS]["items"].append(seal)
    return seal


def slower(job: Object) -> None:
    job["spec"]["config"]["parameters"]["learning_rate"] = 0.0001


def test_it_shows_all_that_would_run_who_asked_and_who_is_missing(
    kube: FakeKube, keys: dict[str, Path], trainseal: Run
) -> None:
    found = trainseal("approve", "char-lm", "-n", "research", "--key", str(keys["bob"]))
    for words in (world.IMAGE, world.CODE, "/workspace/train.py", "learning_rate: 0.0003", "Bob"):
        assert words in found.out
    assert job_digest(kube.objects[JOB]) in found.out
    assert "No approved run of this name is known" in found.out


def test_nobody_who_cannot_be_asked_signs(
    kube: FakeKube, keys: dict[str, Path], trainseal: Run
) -> None:
    before = json.dumps(kube.objects[JOB])
    found = trainseal("approve", "char-lm", "-n", "research", "--key", str(keys["bob"]))
    assert (found.code, "--yes" in found.err) == (64, True)
    assert json.dumps(kube.objects[JOB]) == before


@pytest.mark.parametrize("answer", [True, False])
def test_a_person_is_asked_after_it_was_shown(
    kube: FakeKube,
    keys: dict[str, Path],
    trainseal: Run,
    monkeypatch: pytest.MonkeyPatch,
    answer: bool,
) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("typer.confirm", lambda *_, **__: answer)
    found = trainseal("approve", "char-lm", "-n", "research", "--key", str(keys["bob"]))
    assert found.code == (0 if answer else 1)
    assert len(kube.objects[JOB]["spec"]["signatures"]) == (2 if answer else 1)


def signs(kube: FakeKube, keys: dict[str, Path], trainseal: Run, who: str = "bob") -> Any:
    return trainseal("approve", "char-lm", "-n", "research", "--key", str(keys[who]), "--yes")


def test_its_signature_makes_the_job_verified(
    kube: FakeKube, keys: dict[str, Path], trainseal: Run
) -> None:
    rules = {"authorities": ["alice", "bob"], "threshold": 2}
    one = {"authorities": ["alice", "bob"]}
    policy = world.policy(requirements={"job": rules, "image": one, "code": one})
    assert world.verify(kube.objects[JOB], policy).outcome == "refuted"
    found = signs(kube, keys, trainseal)
    assert (found.code, "signed with sha256:" in found.out) == (0, True)
    assert world.verify(kube.objects[JOB], policy).outcome == "verified"


def test_to_approve_again_changes_nothing(
    kube: FakeKube, keys: dict[str, Path], trainseal: Run
) -> None:
    signs(kube, keys, trainseal)
    before = json.dumps(kube.objects[JOB])
    found = signs(kube, keys, trainseal)
    assert (found.code, "signed already" in found.out) == (0, True)
    assert json.dumps(kube.objects[JOB]) == before


def test_what_differs_from_the_last_approved_run_is_shown_field_by_field(
    kube: FakeKube, keys: dict[str, Path], trainseal: Run
) -> None:
    seal = approved_before(kube, slower)
    found = signs(kube, keys, trainseal)
    after = found.out[found.out.index("What differs from") :]
    assert seal["metadata"]["name"] in after
    assert "spec.config.parameters.learning_rate" in after
    assert "0.0001" in after
    assert "batch_size" not in after


def test_the_same_job_again_is_called_the_same(
    kube: FakeKube, keys: dict[str, Path], trainseal: Run
) -> None:
    approved_before(kube, lambda _: None)
    assert "The same as run" in signs(kube, keys, trainseal).out


def test_a_run_whose_kept_job_was_changed_is_nothing_to_compare_with(
    kube: FakeKube, keys: dict[str, Path], trainseal: Run
) -> None:
    seal = approved_before(kube, slower)
    seal["status"]["signed"]["config"]["parameters"]["learning_rate"] = 0.0003
    assert "No approved run" in signs(kube, keys, trainseal).out


def test_for_programs_nothing_is_signed_unless_it_is_asked_for(
    kube: FakeKube, keys: dict[str, Path], trainseal: Run
) -> None:
    approved_before(kube, slower)
    words = ("approve", "char-lm", "-n", "research", "--key", str(keys["bob"]), "-o", "json")
    shown = json.loads(trainseal(*words).out)
    assert (shown["signed"], shown["missing"], shown["phase"]) == (False, "Bob", "Pending")
    assert [c["path"] for c in shown["previous"]["changes"]] == [
        "spec.config.parameters.learning_rate"
    ]
    done = json.loads(trainseal(*words, "--yes").out)
    assert (done["signed"], done["added"]) == (True, True)


def test_what_changes_between_look_and_signature_is_not_signed(
    kube: FakeKube, keys: dict[str, Path], trainseal: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Deleted and made anew, with the same name and another command."""
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)

    def meanwhile(*_: Any, **__: Any) -> bool:
        other = world.signed_job(slower)
        other["metadata"] |= {"resourceVersion": "8", "uid": "another"}
        kube.objects[JOB] = other
        return True

    monkeypatch.setattr("typer.confirm", meanwhile)
    found = trainseal("approve", "char-lm", "-n", "research", "--key", str(keys["bob"]))
    assert (found.code, "another one by now" in found.err) == (1, True)
    assert len(kube.objects[JOB]["spec"]["signatures"]) == 1


def test_a_status_that_is_written_meanwhile_is_no_obstacle(
    kube: FakeKube, keys: dict[str, Path], trainseal: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch = kube.patch
    tries: list[str] = []

    async def once_late(path: str, operations: list[Object], content_type: str) -> Object:
        if not tries:
            kube.objects[JOB]["metadata"]["resourceVersion"] = "8"
        tries.append(path)
        return await patch(path, operations, content_type)

    monkeypatch.setattr(kube, "patch", once_late)
    assert signs(kube, keys, trainseal).code == 0
    assert len(tries) == 2
    assert len(kube.objects[JOB]["spec"]["signatures"]) == 2


def test_a_run_of_a_template_is_nobodys_to_sign(
    kube: FakeKube, keys: dict[str, Path], trainseal: Run
) -> None:
    kube.objects[JOB] = world.launched_job(world.template_object())
    found = signs(kube, keys, trainseal)
    assert (found.code, "its template is signed" in found.err) == (1, True)


def test_without_a_key_it_is_looked_at_and_nothing_signed(kube: FakeKube, trainseal: Run) -> None:
    before = json.dumps(kube.objects[JOB])
    found = trainseal("approve", "char-lm", "-n", "research")
    assert (found.code, "nothing was signed" in found.err) == (0, True)
    assert world.IMAGE in found.out
    told = json.loads(trainseal("approve", "char-lm", "-n", "research", "-o", "json", "--yes").out)
    assert (told["signed"], told["missing"]) == (False, "Bob")
    assert json.dumps(kube.objects[JOB]) == before


def test_a_bundle_of_another_tool_is_added_once_if_it_is_over_this_job(
    kube: FakeKube, trainseal: Run, tmp_path: Path
) -> None:
    made = world.sign_job(world.job_object(), world.BOB)["spec"]["signatures"][0]["bundle"]
    (tmp_path / "job.bundle").write_text(json.dumps(made))
    words = ("approve", "char-lm", "-n", "research", "--bundle", "job.bundle", "--yes")
    for _ in range(2):
        assert trainseal(*words).code == 0
        signatures = kube.objects[JOB]["spec"]["signatures"]
        assert [entry["bundle"] == made for entry in signatures] == [False, True]
    (tmp_path / "job.bundle").write_text("{}")
    assert "no Sigstore bundle" in trainseal(*words).err
    assert trainseal(*words, "--key", "bob.key").code == 64


def test_a_bundle_over_another_job_is_not_added(
    kube: FakeKube, trainseal: Run, tmp_path: Path
) -> None:
    other = world.job_object()
    slower(other)
    made = world.sign_job(other, world.BOB)["spec"]["signatures"][0]["bundle"]
    (tmp_path / "job.bundle").write_text(json.dumps(made))
    found = trainseal("approve", "char-lm", "-n", "research", "--bundle", "job.bundle", "--yes")
    assert (found.code, "a signature over something else" in found.err) == (1, True)
    assert len(kube.objects[JOB]["spec"]["signatures"]) == 1
