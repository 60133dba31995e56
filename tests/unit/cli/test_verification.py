"""`trainseal verify`: the webhook's verifier, its verdicts in words, in JSON and in exit codes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit import world
from tests.unit.cli.conftest import Answer, Run
from trainseal.cli import verification
from trainseal.provenance.verdicts import Outcome

Verify = Callable[..., Answer]


@pytest.fixture
def evidence(monkeypatch: pytest.MonkeyPatch) -> world.Evidence:
    """What registries would say; no registry is asked."""
    found = world.Evidence()
    monkeypatch.setattr(verification, "ArtifactVerifier", lambda *_: found)
    return found


@pytest.fixture
def verify(trainseal: Run, tmp_path: Path, evidence: world.Evidence) -> Verify:
    """Verifies a job, given as an object, under policies, given as objects."""

    def call(job: Any, *arguments: str, policies: list[Any] | None = None) -> Answer:
        (tmp_path / "job.yaml").write_text(json.dumps(job))
        objects = [world.policy_object()] if policies is None else policies
        (tmp_path / "policy.yaml").write_text(yaml.safe_dump_all(objects))
        return trainseal("verify", "-f", "job.yaml", "--policy", "policy.yaml", *arguments)

    return call


def test_a_signed_job_is_verified_with_0_and_its_signers_are_named(verify: Verify) -> None:
    answer = verify(world.signed_job())
    assert answer.code == 0
    assert "verified" in answer.out.splitlines()[0]
    assert "signed by Alice" in answer.out


def test_an_unsigned_job_is_refuted_with_1_and_says_what_to_do(verify: Verify) -> None:
    answer = verify(world.job_object())
    assert answer.code == 1
    assert "no signature found" in answer.out
    assert "wanted: a signature by one of alice, bob" in answer.out
    assert "to do: sign it with `trainseal sign job`" in answer.out
    assert "see docs/how-to/refused.md#nobody-signed-it\n" in answer.out
    found = json.loads(verify(world.job_object(), "-o", "json").out)["verdicts"]
    assert [v["help"] for v in found if v["artifact"] == "job"] == [
        "docs/how-to/refused.md#nobody-signed-it"
    ]


def test_where_the_policy_lets_it_wait_it_says_for_whom(verify: Verify) -> None:
    """It is refuted all the same: nothing of it runs."""
    rules = {"authorities": ["alice", "bob"], "threshold": 2}
    one = {"authorities": ["alice", "bob"]}
    policy = world.policy_object(requirements={"job": rules, "image": one, "code": one}, pending={})
    answer = verify(world.signed_job(), policies=[policy])
    assert answer.code == 1
    assert "lets it be created, and wait for Bob" in answer.out
    found = json.loads(verify(world.signed_job(), "-o", "json", policies=[policy]).out)
    assert found["awaited"] == ["Bob"]


def test_a_registry_that_gives_no_answer_is_undetermined_with_2(
    verify: Verify, evidence: world.Evidence
) -> None:
    evidence.outcomes[world.IMAGE] = Outcome.UNDETERMINED
    answer = verify(world.signed_job())
    assert answer.code == 2
    assert "undetermined" in answer.out.splitlines()[0]


def test_refuted_beats_undetermined(verify: Verify, evidence: world.Evidence) -> None:
    evidence.outcomes = {world.IMAGE: Outcome.UNDETERMINED, world.CODE: Outcome.REFUTED}
    assert verify(world.signed_job()).code == 1


def test_what_would_end_a_frozen_pod_is_said_beside_the_verdict(verify: Verify) -> None:
    def limit(job: Any) -> None:
        job["spec"]["roles"][0]["template"]["spec"]["activeDeadlineSeconds"] = 60

    answer = verify(world.signed_job(limit))
    assert answer.code == 0
    assert "warning: spec.roles[0].template.spec.activeDeadlineSeconds" in answer.out
    (said,) = json.loads(verify(world.signed_job(limit), "-o", "json").out)["warnings"]
    assert said in answer.out
    assert "warning" not in verify(world.signed_job()).out


def test_what_programs_read_says_the_same(verify: Verify) -> None:
    answer = verify(world.signed_job(), "-o", "json")
    found = json.loads(answer.out)
    assert found["outcome"] == "verified"
    assert {v["artifact"]: v["signers"][0]["person"] for v in found["verdicts"]} == {
        "job": "Alice",
        "image": "Alice",
        "code": "Alice",
    }


def test_a_job_that_is_none_is_refuted_as_the_webhook_does(verify: Verify) -> None:
    job = world.signed_job(lambda j: j["spec"].update(engine="Slurm"))
    answer = verify(job, "-o", "json")
    assert answer.code == 1
    assert json.loads(answer.out)["verdicts"][0]["reason"] == "InvalidJob"


def test_a_policy_of_other_namespaces_does_not_count(verify: Verify) -> None:
    other = world.policy_object(namespaces={"include": ["elsewhere"]})
    answer = verify(world.signed_job(), "-o", "json", policies=[other])
    assert answer.code == 1
    assert json.loads(answer.out)["verdicts"][0]["reason"] == "NoPolicy"


def test_a_policy_that_cannot_be_used_is_undetermined_as_in_the_cluster(verify: Verify) -> None:
    broken = world.policy_object(registries={"allow": ["*"]})
    answer = verify(world.signed_job(), policies=[broken])
    assert answer.code == 2
    assert "policy.yaml:1:1" in answer.out


def test_what_only_audits_denies_nothing_and_is_shown(verify: Verify) -> None:
    audit = world.policy_object(mode="Audit")
    answer = verify(world.job_object(), policies=[audit])
    assert answer.code == 0
    assert "Audit" in answer.out
    assert "no signature found" in answer.out


def test_a_namespace_from_the_command_counts(verify: Verify) -> None:
    job = world.signed_job()
    del job["metadata"]["namespace"]
    assert verify(job, "-n", "research").code == 0
    assert verify(job, "-n", "elsewhere").code == 1


def test_a_bound_that_only_a_cluster_can_judge_is_named(verify: Verify) -> None:
    job = world.signed_job(lambda j: j["spec"].update(validity={"maxRuns": 1}))
    answer = verify(job)
    assert answer.code == 0
    assert "not judged here: how often it has run" in answer.out


@pytest.mark.parametrize("content", ["", "kind: ConfigMap\napiVersion: v1\n"])
def test_without_a_policy_it_is_wrong_use(trainseal: Run, job: Path, content: str) -> None:
    Path("policy.yaml").write_text(content)
    answer = trainseal("verify", "-f", "job.yaml", "--policy", "policy.yaml")
    assert answer.code == 64
    assert "no ProvenancePolicy" in answer.err


def test_an_authority_without_its_trust_root_is_undetermined_and_with_a_bad_one_too(
    verify: Verify, tmp_path: Path
) -> None:
    keyless = {
        "name": "carol",
        "keyless": {"issuer": "https://i", "subject": "c@example.org", "trustRoot": "ours"},
    }
    signers = {"authorities": ["carol"]}
    policy = world.policy_object(
        authorities=[keyless], requirements={"job": signers, "image": signers, "code": signers}
    )
    answer = verify(world.signed_job(), policies=[policy])
    assert answer.code == 2
    assert "TrustRoot ours does not exist" in answer.out
    root = {
        "apiVersion": "trainseal.dev/v1alpha1",
        "kind": "TrustRoot",
        "metadata": {"name": "ours"},
        "spec": {"trustedRoot": {"mediaType": "nonsense"}},
    }
    (tmp_path / "root.yaml").write_text(yaml.safe_dump(root))
    answer = verify(world.signed_job(), "--trust-root", "root.yaml", policies=[policy])
    assert answer.code == 2
    assert "TrustRoot ours cannot be used" in answer.out
