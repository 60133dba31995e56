"""What may become of the signatures of a job that waits, whoever may edit it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit import world
from tests.unit.verifier.test_pending import two
from trainseal.api.trainingjob import TrainingJob
from trainseal.provenance.approvals import Fault, change_fault
from trainseal.provenance.canonical import canonical_job
from trainseal.provenance.judgement import Signed
from trainseal.provenance.keys import PrivateKey
from trainseal.verifier.jobs import read_bundles

Object = dict[str, Any]


def job(*signers: PrivateKey) -> Object:
    return world.sign_job(world.job_object(), *signers)


def change(old: Object, new: Object) -> Fault | None:
    entries = [
        [*zip(o["spec"].get("signatures") or [], read_bundles(spec.spec.signatures), strict=True)]
        for o, spec in ((old, TrainingJob.parse(old)), (new, TrainingJob.parse(new)))
    ]
    signed = Signed("TrainingJob", "research", "char-lm", canonical_job(new))
    return change_fault(entries[0], entries[1], signed, (two(),))


def test_an_approval_is_added() -> None:
    assert change(job(), job(world.ALICE)) is None
    assert change(job(world.ALICE), job(world.ALICE, world.BOB)) is None


def test_an_approval_may_be_signed_anew_and_stand_elsewhere() -> None:
    assert change(job(world.ALICE, world.BOB), job(world.BOB, world.ALICE)) is None


@pytest.mark.parametrize("new", [[], [world.BOB], [world.ALICE]])
def test_an_approval_is_not_taken_away(new: list[PrivateKey]) -> None:
    found = change(job(world.ALICE, world.BOB), job(*new))
    assert found is not None
    assert "taken away" in found.words
    for person, key in (("Alice", world.ALICE), ("Bob", world.BOB)):
        assert (person in found.words) == (key not in new)


def test_what_counts_for_nobody_is_kept_out_and_may_always_go() -> None:
    found = change(job(world.ALICE), job(world.ALICE, world.MALLORY))
    assert found is not None
    assert "does not count" in found.words
    assert change(job(world.ALICE, world.MALLORY), job(world.ALICE)) is None
    kept = job(world.ALICE, world.MALLORY)
    more = copy.deepcopy(kept)
    more["spec"]["signatures"] += job(world.BOB)["spec"]["signatures"]
    assert change(kept, more) is None


def test_nobody_fills_the_place_of_others_with_one_signature_many_times() -> None:
    old = job(world.ALICE)
    new = copy.deepcopy(old)
    new["spec"]["signatures"] *= 2
    found = change(old, new)
    assert found is not None
    assert found.words == (
        "spec.signatures[1]: found a second signature of Alice, expected one; leave it out"
    )
