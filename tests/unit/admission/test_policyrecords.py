"""Who changes what is enforced is on record with their name, and is told what gets weaker."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import pytest

from tests.sample_objects import trust_root
from tests.unit import world
from tests.unit.admission.test_access import ApiServer
from trainseal.admission.policyrecords import PolicyRecords
from trainseal.admission.reviews import ALLOWED, Request, Response, deny
from trainseal.api.accessrecord import AccessRecord
from trainseal.cluster.api import KubeError

Object = dict[str, Any]
HOME = "trainseal-system"
ROOT = "root@example.org"


def request(obj: Any, old: Any = None, resource: str = "provenancepolicies") -> Request:
    return world.request(obj, old, user=ROOT, resource=resource, namespace="")


def deletion(old: Any, resource: str = "provenancepolicies") -> Request:
    return dataclasses.replace(request({}, old, resource), operation="DELETE", object={})


@pytest.fixture
def api() -> ApiServer:
    return ApiServer({})


def ask(api: ApiServer, asked: Request, decided: Response = ALLOWED) -> Response:
    records = PolicyRecords(api, HOME, lambda: world.NOW)  # type: ignore[arg-type]
    return world.run(records.answer(asked, decided))


def only(api: ApiServer) -> Object:
    (made,) = api.created
    AccessRecord.parse(made)
    return made


def test_who_weakens_a_policy_is_on_record_and_told_so(api: ApiServer) -> None:
    answer = ask(api, request(world.policy_object(mode="Audit"), world.policy_object()))
    assert answer.allowed
    assert "is weaker: mode: found Audit" in answer.warnings[0]
    made = only(api)
    assert made["metadata"]["namespace"] == HOME
    assert made["metadata"]["labels"]["trainseal.dev/weakens"] == "true"
    spec = made["spec"]
    assert (spec["username"], spec["action"]) == (ROOT, "Change")
    assert (spec["object"]["kind"], spec["object"]["name"]) == ("ProvenancePolicy", "research")
    assert spec["message"] == "mode: found Audit, before it was Enforce"


def test_who_makes_one_stricter_is_on_record_too_and_not_warned(api: ApiServer) -> None:
    answer = ask(api, request(world.policy_object(), world.policy_object(mode="Audit")))
    assert answer == ALLOWED
    assert "trainseal.dev/weakens" not in only(api)["metadata"]["labels"]


@pytest.mark.parametrize("resource", ["provenancepolicies", "trustroots"])
def test_so_is_who_makes_and_who_deletes_one(api: ApiServer, resource: str) -> None:
    live = world.policy_object() if resource == "provenancepolicies" else trust_root()
    ask(api, request(live, resource=resource))
    ask(api, dataclasses.replace(deletion(live, resource), uid="another"))
    actions = [made["spec"]["action"] for made in api.created]
    assert actions == ["Create", "DeleteObject"]
    weak = [made["metadata"]["labels"].get("trainseal.dev/weakens") for made in api.created]
    assert weak == [None, "true" if resource == "provenancepolicies" else None]


def test_a_trust_root_with_other_roots_weakens(api: ApiServer) -> None:
    other = {**trust_root(), "spec": {"publicGood": {}}}
    answer = ask(api, request(other, trust_root(), "trustroots"))
    assert "TrustRoot private is weaker: it trusts other roots" in answer.warnings[0]


def test_nothing_is_recorded_of_what_changes_nothing(api: ApiServer) -> None:
    labelled = copy.deepcopy(world.policy_object())
    labelled["metadata"]["labels"] = {"a": "b"}
    weaker = request(world.policy_object(mode="Audit"), world.policy_object())
    for asked, decided in (
        (request(labelled, world.policy_object()), ALLOWED),
        (dataclasses.replace(weaker, dry_run=True), ALLOWED),
        (weaker, deny("it cannot be used")),
    ):
        assert ask(api, asked, decided) == decided
    assert api.created == []


def test_the_mending_of_a_policy_that_could_not_be_used_is_no_weakening(api: ApiServer) -> None:
    answer = ask(api, request(world.policy_object(), world.policy_object(mode="Off")))
    assert answer.warnings == ()
    assert "could not be used before" in only(api)["spec"]["message"]


def test_what_cannot_be_recorded_is_refused_but_for_deletions(api: ApiServer) -> None:
    api.write_fails = KubeError(500, "InternalError", "etcd is full")
    answer = ask(api, request(world.policy_object(mode="Audit"), world.policy_object()))
    assert (answer.allowed, answer.code) == (False, 503)
    assert "could not be recorded: " in answer.message
    assert ask(api, deletion(world.policy_object())) == ALLOWED


def test_the_same_request_asked_twice_is_one_record(api: ApiServer) -> None:
    asked = request(world.policy_object(mode="Audit"), world.policy_object())
    assert ask(api, asked).warnings == ask(api, asked).warnings
    only(api)
