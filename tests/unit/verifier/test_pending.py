"""Jobs that wait for signatures: only where nothing else is wrong and the policy lets them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit import world
from trainseal.provenance.jobrules import RunFacts
from trainseal.provenance.policies import CompiledPolicy
from trainseal.provenance.requesters import Requester
from trainseal.provenance.verdicts import Outcome

Object = dict[str, Any]
SIGNERS: Object = {"authorities": ["alice", "bob"]}
BOTH: Object = {
    "job": {"authorities": ["alice", "bob"], "threshold": 2},
    "image": SIGNERS,
    "code": SIGNERS,
}


def two(name: str = "research", **spec: Any) -> CompiledPolicy:
    """Alice and Bob sign the job; it may wait for an hour."""
    return world.policy(name, **{"requirements": BOTH, "pending": {"maxAgeSeconds": 3600}, **spec})


def test_a_job_that_one_of_two_has_signed_waits_for_the_other() -> None:
    evidence = world.Evidence()
    found = world.verify(world.signed_job(), two(), evidence=evidence)
    (awaited,) = found.awaited
    assert awaited.lack is not None
    assert (awaited.lack.number, awaited.lack.persons) == (1, ("Bob",))
    assert found.outcome is Outcome.REFUTED
    # What an approver would let run has been looked at.
    assert evidence.asked == [world.IMAGE, world.CODE]


def test_one_that_nobody_has_signed_waits_for_all() -> None:
    (awaited,) = world.verify(world.job_object(), two()).awaited
    assert str(awaited.lack) == "Alice and Bob"


def test_a_strangers_signature_keeps_nobody_from_signing() -> None:
    job = world.sign_job(world.job_object(), world.MALLORY)
    (awaited,) = world.verify(job, two()).awaited
    assert awaited.lack is not None
    assert awaited.lack.number == 2


def test_once_both_have_signed_nothing_is_awaited() -> None:
    found = world.verify(world.sign_job(world.job_object(), world.ALICE, world.BOB), two())
    assert found.outcome is Outcome.VERIFIED
    assert found.awaited == ()


def test_a_policy_that_does_not_say_so_lets_no_job_wait() -> None:
    evidence = world.Evidence()
    found = world.verify(world.signed_job(), two(pending=None), evidence=evidence)
    assert found.awaited == ()
    assert evidence.asked == []


def test_each_policy_whose_signatures_are_missing_must_let_it_wait() -> None:
    found = world.verify(world.signed_job(), two(), two("strict", pending=None))
    assert len(found.denials) == 2
    assert found.awaited == ()


def test_a_job_that_was_changed_after_somebody_signed_it_is_refused() -> None:
    job, evidence = world.signed_job(), world.Evidence()
    job["spec"]["config"]["parameters"]["learning_rate"] = 1
    found = world.verify(job, two(), evidence=evidence)
    assert found.awaited == ()
    assert evidence.asked == []


@pytest.mark.parametrize("outcome", [Outcome.REFUTED, Outcome.UNDETERMINED])
def test_nothing_else_may_be_wrong(outcome: Outcome) -> None:
    evidence = world.Evidence(outcomes={world.CODE: outcome})
    found = world.verify(world.signed_job(), two(), evidence=evidence)
    assert found.awaited == ()
    # What could not be read just now may be read once it is signed.
    assert bool(found.lacking) == (outcome is Outcome.UNDETERMINED)


def test_nobody_can_be_awaited_who_would_have_had_to_ask() -> None:
    people = world.policy_object()["spec"]["authorities"][:1]
    people.append({"name": "bob", "kubernetes": {"users": ["bob@example.org"]}})
    signers = {"authorities": ["alice"]}
    rules = {**BOTH, "image": signers, "code": signers}
    policy = two(authorities=people, requirements=rules)
    asked = RunFacts(world.CLUSTER, 0, requester=Requester("carol@example.org"))
    found = world.verify(world.signed_job(), policy, facts=asked)
    assert found.outcome is Outcome.REFUTED
    assert found.awaited == ()


def test_a_job_without_all_signatures_whose_rules_are_broken_is_refused() -> None:
    found = world.verify(world.signed_job(), two(validity={"require": ["notAfter"]}))
    assert found.awaited == ()
