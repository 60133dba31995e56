"""TrainingJobs at the door: stamped with who asked, verified once, unchanged afterwards."""

from __future__ import annotations

import asyncio
import copy
import threading
from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import REGISTRY

from tests.unit import world
from tests.unit.verifier.test_pending import two
from trainseal.admission.reviews import TOO_MANY, TRY_AGAIN, Request, Response
from trainseal.admission.trainingjobs import JobContext, in_turn, stamp, validate
from trainseal.admission.turns import BusyError, Turns
from trainseal.provenance.canonical import job_digest
from trainseal.provenance.choosers import (
    CHOICE_ANNOTATION,
    Choice,
    note_choice,
    read_choice,
)
from trainseal.provenance.keys import PrivateKey
from trainseal.provenance.templates import StoredTemplate
from trainseal.provenance.tickets import TICKET_ANNOTATION, Ticket, issue_ticket, read_ticket
from trainseal.provenance.verdicts import Outcome
from trainseal.verifier.jobs import JobVerifier
from trainseal.verifier.policystore import BrokenPolicy

Object = dict[str, Any]
BOB = "bob@example.org"


def job(change: Callable[[Object], object] | None = None) -> Object:
    """A signed job with the ticket of the one who asks, as it is after the mutating step."""
    found = world.signed_job()
    ticketed(found)
    if change:
        change(found)
    return found


def ticketed(job: Object, user: str = BOB, key: PrivateKey = world.TICKET_KEY) -> None:
    text = issue_ticket(key, Ticket(user, "uid-1", job_digest(job), world.NOW))
    job["metadata"]["annotations"] = {TICKET_ANNOTATION: text}


def request(obj: Object, old: Object | None = None) -> Request:
    return world.request(obj, old, user=BOB, resource="trainingjobs")


async def no_template(_: Object) -> None:
    return None


def context(evidence: world.Evidence | None = None, *policies: Any, **fields: Any) -> JobContext:
    values: dict[str, Any] = {
        "cluster": world.CLUSTER,
        "verifier": JobVerifier(evidence or world.Evidence(), lambda: world.NOW),  # type: ignore[arg-type]
        "policies": lambda _: policies or (world.policy(),),
        "broken": lambda: (),
        "runs": lambda _: 0,
        "sealed": lambda *_: False,
        "tickets": lambda: world.keyring(world.TICKET_KEY),
        "deadline": 1.0,
        "turns": Turns(),
        "now": lambda: world.NOW,
        "template": no_template,
    }
    return JobContext(**(values | fields))


def answer(obj: Object, old: Object | None = None, within: JobContext | None = None) -> Response:
    return world.run(validate(request(obj, old), within or context(), asyncio.to_thread))


def patched(obj: Object, response: Response) -> Object:
    """The object after a JSON patch of at most one operation on annotations."""
    found = copy.deepcopy(obj)
    for operation in response.patch:
        path = str(operation["path"]).removeprefix("/metadata/annotations").lstrip("/")
        if not path:
            found["metadata"]["annotations"] = operation["value"]
        elif operation["op"] == "remove":
            del found["metadata"]["annotations"][path.replace("~1", "/")]
        else:
            found["metadata"]["annotations"][path.replace("~1", "/")] = operation["value"]
    return found


# The stamp --------------------------------------------------------------------------------------


def stamped(obj: Object, old: Object | None = None) -> Object:
    return patched(obj, stamp(request(obj, old), world.TICKET_KEY, (world.policy(),), world.NOW))


def owner(obj: Object) -> str:
    text = obj["metadata"]["annotations"][TICKET_ANNOTATION]
    ring = world.keyring(world.TICKET_KEY)
    return read_ticket(ring, text, job_digest(obj)).username


@pytest.mark.parametrize(
    "annotations", [None, {}, {"x": "y"}, {TICKET_ANNOTATION: "somebody else's"}]
)
def test_a_new_job_is_stamped_with_who_asks_whatever_it_says(annotations: Any) -> None:
    obj = world.signed_job()
    obj["metadata"]["annotations"] = annotations
    assert owner(stamped(obj)) == BOB


def test_the_namespace_of_the_request_is_the_jobs() -> None:
    obj = world.signed_job()
    del obj["metadata"]["namespace"]
    text = stamped(obj)["metadata"]["annotations"][TICKET_ANNOTATION]
    ring = world.keyring(world.TICKET_KEY)
    assert read_ticket(ring, text, job_digest(world.signed_job())).username == BOB


def test_an_update_keeps_the_first_ticket() -> None:
    old = job()
    ticketed(old, "alice")
    changes: tuple[Callable[[Object], object], ...] = (
        lambda j: j["metadata"]["annotations"].update({TICKET_ANNOTATION: "x"}),
        lambda j: j["metadata"].update(annotations=None),
        lambda j: j["metadata"]["annotations"].clear(),
        lambda j: j["spec"].update(suspend=True),
    )
    for change in changes:
        new = copy.deepcopy(old)
        change(new)
        assert owner(stamped(new, old)) == "alice"


def test_an_update_gives_no_ticket_to_a_job_that_has_none() -> None:
    old = world.signed_job()
    assert stamp(request(job(), old), world.TICKET_KEY, (), world.NOW).patch
    assert stamped(job(), old)["metadata"]["annotations"] == {}


def test_a_job_that_cannot_be_canonical_is_left_to_the_validating_step() -> None:
    obj = world.signed_job()
    obj["spec"]["config"]["parameters"]["x"] = None
    assert stamp(request(obj), world.TICKET_KEY, (), world.NOW) == Response(True)


# Verified ---------------------------------------------------------------------------------------


def test_a_job_that_is_signed_is_admitted_and_its_digest_audited() -> None:
    found = answer(job())
    assert found.allowed
    assert found.audit == {
        "trainseal-outcome": "verified",
        "trainseal-job-digest": job_digest(world.job_object()),
    }


def test_a_denial_lists_what_stands_in_the_way_and_then_what_is_well() -> None:
    evidence = world.Evidence({world.IMAGE: Outcome.REFUTED, world.CODE: Outcome.UNDETERMINED})
    found = answer(job(), within=context(evidence))
    assert not found.allowed
    lines = found.message.splitlines()
    assert lines[0] == "TrainingJob research/char-lm is refused"
    assert [line.split()[1] for line in lines[1:]] == ["image", "code", "job"]


def test_what_could_not_be_read_is_said_as_such_and_worth_another_try() -> None:
    found = answer(job(), within=context(world.Evidence({world.IMAGE: Outcome.UNDETERMINED})))
    assert (found.allowed, found.code) == (False, TRY_AGAIN)
    assert "not the same as a bad signature" in found.message


def test_a_verdict_is_counted_and_a_denial_by_its_first_reason() -> None:
    def counted(name: str, **labels: str) -> float:
        return REGISTRY.get_sample_value(name, labels) or 0.0

    def counts() -> list[float]:
        return [
            counted("trainseal_verdicts_total", outcome="verified"),
            counted("trainseal_verdicts_total", outcome="refuted"),
            counted("trainseal_denials_total", outcome="refuted", reason="OtherJob"),
        ]

    before = counts()
    good, other = job(), job(lambda j: j["spec"]["roles"][0].update(replicas=7))
    for one in (good, other):
        ticketed(one)
        answer(one)
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [1, 1, 1]


def test_an_auditing_policy_warns() -> None:
    obj = world.signed_job()
    del obj["spec"]["signatures"]
    ticketed(obj)
    found = answer(obj, within=context(None, world.policy(mode="Audit")))
    assert found.allowed
    assert "no signature found" in found.warnings[0]


def test_whoever_applies_a_job_is_told_what_would_end_a_frozen_pod() -> None:
    obj = world.job_object()
    probe = {"exec": {"command": ["true"]}}
    obj["spec"]["roles"][0]["template"]["spec"]["containers"][0]["livenessProbe"] = probe
    ticketed(world.sign_job(obj, world.ALICE))
    found = answer(obj)
    assert found.allowed
    (warning,) = found.warnings
    assert "livenessProbe: fails while the pod is frozen" in warning
    assert len(warning) <= 256  # clients cut what is longer
    assert not answer(job()).warnings


def test_runs_are_counted_for_the_digest() -> None:
    obj = world.job_object()
    obj["spec"]["validity"] = {"maxRuns": 1}
    world.sign_job(obj, world.ALICE)
    ticketed(obj)
    seen = {job_digest(obj): 1}
    assert "1 run of" in answer(obj, within=context(runs=lambda d: seen.get(d, 0))).message
    assert answer(obj, within=context(runs=lambda _: 0)).allowed


def test_a_broken_policy_stops_every_job() -> None:
    broken = (BrokenPolicy("other", "its key cannot be read"),)
    found = answer(job(), within=context(broken=lambda: broken))
    assert (found.allowed, found.code) == (False, TRY_AGAIN)


def test_a_generated_name_is_refused_in_words() -> None:
    obj = job(lambda j: [j["metadata"].pop("name"), j["metadata"].update(generateName="x-")])
    assert "a signed job has one fixed name" in answer(obj).message


# The ticket that is stored ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda j: j["metadata"].update(annotations={}), "ticket does not count"),
        (lambda j: ticketed(j, "alice"), "found the ticket of 'alice'"),
        (lambda j: ticketed(j, key=world.MALLORY), "the keyring does not hold"),
    ],
)
def test_a_job_without_the_ticket_of_who_asks_is_denied(
    change: Callable[[Object], object], words: str
) -> None:
    found = answer(job(change))
    assert not found.allowed
    assert words in found.message


def test_a_changed_ticket_is_denied_where_the_stamp_was_bypassed() -> None:
    new = job(lambda j: ticketed(j, "alice"))
    assert "it says who asked" in answer(new, job()).message
    assert answer(job(), job()).allowed


# Updates ----------------------------------------------------------------------------------------


class Silent(world.Evidence):
    """A registry, or a policy, that must not be asked."""

    def _verdicts(self, *_: Any) -> Any:
        raise AssertionError("verified again")


@pytest.mark.parametrize(
    "change",
    [
        lambda j: j["spec"].update(suspend=True),
        lambda j: j["spec"].update(scheduling={"queueName": "other"}),
        lambda j: j["spec"].update(signatures=[]),
        lambda j: j["metadata"].update(finalizers=["x"], labels={"a": "b"}),
        lambda j: j["metadata"].update(deletionTimestamp="2026-11-23T12:00:00Z"),
    ],
)
def test_what_is_not_signed_may_change_without_asking_a_registry(
    change: Callable[[Object], object],
) -> None:
    assert answer(job(change), job(), context(Silent())).allowed


def test_a_second_approver_adds_a_bundle_without_a_registry_being_asked() -> None:
    new = job()
    new["spec"]["signatures"] = world.sign_job(job(), world.ALICE, world.BOB)["spec"]["signatures"]
    assert answer(new, job(), context(Silent())).allowed


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda j: j["spec"].update(scheduling={"affinity": {"x": "y" * 40000}}),
            "spec.scheduling: found 40021 bytes, expected at most 32768 bytes of JSON",
        ),
        (
            lambda j: j["spec"]["signatures"].append({"bundle": {"x": "y" * 600_000}}),
            "spec.signatures[1].bundle: found 600008 bytes, expected at most 262144 bytes",
        ),
        (
            lambda j: j["spec"]["signatures"].append({"bundle": {"mediaType": "text/plain"}}),
            "spec.signatures[1].bundle: found what cannot be read (mediaType: found 'text/plain'",
        ),
    ],
)
def test_an_update_is_held_to_the_bounds_of_what_is_not_signed(
    change: Callable[[Object], object], words: str
) -> None:
    found = answer(job(change), job(), context(Silent()))
    assert not found.allowed
    assert words in found.message
    # Stored before there was a bound, it stands in the way of nothing else: of no deletion.
    released = job(change)
    released["metadata"]["finalizers"] = []
    assert answer(released, job(change), context(Silent())).allowed


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda j: j["spec"]["config"]["parameters"].update(steps=1), "spec.config"),
        (lambda j: j["spec"]["roles"][0].update(replicas=3), "spec.roles"),
        (lambda j: j["spec"].pop("scratch"), "spec.scratch"),
        (lambda j: j["spec"].update(validity={"maxRuns": 9}), "spec.validity"),
    ],
)
def test_what_is_signed_may_not_even_with_a_signature(
    change: Callable[[Object], object], field: str
) -> None:
    new = job(change)
    new["spec"]["signatures"] = world.sign_job(new, world.ALICE)["spec"]["signatures"]
    found = answer(new, job())
    assert not found.allowed
    assert f"found a change of {field} after admission" in found.message


def test_a_job_that_was_stored_while_nobody_looked_can_still_be_taken_apart() -> None:
    def bad(found: Object) -> None:
        found["spec"]["config"]["parameters"]["x"] = None

    def bad_and_released(found: Object) -> None:
        bad(found)
        found["metadata"]["finalizers"] = []

    def bad_and_suspended(found: Object) -> None:
        bad(found)
        found["spec"]["suspend"] = True

    assert answer(job(bad_and_released), job(bad)).allowed
    assert not answer(job(bad_and_suspended), job(bad)).allowed
    # Nor does it become sound by an update that nobody verified.
    assert not answer(job(), job(bad)).allowed


# Turns ------------------------------------------------------------------------------------------


async def test_a_job_with_too_many_values_is_refused_with_the_bound() -> None:
    def crowded(job: Object) -> None:
        job["spec"]["config"]["parameters"]["x"] = [0] * 20_001

    found = await validate(request(job(crowded)), context(), asyncio.to_thread)
    assert not found.allowed
    assert "more than 20000 values" in found.message


async def test_who_asks_too_much_at_once_is_told_to_try_again() -> None:
    async def busy(_: object) -> Response:
        raise BusyError("found 8192 KiB of requests that wait already, expected fewer at once")

    found = await in_turn(request(job()), context(), busy)
    assert (found.allowed, found.code) == (False, TOO_MANY)
    assert found.message.startswith("TrainingJob research/char-lm: found 8192 KiB")


async def test_a_turn_that_does_not_come_in_time_is_a_denial_to_try_again() -> None:
    free = threading.Event()
    within = context(deadline=0.01)
    first = asyncio.ensure_future(within.turns.take("eve", 1, free.wait))
    try:
        found = await in_turn(
            request(job()), within, lambda offline: validate(request(job()), within, offline)
        )
    finally:
        free.set()
        await first
    assert (found.allowed, found.code) == (False, TRY_AGAIN)
    assert "too many TrainingJobs at once" in found.message


def test_a_denial_before_any_registry_was_asked_says_so() -> None:
    unsigned = answer(job(lambda j: j["spec"].pop("signatures")))
    assert "images and code: not looked at yet" in unsigned.message
    unreachable = answer(job(), within=context(world.Evidence({world.CODE: Outcome.REFUTED})))
    assert "not looked at yet" not in unreachable.message


def test_a_job_that_may_wait_for_signatures_is_let_in_and_says_whom_it_waits_for() -> None:
    found = answer(job(), within=context(None, two()))
    assert found.allowed
    (warning,) = found.warnings
    assert "still wants a signature by Bob" in warning
    assert "trainseal approve char-lm -n research" in warning
    assert found.audit["trainseal-outcome"] == "pending"


def test_where_something_else_could_not_be_read_it_is_worth_another_try() -> None:
    evidence = world.Evidence(outcomes={world.CODE: Outcome.UNDETERMINED})
    found = answer(job(), within=context(evidence, two()))
    assert (found.allowed, found.code) == (False, TRY_AGAIN)
    assert "undetermined" in found.message.splitlines()[0]


def test_where_something_else_is_wrong_it_is_not() -> None:
    evidence = world.Evidence(outcomes={world.CODE: Outcome.REFUTED})
    assert not answer(job(), within=context(evidence, two())).allowed


def test_an_engine_that_the_cluster_does_not_have_is_refused_in_words() -> None:
    obj = world.signed_job(lambda job: job["spec"].update(engine="JobSet"))
    ticketed(obj)
    said = answer(obj)
    assert not said.allowed
    assert "spec.engine is JobSet: found the engines Job enabled" in said.message
    assert answer(obj, within=context(engines=("Job", "JobSet"))).allowed


def with_signatures(*keys: PrivateKey) -> Object:
    found = job()
    found["spec"]["signatures"] = world.sign_job(copy.deepcopy(found), *keys)["spec"]["signatures"]
    return found


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        ([world.ALICE], [world.ALICE, world.BOB], ""),
        ([world.ALICE], [world.ALICE, world.MALLORY], "a signature that does not count"),
        ([world.ALICE, world.BOB], [world.BOB], "the signature of Alice taken away"),
        ([world.ALICE, world.MALLORY], [world.ALICE], ""),
        ([world.ALICE], [world.ALICE], ""),
    ],
)
def test_of_a_job_that_may_wait_signatures_that_count_stay_and_others_stay_out(
    before: list[PrivateKey], after: list[PrivateKey], words: str
) -> None:
    old, new = with_signatures(*before), with_signatures(*after)
    found = answer(new, old, context(None, two()))
    assert found.allowed == (not words)
    assert words in found.message
    # Where none may wait they count nothing here, as ever.
    assert answer(new, old, context(None, two(pending=None))).allowed


def test_no_junk_fills_up_the_list_of_one_that_waits() -> None:
    old, new = with_signatures(world.ALICE), with_signatures(world.ALICE)
    new["spec"]["signatures"].append({"bundle": {"mediaType": "junk"}})
    assert not answer(new, old, context(None, two())).allowed


# Sizes of elastic roles -------------------------------------------------------------------------


def elastic(workers: int | None = None, by: str = BOB) -> Object:
    """A job of two to five workers, of whom somebody chose so many; as it is stored."""
    found = world.signed_job(world.elastic)
    ticketed(found)
    if workers is not None:
        found["spec"]["scheduling"] = {"replicas": {"worker": workers}}
        choice = Choice(by, job_digest(found), {"worker": workers}, world.NOW)
        noted = note_choice(world.TICKET_KEY, choice)
        found["metadata"]["annotations"][CHOICE_ANNOTATION] = noted
    return found


def chooser(obj: Object) -> str:
    text = obj["metadata"]["annotations"][CHOICE_ANNOTATION]
    asked = obj["spec"].get("scheduling", {}).get("replicas", {})
    return read_choice(world.keyring(world.TICKET_KEY), text, job_digest(obj), asked).username


def scaled(old: Object, workers: int | None) -> Object:
    """What somebody sends who chooses another number and leaves all else as it was."""
    found = copy.deepcopy(old)
    found["spec"]["scheduling"] = {} if workers is None else {"replicas": {"worker": workers}}
    return found


@pytest.mark.parametrize("workers", [2, 5])
def test_who_chooses_within_the_signed_range_is_let_and_noted(workers: int) -> None:
    new = elastic()
    new["spec"]["scheduling"] = {"replicas": {"worker": workers}}
    new = stamped(new)
    assert (chooser(new), answer(new).allowed) == (BOB, True)
    old = elastic(3, by="alice@example.org")
    changed = stamped(scaled(old, workers), old)
    assert (chooser(changed), answer(changed, old).allowed) == (BOB, True)


def test_who_takes_a_choice_back_is_noted() -> None:
    old = elastic(3, by="alice@example.org")
    changed = stamped(scaled(old, None), old)
    assert (chooser(changed), answer(changed, old).allowed) == (BOB, True)


def test_who_changes_anything_else_leaves_the_note_as_it_was() -> None:
    old = elastic(3, by="alice@example.org")
    changed = copy.deepcopy(old)
    changed["spec"]["suspend"] = True
    for note in (old["metadata"]["annotations"][CHOICE_ANNOTATION], "forged", None):
        changed["metadata"]["annotations"][CHOICE_ANNOTATION] = note
        kept = stamped(changed, old)
        assert chooser(kept) == "alice@example.org"
        assert answer(kept, old).allowed


@pytest.mark.parametrize("workers", [1, 6])
def test_a_size_beyond_the_signed_range_is_refused_when_it_is_made_and_changed(
    workers: int,
) -> None:
    words = (
        f"spec.scheduling.replicas[worker]: found {workers}, expected a number from 2 to 5, as is "
        "signed"
    )
    refused = answer(stamped(scaled(elastic(), workers)))
    assert (refused.allowed, words in refused.message) == (False, True), refused.message
    old = elastic(3)
    refused = answer(stamped(scaled(old, workers), old), old)
    assert (refused.allowed, words in refused.message) == (False, True), refused.message


def test_a_role_of_one_size_or_of_no_name_is_not_scaled() -> None:
    old = job()
    for name, words in (("worker", "a role whose signed size is 2"), ("x", "no role of this name")):
        found = scaled(old, None)
        found["spec"]["scheduling"] = {"replicas": {name: 2}}
        refused = answer(stamped(found, old), old)
        assert (refused.allowed, words in refused.message) == (False, True), refused.message


def test_a_size_that_is_stored_already_stands_in_no_other_updates_way() -> None:
    old = elastic(9)
    changed = copy.deepcopy(old)
    changed["spec"]["suspend"] = True
    assert answer(stamped(changed, old), old).allowed


@pytest.mark.parametrize(
    ("note", "words"),
    [
        (None, "the note on who chose does not count"),
        ("alice", "found a note that 'alice' chose"),
        ("old", "it is on other numbers"),
    ],
)
def test_a_choice_without_the_note_that_this_user_made_it_is_refused(
    note: str | None, words: str
) -> None:
    """A webhook that runs after ours, say, or one of ours that was not asked."""
    old = elastic(3)
    changed = scaled(old, 4)
    if note is None:
        del changed["metadata"]["annotations"][CHOICE_ANNOTATION]
    elif note != "old":
        changed = elastic(4, by=note)
    refused = answer(changed, old)
    assert (refused.allowed, words in refused.message) == (False, True), refused.message


def test_a_note_that_is_changed_without_a_choice_is_refused() -> None:
    old = elastic(3, by="alice@example.org")
    refused = answer(elastic(3, by=BOB), old)
    assert not refused.allowed
    assert "found a change of the annotation trainseal.dev/choice" in refused.message


def of_a_template(workers: int | None, **template: Any) -> tuple[Object, JobContext]:
    """A job of a template whose workers are elastic, as it is stored."""
    made = world.template_object(replicas={})
    world.elastic({"spec": made["spec"]["job"]})
    found = world.launched_job(made)
    ticketed(found)
    if workers is not None:
        found["spec"]["scheduling"] = {"replicas": {"worker": workers}}

    async def stored(_: Object) -> StoredTemplate:
        return StoredTemplate(template.get("manifest", made), "")

    return found, context(template=stored)


@pytest.mark.parametrize(("workers", "allowed"), [(2, True), (5, True), (1, False), (6, False)])
def test_a_run_of_a_template_is_scaled_within_what_the_template_says(
    workers: int, allowed: bool
) -> None:
    old, within = of_a_template(None)
    changed = stamped(scaled(old, workers), old)
    answered = answer(changed, old, within)
    assert answered.allowed == allowed, answered.message


def test_where_the_template_is_gone_the_seal_alone_says_what_may_be() -> None:
    old, within = of_a_template(None, manifest=None)
    assert answer(stamped(scaled(old, 9), old), old, within).allowed
    other, within = of_a_template(None, manifest=world.template_object(parameters={}))
    assert answer(stamped(scaled(other, 9), other), other, within).allowed
