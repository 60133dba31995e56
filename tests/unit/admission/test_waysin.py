"""Who may get into a sealed pod: as the policies of its namespace say, the strictest first."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit import world
from trainseal.admission.reviews import Response
from trainseal.admission.waysin import WaysIn
from trainseal.provenance.accessrules import WAYS, Way
from trainseal.provenance.policies import CompiledPolicy
from trainseal.verifier.policystore import BrokenPolicy

ANN = "ann@example.org"
ROBOT = "system:serviceaccount:research:notebook"
PLATFORM = "system:serviceaccount:kube-system:debugger"
FIELDS = {
    "Exec": "exec",
    "Attach": "attach",
    "PortForward": "portForward",
    "Proxy": "proxy",
    "EphemeralContainer": "ephemeralContainers",
}


def policy(name: str = "research", mode: str = "Enforce", **access: Any) -> CompiledPolicy:
    return world.policy(name, mode=mode, **({"access": access} if access else {}))


def judge(
    way: Way, *policies: CompiledPolicy, user: str = ANN, broken: tuple[BrokenPolicy, ...] = ()
) -> Response:
    ways = WaysIn(lambda _: policies, lambda: broken, frozenset({"kube-system"}))
    return ways.judge(way, world.request(user=user), "char-lm-1")


@pytest.mark.parametrize("way", WAYS)
def test_a_silent_policy_lets_people_in_but_no_debug_container(way: Way) -> None:
    assert judge(way, policy()).allowed is (way != "EphemeralContainer")
    assert judge(way).allowed is (way != "EphemeralContainer")


@pytest.mark.parametrize("way", WAYS)
def test_each_way_in_is_denied_by_its_own_rule_alone(way: Way) -> None:
    others = {f: "Record" for w, f in FIELDS.items() if w != way}
    found = judge(way, policy(**others, **{FIELDS[way]: "Deny"}))
    assert not found.allowed
    assert f"of ProvenancePolicy research, access.{FIELDS[way]} is Deny" in found.message
    assert f"{way} by '{ANN}' into a pod that is sealed by SealedRun research/char-lm-1" in (
        found.message
    )
    assert judge(way, policy(**others, **{FIELDS[way]: "Record"})) == Response(True)


def test_a_denial_says_what_to_do_instead() -> None:
    assert "trainseal debug JOB --stacks" in judge("Exec", policy(exec="Deny")).message


@pytest.mark.parametrize("way", WAYS)
def test_a_service_account_is_denied_unless_every_policy_names_it(way: Way) -> None:
    open_to_people = {FIELDS[way]: "Record"}
    named = policy("one", **open_to_people, serviceAccounts=[ROBOT])
    silent = policy("two", **open_to_people)
    assert judge(way, named, user=ROBOT) == Response(True)
    found = judge(way, named, silent, user=ROBOT)
    assert not found.allowed
    assert "of ProvenancePolicy two, access.serviceAccounts does not name" in found.message
    assert judge(way, named, silent, user=ANN) == Response(True)


def test_a_service_account_that_is_named_has_no_more_rights_than_a_person() -> None:
    assert not judge("Exec", policy(exec="Deny", serviceAccounts=[ROBOT]), user=ROBOT).allowed


def test_a_service_account_is_denied_also_where_no_policy_names_the_namespace() -> None:
    found = judge("Exec", user=ROBOT)
    assert not found.allowed
    assert "no ProvenancePolicy names the namespace" in found.message


def test_a_service_account_of_an_excluded_namespace_is_the_platforms() -> None:
    assert judge("Exec", policy(), user=PLATFORM).allowed
    assert not judge("Exec", policy(exec="Deny"), user=PLATFORM).allowed


@pytest.mark.parametrize(
    "user",
    ["system:serviceaccount:", "system:serviceaccount:x", "system:serviceaccount:kube-systemx:y"],
)
def test_an_odd_name_of_a_service_account_is_one_all_the_same(user: str) -> None:
    assert not judge("Exec", policy(), user=user).allowed


def test_a_policy_that_audits_warns_and_lets_in() -> None:
    found = judge("Exec", policy(mode="Audit", exec="Deny"))
    assert found.allowed
    (warning,) = found.warnings
    assert "would be denied under Enforce" in warning
    assert "access.exec is Deny" in warning


def test_one_that_enforces_beside_it_denies() -> None:
    audits, enforces = policy("one", "Audit"), policy("two", exec="Deny")
    assert not judge("Exec", audits, enforces).allowed


def test_a_policy_that_cannot_be_used_denies_since_it_may_say_so() -> None:
    broken = (BrokenPolicy("odd", "its key is no key"),)
    found = judge("Exec", policy(), broken=broken)
    assert not found.allowed
    assert "ProvenancePolicy odd cannot be used: its key is no key" in found.message
    # Who is denied anyhow is told the rule.
    assert "access.exec is Deny" in judge("Exec", policy(exec="Deny"), broken=broken).message


ACCESS = st.fixed_dictionaries(
    {}, optional={f: st.sampled_from(["Deny", "Record"]) for f in FIELDS.values()}
    | {"serviceAccounts": st.just([ROBOT])},
)  # fmt: skip
POLICIES = st.lists(st.tuples(st.sampled_from(["Enforce", "Audit"]), ACCESS), max_size=3)


@given(POLICIES, st.sampled_from(WAYS), st.sampled_from([ANN, ROBOT, PLATFORM]))
def test_the_order_of_policies_is_nothing_and_one_more_opens_no_door(
    drawn: list[tuple[str, dict[str, Any]]], way: Way, user: str
) -> None:
    policies = [policy(f"p{n}", mode, **access) for n, (mode, access) in enumerate(drawn)]
    answers = [judge(way, *order, user=user).allowed for order in itertools.permutations(policies)]
    assert len(set(answers)) == 1
    for number in range(1, len(policies)):
        # None at all is stricter than some: what is silent there is asked of one that audits.
        fewer = judge(way, *policies[:number], user=user)
        assert fewer.allowed or not judge(way, *policies[: number + 1], user=user).allowed
