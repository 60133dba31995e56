"""In Audit a job may stand by tags: that is said, and no registry is asked by tag."""

from __future__ import annotations

from tests.unit import world
from trainseal.provenance.verdicts import Outcome


def by_tags(job: world.Object) -> None:
    pod = job["spec"]["roles"][0]["template"]["spec"]
    pod["containers"][0]["image"] = "registry.example/research/pytorch:1"
    job["spec"]["code"][0]["oci"]["reference"] = "registry.example/research/code:1"


def test_in_audit_a_job_by_tags_is_warned_of_and_no_registry_is_asked_by_tag() -> None:
    evidence = world.Evidence()
    found = world.verify(world.signed_job(by_tags), world.policy(mode="Audit"), evidence=evidence)
    assert found.outcome is Outcome.VERIFIED
    assert {v.reason for v in found.audited} >= {"ImageNotByDigest", "CodeNotByDigest"}
    assert evidence.asked == []


def test_in_audit_a_job_by_digests_is_looked_up() -> None:
    evidence = world.Evidence()
    world.verify(world.signed_job(), world.policy(mode="Audit"), evidence=evidence)
    assert sorted(evidence.asked) == sorted([world.IMAGE, world.CODE])
