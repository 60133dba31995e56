"""Signatures that are written into a job that waits for them: each change is judged, offline."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest

from tests.unit import world
from tests.unit.admission.test_trainingjobs import Silent, answer, context, job, ticketed
from tests.unit.verifier.test_pending import two
from trainseal.admission.trainingjobs import JobContext
from trainseal.api.trainingjob import TrainingJob
from trainseal.controller.sealing import seal_name
from trainseal.provenance.canonical import job_digest
from trainseal.provenance.keys import PrivateKey

Object = dict[str, Any]


def within(evidence: world.Evidence | None = None, **fields: Any) -> JobContext:
    return context(evidence, two(), **fields)


def signed(*signers: PrivateKey) -> Object:
    found = world.sign_job(world.job_object(), *signers)
    ticketed(found)
    return found


def test_who_is_missing_adds_a_signature_without_a_registry_being_asked() -> None:
    assert answer(signed(world.ALICE, world.BOB), signed(world.ALICE), within(Silent())).allowed
    assert answer(signed(world.ALICE), signed(), within(Silent())).allowed


@pytest.mark.parametrize(
    ("signers", "words"),
    [
        ([], "found the signature of Alice taken away"),
        ([world.BOB], "found the signature of Alice taken away"),
        ([world.ALICE, world.MALLORY], "a signature that does not count"),
        ([world.ALICE, world.ALICE], "a second signature of Alice"),
    ],
)
def test_an_update_of_signatures_is_judged_while_the_job_waits(
    signers: list[PrivateKey], words: str
) -> None:
    found = answer(signed(*signers), signed(world.ALICE), within(Silent()))
    assert not found.allowed
    assert words in found.message


def test_once_it_is_sealed_its_signatures_may_change() -> None:
    old = signed(world.ALICE)
    name = seal_name(TrainingJob.parse(old).metadata, job_digest(old))
    with_seal = within(Silent(), sealed=lambda *seal: seal == ("research", name))
    assert answer(signed(), old, with_seal).allowed


def test_where_nothing_may_wait_signatures_may_change_as_ever() -> None:
    nothing = context(Silent(), two(pending=None))
    assert answer(signed(), signed(world.ALICE), nothing).allowed


def test_a_signature_that_comes_too_late_is_refused() -> None:
    late = within(Silent(), now=lambda: world.NOW + timedelta(hours=1, seconds=1))
    found = answer(signed(world.ALICE, world.BOB), signed(world.ALICE), late)
    assert not found.allowed
    assert "a signature that comes after 3600 seconds" in found.message
    in_time = within(Silent(), now=lambda: world.NOW + timedelta(hours=1))
    assert answer(signed(world.ALICE, world.BOB), signed(world.ALICE), in_time).allowed
    # What lacks nothing waits for nothing.
    again = copy.deepcopy(signed(world.ALICE, world.BOB))
    again["spec"]["signatures"].reverse()
    assert answer(again, signed(world.ALICE, world.BOB), late).allowed


def test_one_that_waits_cannot_be_changed() -> None:
    changed = job(lambda j: j["spec"]["roles"][0].update(replicas=64))
    found = answer(changed, signed(world.ALICE), within(Silent()))
    assert not found.allowed
    assert "found a change of spec.roles after admission" in found.message


def test_one_that_waits_can_be_taken_apart_though_its_ticket_cannot_be_read() -> None:
    old, new = signed(world.ALICE), signed()
    for each in (old, new):
        each["metadata"]["annotations"] = {}
    assert answer(new, old, within(Silent())).allowed
