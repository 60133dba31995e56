"""A job's verification: offline first, the network only for what every policy allows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit import world
from trainseal.provenance.jobrules import RunFacts
from trainseal.provenance.verdicts import Outcome
from trainseal.verifier.jobs import JobVerification, JobVerifier
from trainseal.verifier.policystore import BrokenPolicy

Object = dict[str, Any]
BY_TAG = "registry.example/research/pytorch:2.1"
ELSEWHERE = "registry.attacker.example/x@sha256:" + "e" * 64


def reasons(found: JobVerification) -> list[str]:
    return [v.reason for v in found.denials]


def use_image(reference: str) -> Callable[[Object], object]:
    def change(job: Object) -> None:
        job["spec"]["roles"][0]["template"]["spec"]["containers"][0]["image"] = reference

    return change


def test_a_signed_job_is_verified_with_what_its_seal_needs() -> None:
    evidence = world.Evidence()
    found = world.verify(world.signed_job(), evidence=evidence)
    assert found.outcome is Outcome.VERIFIED
    assert [(v.artifact, v.outcome) for v in found.verdicts] == [
        (kind, Outcome.VERIFIED) for kind in ("job", "image", "code")
    ]
    assert evidence.asked == [world.IMAGE, world.CODE]
    assert [i.reference for i in found.images] == [world.IMAGE]
    assert [c.name for c in found.code] == ["trainer"]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda j: j["spec"].pop("signatures"), "NoSignature"),
        (lambda j: j["spec"]["config"]["parameters"].update(learning_rate=1), "OtherJob"),
        (lambda j: j["metadata"].update(name="other"), "OtherJob"),
        (lambda j: j["spec"]["roles"][0].update(replicas=0), "InvalidJob"),
        (lambda j: j["spec"]["config"]["parameters"].update(x=float("nan")), "InvalidJob"),
        (lambda j: j["spec"]["config"]["parameters"].update(x=None), "InvalidJob"),
        (lambda j: j["spec"].update(unknown=1), "InvalidJob"),
        (lambda j: j["spec"]["roles"][0].update(replicas={"min": 5, "max": 2}), "InvalidJob"),
        (lambda j: j["spec"].update(scheduling={"affinity": {"x": "y" * 40000}}), "InvalidJob"),
        (lambda j: j.update(kind="Job"), "InvalidJob"),
    ],
)
def test_what_fails_offline_contacts_no_registry(
    change: Callable[[Object], object], reason: str
) -> None:
    job, evidence = world.signed_job(), world.Evidence()
    change(job)
    found = world.verify(job, evidence=evidence)
    assert (found.outcome, reasons(found)) == (Outcome.REFUTED, [reason])
    assert evidence.asked == []


def test_a_registry_that_the_policy_does_not_allow_is_not_contacted() -> None:
    evidence = world.Evidence()
    found = world.verify(world.signed_job(use_image(ELSEWHERE)), evidence=evidence)
    assert reasons(found) == ["RegistryNotAllowed"]
    assert evidence.asked == []


def test_not_even_where_only_an_auditing_policy_forbids_it() -> None:
    evidence = world.Evidence()
    allows = world.policy(
        registries={"allow": ["registry.example/**", "registry.attacker.example/**"]}
    )
    audits = world.policy("audits", mode="Audit")
    job = world.signed_job(use_image(ELSEWHERE))
    found = world.verify(job, allows, audits, evidence=evidence)
    assert evidence.asked == [world.CODE]
    assert "RegistryNotAllowed" in [v.reason for v in found.audited]


def test_an_image_by_tag_is_refused_and_under_audit_a_warning_without_contact() -> None:
    job, evidence = world.signed_job(use_image(BY_TAG)), world.Evidence()
    assert "ImageNotByDigest" in reasons(world.verify(job, evidence=evidence))
    audited = world.verify(job, world.policy(mode="Audit"), evidence=evidence)
    assert audited.outcome is Outcome.VERIFIED
    assert "ImageNotByDigest" in [v.reason for v in audited.audited]
    assert BY_TAG not in evidence.asked


@pytest.mark.parametrize("outcome", [Outcome.REFUTED, Outcome.UNDETERMINED])
@pytest.mark.parametrize("reference", [world.IMAGE, world.CODE])
def test_what_a_registry_says_decides(reference: str, outcome: Outcome) -> None:
    evidence = world.Evidence({reference: outcome})
    assert world.verify(world.signed_job(), evidence=evidence).outcome is outcome


def test_every_policy_must_hold() -> None:
    bob_only = {"authorities": ["bob"]}
    strict = world.policy(
        "strict", requirements={"job": bob_only, "image": bob_only, "code": bob_only}
    )
    found = world.verify(world.signed_job(), world.policy(), strict)
    assert [(v.policy, v.reason) for v in found.denials] == [("strict", "OtherKey")]


def test_an_auditing_policy_denies_nothing_and_says_what_it_would() -> None:
    job = world.signed_job()
    del job["spec"]["signatures"]
    found = world.verify(job, world.policy(mode="Audit"))
    assert found.outcome is Outcome.VERIFIED
    assert [v.reason for v in found.audited if v.outcome is not Outcome.VERIFIED] == ["NoSignature"]


def test_a_bound_holds_under_audit_too() -> None:
    job = world.signed_job()
    job["spec"]["scheduling"] = {"affinity": {"x": "y" * 40000}}
    found = world.verify(job, world.policy(mode="Audit"))
    assert (found.outcome, reasons(found)) == (Outcome.REFUTED, ["InvalidJob"])
    assert "spec.scheduling: found 40021 bytes" in found.denials[0].found


@pytest.mark.parametrize("outcome", [Outcome.REFUTED, Outcome.UNDETERMINED])
def test_code_that_nobody_signed_cannot_be_gated_even_under_audit(outcome: Outcome) -> None:
    evidence = world.Evidence({world.CODE: outcome})
    found = world.verify(world.signed_job(), world.policy(mode="Audit"), evidence=evidence)
    assert (found.outcome, reasons(found)) == (outcome, ["NothingToGate"])


def test_code_by_tag_is_not_asked_for_and_cannot_be_gated_even_under_audit() -> None:
    def by_tag(job: Object) -> None:
        job["spec"]["code"][0]["oci"]["reference"] = "registry.example/research/code:1"

    evidence = world.Evidence()
    found = world.verify(world.signed_job(by_tag), world.policy(mode="Audit"), evidence=evidence)
    assert reasons(found) == ["NothingToGate"]
    assert "CodeNotByDigest" in [v.reason for v in found.audited]
    assert evidence.asked == [world.IMAGE]


def test_without_a_policy_nothing_runs() -> None:
    verifier = JobVerifier(world.Evidence(), lambda: world.NOW)  # type: ignore[arg-type]
    found = world.run(verifier.verify(world.signed_job(), (), RunFacts(), deadline=1))
    assert reasons(found) == ["NoPolicy"]


def test_a_broken_policy_leaves_every_job_undetermined() -> None:
    verifier = JobVerifier(world.Evidence(), lambda: world.NOW)  # type: ignore[arg-type]
    found = world.run(
        verifier.verify(
            world.signed_job(),
            (world.policy(),),
            RunFacts(),
            deadline=1,
            broken=[BrokenPolicy("other", "its key cannot be read")],
        )
    )
    assert (found.outcome, reasons(found)) == (Outcome.UNDETERMINED, ["PolicyNotUsable"])


def test_an_artifact_without_a_verdict_is_not_verified() -> None:
    class Forgetful(world.Evidence):
        def _verdicts(self, *_: Any) -> Any:
            return ()

    found = world.verify(world.signed_job(), evidence=Forgetful())
    assert found.outcome is Outcome.UNDETERMINED
    assert [(v.artifact, v.reason) for v in found.denials] == [
        ("image", "NotJudged"),
        ("code", "NotJudged"),
    ]
