"""Who may get into a sealed pod, or resize it: as the policies say, the strictest first."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit import world
from trainseal.admission.reviews import Response
from trainseal.admission.waysin import BREAK_GLASS_KEY
from trainseal.api.accessrecord import Way
from trainseal.provenance.accessrules import WAYS, Permit
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
    "Resize": "resize",
}
#: Those that a policy denies by its silence.
SHUT = frozenset({"EphemeralContainer", "Resize"})


def policy(name: str = "research", mode: str = "Enforce", **access: Any) -> CompiledPolicy:
    return world.policy(name, mode=mode, **({"access": access} if access else {}))


def judge(
    way: Way,
    *policies: CompiledPolicy,
    user: str = ANN,
    groups: Sequence[str] = (),
    permits: tuple[Permit, ...] = (),
    broken: tuple[BrokenPolicy, ...] = (),
) -> Response:
    ways = world.ways_in(lambda _: policies, permits, broken)
    asked = dataclasses.replace(world.request(user=user), user={"groups": [*groups]})
    return ways.judge(way, asked, "char-lm-1")


@pytest.mark.parametrize("way", WAYS)
def test_a_silent_policy_lets_people_in_but_no_debug_container_and_no_resize(way: Way) -> None:
    assert judge(way, policy()).allowed is (way not in SHUT)
    assert judge(way).allowed is (way not in SHUT)


@pytest.mark.parametrize("way", WAYS)
def test_each_way_in_is_denied_by_its_own_rule_alone(way: Way) -> None:
    others = {f: "Record" for w, f in FIELDS.items() if w != way}
    found = judge(way, policy(**others, **{FIELDS[way]: "Deny"}))
    assert not found.allowed
    assert f"of ProvenancePolicy research, access.{FIELDS[way]} is Deny" in found.message
    where = "of" if way == "Resize" else "into"
    assert f"{way} by '{ANN}' {where} a pod that is sealed by SealedRun research/char-lm-1" in (
        found.message
    )
    assert judge(way, policy(**others, **{FIELDS[way]: "Record"})) == Response(True)


def test_a_denial_says_what_to_do_instead() -> None:
    assert "trainseal debug JOB --stacks" in judge("Exec", policy(exec="Deny")).message
    assert "have the job ask for other amounts" in judge("Resize", policy()).message


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


# Break glass ------------------------------------------------------------------------------------

GLASS = dict.fromkeys(FIELDS.values(), "BreakGlass")
MINUTE = timedelta(minutes=1)


def permit(**changed: Any) -> Permit:
    """Bob lets Ann in for half an hour."""
    fields: dict[str, Any] = {
        "name": "glass-1",
        "user": ANN,
        "approved_by": "bob@example.org",
        "ways": frozenset(),
        "created": world.NOW - 10 * MINUTE,
        "not_after": world.NOW + 20 * MINUTE,
    }
    return Permit(**fields | changed)


@pytest.mark.parametrize("way", WAYS)
def test_nobody_gets_in_without_a_break_glass_where_a_policy_asks_for_one(way: Way) -> None:
    found = judge(way, policy(**GLASS))
    assert not found.allowed
    assert f"access.{FIELDS[way]} is BreakGlass" in found.message
    assert "found no BreakGlass for this user and run" in found.message
    assert "trainseal break-glass" in found.message


@pytest.mark.parametrize("way", WAYS)
def test_who_has_one_gets_in_and_is_told_what_it_costs(way: Way) -> None:
    found = judge(way, policy(**GLASS), permits=(permit(),))
    assert found.allowed
    assert found.audit == {BREAK_GLASS_KEY: "glass-1"}
    assert "tainted until somebody else has reviewed it" in found.warnings[0]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"not_after": world.NOW}, "found no BreakGlass"),
        ({"ways": frozenset({"Attach"})}, "found no BreakGlass"),
        ({"not_after": world.NOW + 51 * MINUTE}, "lasts 61 min, expected at most 60 min"),
        ({"approved_by": ANN}, "was approved by who uses it, expected another person"),
    ],
)
def test_one_that_is_over_too_long_for_another_way_or_ones_own_opens_nothing(
    changed: dict[str, Any], words: str
) -> None:
    found = judge("Exec", policy(**GLASS), permits=(permit(**changed),))
    assert not found.allowed
    assert words in found.message
    assert judge("Exec", policy(**GLASS), permits=(permit(**changed), permit())).allowed


def test_who_is_on_call_may_approve_for_themselves() -> None:
    own = (permit(approved_by=ANN),)

    def glass(**who: list[str]) -> CompiledPolicy:
        return policy(**GLASS, breakGlass={"selfApproval": who})

    assert judge("Exec", glass(users=[ANN]), permits=own).allowed
    assert not judge("Exec", glass(users=["bob@example.org"]), permits=own).allowed
    assert judge("Exec", glass(groups=["oncall"]), permits=own, groups=["oncall"]).allowed
    assert not judge("Exec", glass(groups=["oncall"]), permits=own, groups=["team"]).allowed


def test_every_policy_that_asks_for_one_must_take_it() -> None:
    short = policy("short", **GLASS, breakGlass={"maxDurationSeconds": 300})
    assert not judge("Exec", policy(**GLASS), short, permits=(permit(),)).allowed
    # One that only audits asks for nothing.
    audits = policy("short", "Audit", **GLASS, breakGlass={"maxDurationSeconds": 300})
    assert judge("Exec", policy(**GLASS), audits, permits=(permit(),)).allowed


def test_it_opens_no_way_that_is_denied_and_no_service_accounts() -> None:
    assert not judge("Exec", policy(**GLASS | {"exec": "Deny"}), permits=(permit(),)).allowed
    own = (permit(user=ROBOT),)
    assert not judge("Exec", policy(**GLASS), user=ROBOT, permits=own).allowed


def test_it_is_not_used_where_none_is_needed() -> None:
    assert judge("Exec", policy(exec="Record"), permits=(permit(),)) == Response(True)


ACCESS = st.fixed_dictionaries(
    {}, optional={f: st.sampled_from(["Deny", "BreakGlass", "Record"]) for f in FIELDS.values()}
    | {"serviceAccounts": st.just([ROBOT])},
)  # fmt: skip
POLICIES = st.lists(st.tuples(st.sampled_from(["Enforce", "Audit"]), ACCESS), max_size=3)


@given(
    POLICIES,
    st.sampled_from(WAYS),
    st.sampled_from([ANN, ROBOT, PLATFORM]),
    st.sampled_from([(), (permit(),)]),
)
def test_the_order_of_policies_is_nothing_and_one_more_opens_no_door(
    drawn: list[tuple[str, dict[str, Any]]], way: Way, user: str, permits: tuple[Permit, ...]
) -> None:
    policies = [policy(f"p{n}", mode, **access) for n, (mode, access) in enumerate(drawn)]

    def allowed(*some: CompiledPolicy) -> bool:
        return judge(way, *some, user=user, permits=permits).allowed

    answers = [allowed(*order) for order in itertools.permutations(policies)]
    assert len(set(answers)) == 1
    for number in range(1, len(policies)):
        # None at all is stricter than some: what is silent there is asked of one that audits.
        assert allowed(*policies[:number]) or not allowed(*policies[: number + 1])
