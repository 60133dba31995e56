"""Jobs of a template at the door, and templates themselves."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit import world
from tests.unit.admission.test_trainingjobs import context
from trainseal.admission.reviews import TRY_AGAIN, Response
from trainseal.admission.trainingjobs import JobContext, stamp, validate, validate_template
from trainseal.provenance.canonical import job_digest, template_digest
from trainseal.provenance.templates import StoredTemplate
from trainseal.provenance.tickets import TICKET_ANNOTATION, Ticket, issue_ticket, read_ticket

Object = dict[str, Any]
BOB, GROUPS = "bob@example.org", ["research", "system:authenticated"]


def signed() -> Object:
    return world.sign_template(world.template_object(), world.ALICE)


def within(stored: StoredTemplate, **fields: Any) -> JobContext:
    async def template(_: Object) -> StoredTemplate:
        return stored

    return context(template=template, **fields)


def request(
    obj: Object, old: Object | None = None, user: str = BOB, kind: str = "trainingjobs"
) -> Any:
    made = world.request(obj, old, user=user, resource=kind)
    return dataclasses.replace(made, user={"username": user, "groups": GROUPS})


def launched(template: Object, user: str = BOB, **spec: Any) -> Object:
    """As it is after the mutating step."""
    job = world.launched_job(template, **spec)
    ticket = Ticket(user, "uid-1", job_digest(job), world.NOW, tuple(GROUPS))
    job["metadata"]["annotations"] = {TICKET_ANNOTATION: issue_ticket(world.TICKET_KEY, ticket)}
    return job


def answer(job: Object, stored: StoredTemplate, user: str = BOB) -> Response:
    asked = request(job, user=user)
    return world.run(validate(asked, within(stored), asyncio.to_thread))


# Jobs -------------------------------------------------------------------------------------------


def test_a_job_of_a_template_is_let_in_with_a_generated_name() -> None:
    template = signed()
    job = launched(template, parameters={"optim.seed": 17})
    found = answer(job, StoredTemplate(template))
    assert found.allowed, found.message


def test_its_ticket_is_good_before_it_has_its_name_and_after() -> None:
    job = world.launched_job(signed())
    unnamed = copy.deepcopy(job)
    del unnamed["metadata"]["name"]
    (operation,) = stamp(request(unnamed), world.TICKET_KEY, (), world.NOW).patch
    text = operation["value"][TICKET_ANNOTATION]
    ticket = read_ticket(world.keyring(world.TICKET_KEY), str(text), job_digest(job))
    assert (ticket.username, set(ticket.groups)) == (BOB, set(GROUPS))


def test_a_whole_job_says_nothing_of_groups_that_nobody_asks_about() -> None:
    job = world.signed_job()
    (operation,) = stamp(request(job), world.TICKET_KEY, (world.policy(),), world.NOW).patch
    text = operation["value"][TICKET_ANNOTATION]
    ticket = read_ticket(world.keyring(world.TICKET_KEY), str(text), job_digest(job))
    assert ticket.groups == ()


def test_who_is_not_named_is_refused_with_who_is() -> None:
    template = world.template_object()
    template["spec"]["launch"]["requesters"] = [{"user": "carol@example.org"}]
    world.sign_template(template, world.ALICE)
    found = answer(launched(template), StoredTemplate(template))
    assert not found.allowed
    assert "user carol@example.org" in found.message


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"parameters": {"learning_rate": 0.1}}, "spec.parameters[learning_rate]"),
        ({"parameters": {"steps": 1}}, "does not leave open"),
        ({"replicas": {"worker": 100}}, "1 to 8"),
    ],
)
def test_what_is_out_of_bounds_is_refused_with_its_field(given: Object, words: str) -> None:
    template = signed()
    found = answer(launched(template, **given), StoredTemplate(template))
    assert not found.allowed
    assert words in found.message


def test_a_template_that_cannot_be_read_is_worth_another_try() -> None:
    found = answer(launched(signed()), StoredTemplate(None, "connection refused"))
    assert (found.allowed, found.code) == (False, TRY_AGAIN)
    assert "connection refused" in found.message


def test_what_it_asks_for_stays_as_it_is() -> None:
    template = signed()
    old = launched(template, parameters={"optim.seed": 17})
    new = copy.deepcopy(old)
    new["spec"]["parameters"]["optim.seed"] = 18
    asked = request(new, old)
    found = world.run(validate(asked, within(StoredTemplate(template)), asyncio.to_thread))
    assert not found.allowed
    assert "spec.parameters" in found.message


# Templates --------------------------------------------------------------------------------------


def judged(template: Object, old: Object | None = None, **fields: Any) -> Response:
    asked = request(template, old, kind="trainingtemplates")
    return world.run(validate_template(asked, context(**fields), asyncio.to_thread))


def test_a_signed_template_is_let_in() -> None:
    found = judged(signed())
    assert found.allowed, found.message
    assert found.audit["trainseal-job-digest"] == template_digest(signed())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t["spec"].pop("signatures"), "no signature found"),
        (lambda t: t["spec"]["launch"].update(maxConcurrent=7), "it was changed after signing"),
    ],
)
def test_one_that_is_not_signed_as_it_stands_is_refused(
    change: Callable[[Object], object], words: str
) -> None:
    template = signed()
    change(template)
    found = judged(template)
    assert not found.allowed
    assert words in found.message


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t["spec"]["parameters"]["learning_rate"].pop("maximum"), "minimum and maximum"),
        (lambda t: t["spec"]["code"]["trainer"].update(authority="nobody"), "authority nobody"),
        (lambda t: t["spec"]["launch"].update(requesters=[{"authority": "x"}]), "authority x"),
        (lambda t: t["spec"]["job"].pop("roles"), "spec.job.roles"),
        (
            lambda t: t["spec"]["job"]["roles"][0]["template"]["spec"].update(hostPID=True),
            "hostPID",
        ),
        (
            lambda t: t["spec"]["job"]["code"][0]["oci"].update(reference="evil.example/x"),
            "outside the allowed repositories",
        ),
    ],
)
def test_one_that_could_start_nothing_is_refused_when_it_is_made(
    change: Callable[[Object], object], words: str
) -> None:
    template = world.template_object()
    change(template)
    found = judged(world.sign_template(template, world.ALICE))
    assert not found.allowed
    assert words in found.message


def test_where_no_policy_names_the_namespace_it_is_refused_and_says_whom_to_ask() -> None:
    found = judged(signed(), policies=lambda _: ())
    assert not found.allowed
    assert "no ProvenancePolicy names namespace research" in found.message
    assert "ask the platform team for a policy" in found.message


def test_under_audit_it_warns() -> None:
    found = judged(world.template_object(), policies=lambda _: (world.policy(mode="Audit"),))
    assert found.allowed
    assert "no signature found" in found.warnings[0]


def test_what_is_signed_of_it_does_not_change() -> None:
    old = signed()
    new = copy.deepcopy(old)
    new["spec"]["launch"]["maxConcurrent"] = 500
    found = judged(world.sign_template(new, world.ALICE), old)
    assert not found.allowed
    assert "make a template of another name" in found.message


def test_a_second_signature_and_a_revocation_are_added_with_nothing_verified() -> None:
    old = signed()
    new = world.sign_template(copy.deepcopy(old), world.ALICE, world.BOB)
    new["spec"]["revoked"] = {"reason": "diverges"}
    assert judged(new, old, policies=lambda _: ()).allowed


def test_what_is_no_signature_is_not_added() -> None:
    old = signed()
    new = copy.deepcopy(old)
    new["spec"]["signatures"].append({"bundle": {"x": 1}})
    assert not judged(new, old).allowed


@pytest.mark.parametrize("name", [None, "other-"])
def test_the_beginning_of_its_name_stays_for_the_seal_knows_it_by_that(name: str | None) -> None:
    template = signed()
    old = launched(template)
    new = copy.deepcopy(old)
    new["metadata"]["generateName"] = name
    asked = request(new, old)
    found = world.run(validate(asked, within(StoredTemplate(template)), asyncio.to_thread))
    assert not found.allowed
    assert "metadata.generateName" in found.message
