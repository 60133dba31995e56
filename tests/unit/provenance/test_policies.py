"""Policies made ready: what cannot be used says why; what changed has another digest."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit import world
from trainseal.api.model import InvalidObjectError
from trainseal.provenance.policies import PolicyError, UnavailableAuthority, compile_policy
from trainseal.provenance.trustroots import public_good_trusted_root

KEYLESS = {
    "name": "ci",
    "keyless": {"issuer": "https://issuer.example", "subject": "ci@example", "trustRoot": "good"},
}
CI = {"authorities": ["ci"]}
BY_CI: dict[str, Any] = {
    "authorities": [KEYLESS],
    "requirements": {"job": CI, "image": CI, "code": CI},
}


@pytest.mark.parametrize(
    ("namespaces", "applies", "not_to"),
    [
        (None, ["research", "x"], []),
        ({"include": ["team-*", "research"]}, ["team-a", "research"], ["team", "my-team-a", "x"]),
        ({"include": ["team-*"], "exclude": ["team-x"]}, ["team-a"], ["team-x"]),
        ({"exclude": ["*"]}, [], ["research"]),
    ],
)
def test_a_policy_names_its_namespaces(
    namespaces: Any, applies: list[str], not_to: list[str]
) -> None:
    extra = {"namespaces": namespaces} if namespaces else {}
    obj = world.policy_object(**extra)
    if not namespaces:
        del obj["spec"]["namespaces"]
    compiled = compile_policy(obj, {})
    assert all(compiled.applies_to(n) for n in applies)
    assert not any(compiled.applies_to(n) for n in not_to)


def test_any_change_of_the_spec_changes_the_digest_but_not_the_name() -> None:
    assert world.policy().digest == world.policy("other").digest
    assert world.policy().digest != world.policy(mode="Audit").digest


def test_a_trust_root_that_changes_changes_the_digest() -> None:
    root = public_good_trusted_root()
    obj = world.policy_object(**BY_CI)
    one, other = (compile_policy(obj, {"good": (d, root)}).digest for d in ("1", "2"))
    assert one != other
    # One that it does not use is nothing to it.
    assert compile_policy(obj, {"good": ("1", root), "x": ("3", root)}).digest == one


@pytest.mark.parametrize(
    ("roots", "why"),
    [({}, "TrustRoot good does not exist"), ({"good": ("", "it has expired")}, "it has expired")],
)
def test_an_authority_without_its_trust_root_is_not_available(roots: Any, why: str) -> None:
    (authority,) = compile_policy(world.policy_object(**BY_CI), roots).job.authorities
    assert authority == UnavailableAuthority("ci", "ci", why)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"authorities": [{"name": "alice", "key": {"publicKey": "x" * 80}}]}, "authorities"),
        ({"mode": "enforce"}, "mode"),
        ({"registries": {"allow": []}}, "registries"),
        (
            {"requirements": {k: {"authorities": ["eve"]} for k in ("job", "image", "code")}},
            "not there",
        ),
        (
            {
                "requirements": {
                    k: {"authorities": ["alice"], "threshold": 2} for k in ("job", "image", "code")
                }
            },
            "threshold",
        ),
        ({"unknown": 1}, "unknown"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused_with_the_field(spec: Any, words: str) -> None:
    with pytest.raises((InvalidObjectError, PolicyError), match=words):
        world.policy(**spec)


def test_a_key_that_cannot_be_read_is_named_by_its_authority() -> None:
    pem = "-----BEGIN PUBLIC KEY-----\n" + "A" * 64 + "\n-----END PUBLIC KEY-----\n"
    authorities = world.policy_object()["spec"]["authorities"]
    authorities[0]["key"]["publicKey"] = pem
    with pytest.raises(PolicyError, match="authority alice"):
        world.policy(authorities=authorities)


def adding(*env: tuple[str, str | None]) -> Any:
    return {
        "additions": [
            {
                "name": f"a{i}",
                "reason": "why",
                "env": [{"name": name} | ({"valuePrefix": prefix} if prefix else {})],
            }
            for i, (name, prefix) in enumerate(env)
        ]
    }


def test_each_named_addition_of_a_variable_counts() -> None:
    found = world.policy(pods=adding(("MESH", "v1-"), ("MESH", "v2-"), ("ANY", None))).additions
    assert found.env == {"MESH": ("v1-", "v2-"), "ANY": ("",)}


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PYTHONPATH", "PATH", "NCCL_NET_PLUGIN"])
def test_no_addition_is_a_variable_that_loads_code(name: str) -> None:
    with pytest.raises(PolicyError, match=f"variable {name} decides which code"):
        world.policy(pods=adding((name, "/opt/mesh")))


def test_what_is_wanted_is_said_in_words() -> None:
    found = world.policy()
    assert found.job.wanted == "a signature by one of alice, bob"
    both = {"authorities": ["alice", "bob"], "threshold": 2}
    two = world.policy(requirements={"job": both, "image": both, "code": both})
    assert two.job.wanted == "signatures by 2 different persons among alice, bob"


def test_one_key_for_two_persons_is_refused_where_they_would_count_together() -> None:
    both = world.policy_object()
    both["spec"]["authorities"][1]["key"] = both["spec"]["authorities"][0]["key"]
    with pytest.raises(PolicyError, match="alice and bob: found one key for the persons"):
        compile_policy(both, {})


def test_one_key_under_two_names_of_one_person_is_fine() -> None:
    both = world.policy_object()
    both["spec"]["authorities"][1]["key"] = both["spec"]["authorities"][0]["key"]
    both["spec"]["authorities"][1]["person"] = "Alice"
    assert compile_policy(both, {}).job.threshold == 1
