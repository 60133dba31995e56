"""Policies that make sense, and evidence that only TrainSeal writes."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sample_objects import trust_root
from tests.unit import world
from trainseal.admission.ownkinds import validate_evidence, validate_policy
from trainseal.admission.reviews import Request

WRITERS = {"sealedruns": frozenset({world.CONTROLLER})}


def policy_request(obj: Any, old: Any = None, resource: str = "provenancepolicies") -> Request:
    return world.request(obj, old, user=world.EDITOR, resource=resource, namespace="")


def test_a_policy_that_can_be_used_is_admitted() -> None:
    assert validate_policy(policy_request(world.policy_object()), {}).allowed


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"registries": {"allow": ["*/x"]}}, "spec.registries.allow[0]"),
        ({"registries": {"allow": ["registry.example"]}}, "spec.registries.allow[0]"),
        ({"mode": "Off"}, "mode"),
    ],
)
def test_one_that_cannot_is_refused_with_its_field(spec: Any, words: str) -> None:
    found = validate_policy(policy_request(world.policy_object(**spec)), {})
    assert not found.allowed
    assert words in found.message


def test_one_that_was_stored_like_that_can_still_be_deleted_in_steps() -> None:
    bad = world.policy_object(mode="Off")
    assert validate_policy(policy_request(bad, bad), {}).allowed


def test_a_missing_trust_root_is_a_warning() -> None:
    ci = {"issuer": "https://issuer.example", "subject": "ci", "trustRoot": "good"}
    by = {"authorities": ["ci"]}
    obj = world.policy_object(
        authorities=[{"name": "ci", "keyless": ci}],
        requirements={"job": by, "image": by, "code": by},
    )
    found = validate_policy(policy_request(obj), {})
    assert found.allowed
    assert "TrustRoot good does not exist" in found.warnings[0]


def test_a_trust_root_that_cannot_be_read_is_refused() -> None:
    found = validate_policy(policy_request(trust_root(), resource="trustroots"), {})
    assert not found.allowed
    assert "TrustRoot private cannot be used" in found.message
    good = {**trust_root(), "spec": {"publicGood": {}}}
    assert validate_policy(policy_request(good, resource="trustroots"), {}).allowed


@pytest.mark.parametrize("operation", ["CREATE", "UPDATE", "DELETE"])
@pytest.mark.parametrize(
    "resource", ["sealedruns", "driftreports", "accessrecords", "evidenceitems", "runstatements"]
)
@pytest.mark.parametrize(
    "user",
    [world.EDITOR, "system:serviceaccount:research:trainseal-controller", "", "system:admin"],
)
def test_nobody_else_writes_or_deletes_evidence(operation: str, resource: str, user: str) -> None:
    found = validate_evidence(
        world.request({}, operation=operation, user=user, resource=resource), WRITERS
    )
    assert not found.allowed
    assert "evidence is written and deleted by TrainSeal alone" in found.message


def test_its_writer_does() -> None:
    asked = world.request({}, user=world.CONTROLLER, resource="sealedruns")
    assert validate_evidence(asked, WRITERS).allowed
    other = world.request({}, user=world.CONTROLLER, resource="driftreports")
    assert not validate_evidence(other, WRITERS).allowed
