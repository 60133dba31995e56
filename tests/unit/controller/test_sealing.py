"""What a seal says, and which Job may be bound to it."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit import world
from trainseal.api.sealedrun import SealedRun
from trainseal.api.trainingjob import TrainingJob
from trainseal.controller.engineobjects import changed_before_binding
from trainseal.controller.sealing import (
    LABEL_DIGEST,
    artifacts,
    digest_label,
    seal_name,
)
from trainseal.engines.job import template_of
from trainseal.provenance.canonical import job_digest
from trainseal.provenance.seals import SEAL_ANNOTATION, SealTooLargeError, verify_seal
from trainseal.provenance.verdicts import Outcome, Signer, Verdict

Object = dict[str, Any]


@pytest.fixture(scope="module")
def sealed() -> world.World:
    return world.sealed_world()


# The seal ---------------------------------------------------------------------------------------


def test_a_seal_says_what_ran_who_signed_and_who_asked(sealed: world.World) -> None:
    spec = SealedRun.parse(sealed.seal).spec
    assert (spec.job.name, spec.job.uid) == ("char-lm", world.JOB_UID)
    assert spec.job.digest == job_digest(sealed.job)
    assert spec.requester.username == "bob@example.org"
    assert [(p.name, p.digest) for p in spec.policies] == [("research", world.policy().digest)]
    assert {(a.artifact, a.signers[0].person) for a in spec.artifacts} == {
        ("job", "Alice"),
        ("image", "Alice"),
        ("code", "Alice"),
    }
    assert [i.reference for i in spec.images] == [world.IMAGE]
    assert spec.roles[0].object_name == "char-lm-worker"
    assert spec.config_digest


def test_it_bears_our_mark_and_no_owner_reference(sealed: world.World) -> None:
    metadata = sealed.seal["metadata"]
    assert "ownerReferences" not in metadata
    verify_seal(
        world.keyring(),
        metadata["annotations"][SEAL_ANNOTATION],
        namespace="research",
        name=metadata["name"],
        spec=sealed.seal["spec"],
    )


def test_it_is_found_by_its_job_digest(sealed: world.World) -> None:
    label = sealed.seal["metadata"]["labels"][LABEL_DIGEST]
    assert label == digest_label(job_digest(sealed.job))
    assert len(label) <= 63


def test_one_job_object_has_one_seal_and_another_has_another() -> None:
    def named(**metadata: str) -> str:
        job = world.job_object()
        job["metadata"] |= metadata
        return seal_name(TrainingJob.parse(job).metadata, job_digest(job))

    assert named() == named()
    assert len({named(), named(uid="5f9d8d8f"), named(namespace="other")}) == 3
    assert len(named(name="a" * 40)) <= 63


def test_what_the_dry_run_says_of_itself_is_not_sealed(sealed: world.World) -> None:
    metadata = sealed.template["metadata"]
    assert "creationTimestamp" not in metadata
    assert not [k for k in metadata["labels"] if "job-name" in k or "controller-uid" in k]
    assert metadata["labels"]["team"] == "research"
    one = world.stored_job(world.render_job(sealed.job).roles[0].owner, "one")
    other = world.stored_job(world.render_job(sealed.job).roles[0].owner, "other")
    assert template_of(one) == template_of(other)


@pytest.mark.parametrize("job", [{}, {"spec": None}, {"spec": {"template": {"metadata": None}}}])
def test_a_job_without_a_template_has_an_empty_one(job: Any) -> None:
    assert template_of(job)["metadata"] == {}


def test_long_words_are_cut_to_what_the_kind_holds() -> None:
    verdict = Verdict("job", "n" * 999, "s" * 9999, Outcome.REFUTED, "X", "f" * 9999)
    (found,) = artifacts([verdict])
    assert (len(found.name), len(found.subject), len(found.message)) == (256, 1024, 4096)
    assert len(artifacts([verdict] * 999)) == 128


def test_of_many_signers_as_many_stand_in_the_seal_as_a_threshold_can_ask_for() -> None:
    signers = tuple(
        Signer(f"a{n}", f"person {n}", "i" * 2000, issuer="s" * 2000) for n in range(20)
    )
    verdict = Verdict("image", "n", "s", Outcome.VERIFIED, "Verified", "f", signers=signers)
    (found,) = artifacts([verdict])
    assert [s.person for s in found.signers] == [f"person {n}" for n in range(16)]


def long_variables(count: int) -> Callable[[Object], None]:
    def change(job: Object) -> None:
        container = job["spec"]["roles"][0]["template"]["spec"]["containers"][0]
        container["env"] = [{"name": f"V{n}", "value": "x" * 1000} for n in range(count)]

    return change


def test_a_seal_that_could_not_be_stored_is_not_made() -> None:
    assert world.sealed_world(long_variables(700)).seal["spec"]["roles"]
    with pytest.raises(SealTooLargeError, match=r"expected at most 786432; move long commands"):
        world.sealed_world(long_variables(800))


# The Job that is bound --------------------------------------------------------------------------


def both(sealed: world.World) -> tuple[Object, Object]:
    """The Job that we want, and the one that stands there."""
    wanted: Any = copy.deepcopy(world.render_job(sealed.job).roles[0].owner)
    wanted["spec"]["template"] = copy.deepcopy(sealed.template)
    return wanted, world.stored_job(wanted)


def test_the_job_that_we_made_is_bound(sealed: world.World) -> None:
    assert changed_before_binding(*both(sealed)) == ""


BENIGN: list[Callable[[Object], object]] = [
    lambda s: s.update(suspend=False),
    lambda s: s["template"]["spec"].update(nodeSelector={"zone": "a"}),
    lambda s: s["template"]["spec"].update(schedulingGates=[{"name": "x"}]),
    lambda s: s["podFailurePolicy"]["rules"][0].update(onPodConditions=None),
]


@pytest.mark.parametrize("change", BENIGN)
def test_so_is_one_that_was_placed_elsewhere(
    sealed: world.World, change: Callable[[Object], object]
) -> None:
    wanted, live = both(sealed)
    change(live["spec"])
    assert changed_before_binding(wanted, live) == ""


CHANGES: list[tuple[Callable[[Object], object], str]] = [
    (lambda s: s["template"]["spec"]["containers"][0].update(image="x"), "spec.template"),
    (lambda s: s["template"]["metadata"]["labels"].update(team="x"), "spec.template"),
    (lambda s: s["template"]["spec"].update(hostPID=True), "spec.template"),
    (lambda s: s.update(completions=1), "spec.completions"),
    (lambda s: s.update(parallelism=1), "spec.parallelism"),
    (lambda s: s.update(completionMode="NonIndexed"), "spec.completionMode"),
    (lambda s: s.update(managedBy="attacker.example/x"), "spec.managedBy"),
    (lambda s: s.update(successPolicy={"rules": [{"succeededCount": 1}]}), "spec.successPolicy"),
    (lambda s: s.update(manualSelector=False), "spec.manualSelector"),
    (lambda s: s["selector"]["matchLabels"].pop("trainseal.dev/role"), "spec.selector"),
    (lambda s: s["selector"]["matchLabels"].update(team="x"), "spec.selector"),
    (
        lambda s: s["selector"].update(matchExpressions=[{"key": "x", "operator": "Exists"}]),
        "spec.selector",
    ),
    (lambda s: s.pop("podFailurePolicy"), "spec.podFailurePolicy"),
    (
        lambda s: s["podFailurePolicy"]["rules"].append({"action": "Ignore"}),
        "spec.podFailurePolicy",
    ),
    (lambda s: s.update(ttlSecondsAfterFinished=0), "spec.ttlSecondsAfterFinished"),
]


@pytest.mark.parametrize(("change", "field"), CHANGES)
def test_a_job_with_a_copied_owner_that_says_something_else_is_not_bound(
    sealed: world.World, change: Callable[[Object], object], field: str
) -> None:
    wanted, live = both(sealed)
    change(live["spec"])
    assert changed_before_binding(wanted, live) == field
