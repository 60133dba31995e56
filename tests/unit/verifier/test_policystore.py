"""Policies are what they demand: what somebody wrote of them beside decides nothing."""

from __future__ import annotations

import copy

from tests.sample_objects import provenance_policy, trust_root
from tests.unit.world import policy_object
from trainseal.verifier.policystore import PolicyStore, load_root

_STATUS = {"conditions": "none that anybody could read"}


def test_a_status_that_nobody_can_read_breaks_no_policy() -> None:
    policy = policy_object("research")
    policy["status"] = _STATUS
    store = PolicyStore()
    store.on_policy("ADDED", ("", "research"), policy)
    assert store.broken == ()
    assert [p.name for p in store.for_namespace("research")] == ["research"]


def test_a_spec_that_nobody_can_read_does() -> None:
    policy = copy.deepcopy(provenance_policy("research"))
    policy["spec"]["requirements"] = "none"
    store = PolicyStore()
    store.on_policy("ADDED", ("", "research"), policy)
    assert [b.name for b in store.broken] == ["research"]


def test_a_status_that_nobody_can_read_is_no_part_of_a_trust_root() -> None:
    root = trust_root()
    assert load_root({**root, "status": _STATUS}) == load_root(root)
