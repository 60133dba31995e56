"""What weakens a policy is named; what is only said otherwise is not."""

from __future__ import annotations

import copy
from typing import Any, get_args, get_origin

import pytest
from pydantic import BaseModel

from tests.unit import world
from tests.unit.world import lane
from trainseal.api.policy import ProvenancePolicySpec
from trainseal.provenance.policychanges import weakenings

IMAGE, OTHER_IMAGE = (f"registry.example/proxy@sha256:{d * 64}" for d in "12")
KEYS = world.policy_object()["spec"]["authorities"]


#: For each change: the field that is named, where it is, and its value there, strict and weak. None
#: is an absent field.
CHANGES: list[tuple[str, str, Any, Any]] = [
    ("mode", "mode", "Enforce", "Audit"),
    ("namespaces.include", "namespaces.include", None, ["research"]),
    ("namespaces.include", "namespaces.include", ["a", "b"], ["b"]),
    ("namespaces.exclude", "namespaces.exclude", None, ["research"]),
    *(
        change
        for field in ("requirements.job", "requirements.image", "requirements.code")
        for change in (
            (f"{field}.threshold", f"{field}.threshold", 2, None),
            (f"{field}.authorities", f"{field}.authorities", ["bob"], ["bob", "alice"]),
        )
    ),
    *(
        (
            f"authorities[nightly].kubernetes.{field}",
            "authorities",
            [*KEYS, {"name": "nightly", "kubernetes": {field: ["ann"]}}],
            [*KEYS, {"name": "nightly", "kubernetes": {field: ["ann", "bob"]}}],
        )
        for field in ("users", "groups")
    ),
    ("registries.allow", "registries.allow", ["a.example/x"], ["a.example/x", "b.example/**"]),
    ("validity.require", "validity.require", ["notAfter", "maxRuns"], ["notAfter"]),
    ("pending", "pending", None, {}),
    ("pending.maxAgeSeconds", "pending", {"maxAgeSeconds": 3600}, {"maxAgeSeconds": 7200}),
    ("pending.maxAgeSeconds", "pending", {"maxAgeSeconds": 3600}, {}),
    ("pods.allowedSecrets", "pods.allowedSecrets", None, ["token"]),
    ("pods.secretRotators", "pods.secretRotators", ["ann"], None),
    ("pods.secretRotators", "pods.secretRotators", [], ["ann"]),
    (
        "pods.additions",
        "pods.additions",
        [{"name": "istio", "reason": "a mesh", "labels": ["x"]}],
        [{"name": "istio", "reason": "a mesh", "labels": ["x", "y"]}],
    ),
    *(
        (
            "pods.additions",
            "pods.additions",
            [{"name": "istio", "reason": "a mesh", **before}],
            [{"name": "istio", "reason": "a mesh", **after}],
        )
        for before, after in (
            (
                {"containers": [{"name": "proxy", "images": [IMAGE]}]},
                {"containers": [{"name": "proxy", "images": [IMAGE, OTHER_IMAGE]}]},
            ),
            (
                {"volumes": [{"name": "x", "kind": "emptyDir"}]},
                {"volumes": [{"name": n, "kind": "emptyDir"} for n in ("x", "y")]},
            ),
            (
                {"mounts": [{"volume": "x", "path": "/x", "readOnly": True}]},
                {"mounts": [{"volume": "x", "path": "/x"}]},
            ),
        )
    ),
    (
        "checkpoints.mayResume.users",
        "checkpoints.mayResume",
        None,
        {"users": ["ann"]},
    ),
    (
        "checkpoints.mayResume.groups",
        "checkpoints.mayResume",
        {"groups": ["oncall"]},
        {"groups": ["oncall", "all"]},
    ),
    ("checkpoints.formats", "checkpoints.formats", ["safetensors"], None),
    ("checkpoints.formats", "checkpoints", None, {"formats": ["safetensors", "dcp", "pickle"]}),
    ("access.exec", "access.exec", "Deny", "BreakGlass"),
    ("access.exec", "access.exec", "BreakGlass", None),
    ("access.attach", "access.attach", "Deny", "Record"),
    ("access.portForward", "access.portForward", "Deny", "Record"),
    ("access.proxy", "access.proxy", "Deny", "Record"),
    ("access.ephemeralContainers", "access.ephemeralContainers", None, "Record"),
    ("access.resize", "access.resize", None, "BreakGlass"),
    ("access.resize", "access.resize", "Deny", "Record"),
    (
        "access.serviceAccounts",
        "access.serviceAccounts",
        None,
        ["system:serviceaccount:research:ci"],
    ),
    ("access.deletion", "access.deletion", {"users": ["ann"]}, None),
    ("access.deletion.users", "access.deletion", {}, {"users": ["ann"]}),
    ("access.deletion.groups", "access.deletion", {"groups": []}, {"groups": ["all"]}),
    (
        "access.breakGlass.maxDurationSeconds",
        "access.breakGlass.maxDurationSeconds",
        None,
        7200,
    ),
    (
        "access.breakGlass.selfApproval.users",
        "access.breakGlass.selfApproval",
        None,
        {"users": ["ann"]},
    ),
    (
        "access.breakGlass.selfApproval.groups",
        "access.breakGlass.selfApproval",
        {"groups": ["oncall"]},
        {"groups": ["oncall", "all"]},
    ),
    ("lanes", "lanes", None, [lane()]),
    ("lanes[notebooks].maxPods", "lanes", [lane()], [lane(maxPods=3)]),
    ("lanes[notebooks].maxGPUs", "lanes", [lane()], [lane(maxGPUs=8)]),
    (
        "lanes[notebooks].maxDurationSeconds",
        "lanes",
        [lane()],
        [lane(maxDurationSeconds=7200)],
    ),
    (
        "lanes[notebooks].namespaces",
        "lanes",
        [lane()],
        [lane(namespaces=["research", "b"])],
    ),
    ("lanes[notebooks].secrets", "lanes", [lane()], [lane(secrets=["token"])]),
    (
        "lanes[notebooks].image.threshold",
        "lanes",
        [lane(image={"authorities": ["alice", "bob"], "threshold": 2})],
        [lane(image={"authorities": ["alice", "bob"]})],
    ),
    (
        "lanes[notebooks].image.authorities",
        "lanes",
        [lane()],
        [lane(image={"authorities": ["alice", "bob"]})],
    ),
    ("data.unverified", "data.unverified", "Refuse", "Allow"),
    ("data.unverified", "data", None, {"unverified": "Allow"}),
    (
        "drift.exceptions",
        "drift.exceptions",
        None,
        [{"name": "cache", "reason": "a cache", "findings": ["exec.foreign"]}],
    ),
    ("drift.responses.critical", "drift.responses.critical", "Terminate", "Freeze"),
    ("drift.responses.warning", "drift.responses.warning", None, "Record"),
    ("drift.responses.info", "drift.responses.info", "Alert", None),
    ("drift.freeze.maxDurationSeconds", "drift.freeze.maxDurationSeconds", None, 600),
    ("drift.freeze.then", "drift.freeze.then", "Terminate", "Quarantine"),
]


def spec(**fields: Any) -> Any:
    return copy.deepcopy(world.policy_object(**fields)["spec"])


def having(place: str, value: Any) -> ProvenancePolicySpec:
    """The policy with that value there."""
    made = spec()
    *way, last = place.split(".")
    at = made
    for part in way:
        at = at.setdefault(part, {})
    at.pop(last, None)
    if value is not None:
        at[last] = copy.deepcopy(value)
    return ProvenancePolicySpec.model_validate(made)


@pytest.mark.parametrize(("named", "place", "strict", "weak"), CHANGES)
def test_what_weakens_is_named_and_its_undoing_is_not(
    named: str, place: str, strict: Any, weak: Any
) -> None:
    one, other = having(place, strict), having(place, weak)
    (words,) = weakenings(one, other)
    assert words.startswith(f"{named}:")
    assert weakenings(other, one) == ()


def test_every_field_of_a_policy_is_looked_at() -> None:
    """A new field needs a judgement here before it can be forgotten."""
    named = {place for place, *_ in CHANGES} | {place for _, place, *_ in CHANGES}
    unjudged = {
        place
        for place in leaves(ProvenancePolicySpec)
        if not any(place == n or n.startswith(f"{place}.") for n in named)
    }
    assert unjudged == set()


def leaves(model: type[BaseModel], before: str = "") -> list[str]:
    """Places of a model's fields; of a model within, its fields' instead."""
    found: list[str] = []
    for name, field in model.model_fields.items():
        place = f"{before}{field.alias or name}"
        of = field.annotation
        kinds = [of] if get_origin(of) is list else [of, *get_args(of)]
        within = next((k for k in kinds if isinstance(k, type) and issubclass(k, BaseModel)), None)
        found += leaves(within, f"{place}.") if within else [place]
    return found


@pytest.mark.parametrize(
    ("changed", "value"),
    [
        ("key", {"key": {"publicKey": world.MALLORY.public.pem}}),
        ("person", {"person": "Mallory", "key": {"publicKey": world.ALICE.public.pem}}),
    ],
)
def test_an_authority_with_another_key_or_person_is_another_who_can_sign(
    changed: str, value: Any
) -> None:
    after = spec()
    after["authorities"][0] = {"name": "alice", **value}
    old, new = (ProvenancePolicySpec.model_validate(s) for s in (spec(), after))
    assert len(weakenings(old, new)) == 3, changed
    assert all("did not before: alice" in words for words in weakenings(old, new))


def test_another_order_and_another_reason_weaken_nothing() -> None:
    before = spec(
        registries={"allow": ["a.example/*", "b.example/*"]},
        pods={"additions": [{"name": "istio", "reason": "a mesh", "labels": ["x", "y"]}]},
    )
    after = copy.deepcopy(before)
    after["authorities"].reverse()
    after["requirements"]["job"]["authorities"].reverse()
    after["registries"]["allow"].reverse()
    after["pods"]["additions"] = [{"name": "istio", "reason": "as ever", "labels": ["y", "x"]}]
    old, new = (ProvenancePolicySpec.model_validate(s) for s in (before, after))
    assert weakenings(old, new) == weakenings(new, old) == ()


@pytest.mark.parametrize(
    ("now", "named"),
    [
        ([lane(scratchClaims=["scratch", "home"])], "now has, and had not before: home"),
        ([lane()], "had before, and has not now: scratch"),
        (None, "had before, and has not now: scratch"),
    ],
)
def test_scratch_weakens_by_what_is_written_and_by_what_runs_may_read_again(
    now: Any, named: str
) -> None:
    before = having("lanes", [lane(scratchClaims=["scratch"])])
    (words,) = weakenings(before, having("lanes", now))
    assert words == f"lanes[notebooks].scratchClaims: {named}"


def test_a_lane_with_scratch_that_leaves_a_namespace_lets_its_runs_read_that() -> None:
    wide = lane(scratchClaims=["scratch"], namespaces=["a", "b"])
    narrow = lane(scratchClaims=["scratch"], namespaces=["a"])
    (words,) = weakenings(having("lanes", [wide]), having("lanes", [narrow]))
    assert words == "lanes[notebooks].namespaces: had before, and has not now: b"


def test_a_policy_that_comes_to_hold_everywhere_is_no_weaker() -> None:
    assert (
        weakenings(having("namespaces.include", ["a"]), having("namespaces.include", ["*"])) == ()
    )


def test_an_authority_that_says_its_own_name_as_its_person_is_the_same() -> None:
    plain = spec()
    for authority in plain["authorities"]:
        del authority["person"]
    said = copy.deepcopy(plain)
    for authority in said["authorities"]:
        authority["person"] = authority["name"]
    old, new = (ProvenancePolicySpec.model_validate(s) for s in (plain, said))
    assert weakenings(old, new) == ()
