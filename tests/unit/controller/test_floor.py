"""What the floor is told of the policies."""

from __future__ import annotations

import asyncio
import copy
import re
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.unit import world
from trainseal.api.model import InvalidObjectError
from trainseal.cluster.api import Kube, NotFoundError
from trainseal.controller.floor import Floor, entries
from trainseal.provenance.policies import CompiledPolicy, compile_policy
from trainseal.registry.allowlist import allowed
from trainseal.registry.references import Reference
from trainseal.verifier.policystore import BrokenPolicy, PolicyStore

PATH = "/api/v1/namespaces/trainseal-system/configmaps/trainseal-floor"


def policy(name: str, mode: str = "Enforce", **namespaces: list[str]) -> dict[str, Any]:
    """A ProvenancePolicy for some namespaces."""
    made: dict[str, Any] = copy.deepcopy(world.policy_object())
    made["metadata"]["name"] = name
    made["spec"]["mode"] = mode
    made["spec"].pop("namespaces", None)
    if namespaces:
        made["spec"]["namespaces"] = namespaces
    return made


def compiled(obj: dict[str, Any]) -> CompiledPolicy:
    return compile_policy(obj, {})


def audited(data: dict[str, str], namespace: str) -> bool:
    """As the chart's expressions read it."""
    read = [entry.split("\n") for entry in data.values()]
    meant = [e for e in read if re.search(e[1], namespace) and not re.search(e[2], namespace)]
    return bool(meant) and all(e[0] == "Audit" for e in meant)


PATTERN = st.from_regex(r"[ab*]([-ab*]{0,4}[ab*])?", fullmatch=True)
POLICY = st.builds(
    lambda mode, include, exclude: policy("p", mode, include=include, exclude=exclude),
    st.sampled_from(["Audit", "Enforce"]),
    st.lists(PATTERN, min_size=1, max_size=2),
    st.lists(PATTERN, max_size=2),
)


@given(st.lists(POLICY, max_size=3), st.from_regex(r"[ab]([-ab]{0,4}[ab])?", fullmatch=True))
def test_the_floor_is_as_lenient_as_the_webhook(found: list[Any], namespace: str) -> None:
    for number, obj in enumerate(found):
        obj["metadata"]["name"] = f"p{number}"
    policies = [compiled(obj) for obj in found]
    apply = [p for p in policies if p.applies_to(namespace)]
    lenient = bool(apply) and all(p.mode == "Audit" for p in apply)
    assert audited(entries(policies, []), namespace) == lenient


def test_a_policy_that_cannot_be_used_may_enforce_anywhere() -> None:
    audits = [compiled(policy("looks", "Audit"))]
    assert audited(entries(audits, []), "team")
    assert not audited(entries(audits, [BrokenPolicy("broken", "no such key")]), "team")


def test_without_policies_nothing_is_audited_only() -> None:
    assert not audited(entries([], []), "team")


@dataclass
class OneObject:
    """An API server that holds the ConfigMap, or does not."""

    obj: dict[str, Any] | None
    written: list[Any] = field(default_factory=list)

    async def get(self, path: str) -> dict[str, Any]:
        assert path == PATH
        if self.obj is None:
            raise NotFoundError(404, "NotFound", "not found")
        return copy.deepcopy(self.obj)

    async def replace(self, path: str, obj: dict[str, Any]) -> dict[str, Any]:
        assert path == PATH
        self.obj = obj
        self.written.append(obj)
        return obj


def store_of(*objects: dict[str, Any]) -> PolicyStore:
    store = PolicyStore()
    for obj in objects:
        store.on_policy("ADDED", ("", obj["metadata"]["name"]), obj)
    return store


def floor_of(server: OneObject, store: PolicyStore) -> Floor:
    return Floor(
        cast("Kube", server), "trainseal-system", store, lambda r: r.startswith("nvidia.com/")
    )


def write(server: OneObject, store: PolicyStore) -> None:
    asyncio.run(floor_of(server, store).write())


def test_it_is_written_where_it_differs_and_what_the_chart_wrote_stays() -> None:
    live = {"metadata": {"name": "trainseal-floor", "resourceVersion": "7", "labels": {"a": "b"}}}
    server = OneObject(live)
    store = store_of(policy("looks", "Audit", include=["team-*"]))
    write(server, store)
    write(server, store)
    assert server.written == [live | {"data": {"looks": "Audit\n^(team-.*)$\n^()$"}}]
    store.on_policy("DELETED", ("", "looks"), {})
    write(server, store)
    assert server.written[-1]["data"] == {}


def test_one_that_is_gone_is_an_error_that_is_tried_again() -> None:
    with pytest.raises(NotFoundError):
        write(OneObject(None), store_of())


# Lanes ------------------------------------------------------------------------------------------


def with_lane(*registries: str) -> dict[str, Any]:
    made = policy("notebooks", include=["team-*"])
    made["spec"]["registries"] = {"allow": [*registries]}
    made["spec"]["lanes"] = [
        {
            "name": "nb",
            "reason": "interactive work",
            "namespaces": ["team-a", "team-b*"],
            "image": {"authorities": ["alice"]},
            "maxPods": 1,
            "maxGPUs": 1,
            "maxDurationSeconds": 60,
        }
    ]
    return made


def test_the_floor_is_told_of_lanes_after_what_it_always_was_told() -> None:
    lines = entries([compiled(with_lane("registry.example/x"))], [])["notebooks"].split("\n")
    assert lines[:4] == ["Enforce", "^(team-.*)$", "^()$", "Lane nb ^(team-a|team-b.*)$"]
    assert [line.split(" ")[0] for line in lines[3:]] == ["Lane", "Images"]
    assert all(line.count(" ") == n for line, n in zip(lines[3:], (2, 1), strict=True))


@given(
    st.from_regex(r"(a\.b|ab)(:5)?/[ab*]{1,3}(/[ab*]{1,2})?(/\*\*)?", fullmatch=True),
    st.from_regex(r"(a\.b|axb\.c)(:5)?/[ab]{1,3}(/[ab]{1,2}){0,2}", fullmatch=True),
)
def test_the_floor_knows_repositories_as_the_webhook_does(pattern: str, repository: str) -> None:
    assume("**" not in pattern.removesuffix("/**"))
    reference = Reference.parse(f"{repository}@sha256:{'0' * 64}")
    lines = entries([compiled(with_lane(pattern))], [])["notebooks"].split("\n")
    known = re.search(lines[-1].split(" ")[1], str(reference)) is not None
    assert known == allowed(reference, [pattern])


def test_a_tag_or_a_text_after_the_digest_is_no_image_of_a_lane() -> None:
    lines = entries([compiled(with_lane("registry.example/**"))], [])["notebooks"].split("\n")
    expression = lines[-1].split(" ")[1]
    digest = f"sha256:{'0' * 64}"
    assert re.search(expression, f"registry.example/a/b@{digest}")
    for image in ("a", "a:1", f"a@{digest}x", f"a:1@{digest}", f"x@y@{digest}"):
        assert not re.search(expression, f"registry.example/{image}")


# Devices ----------------------------------------------------------------------------------------


def device_class(name: str, resource: str | None) -> dict[str, Any]:
    spec = {"extendedResourceName": resource} if resource else {}
    return {"metadata": {"name": name}, "spec": spec}


def told(*changes: tuple[Any, str, str | None]) -> list[str]:
    """The names that the floor is told after these changes of DeviceClasses."""
    server = OneObject({"metadata": {"name": "trainseal-floor"}})
    floor = floor_of(server, store_of())
    for event, name, resource in changes:
        floor.on_device_class(event, ("", name), device_class(name, resource))
    asyncio.run(floor.write())
    assert server.obj is not None
    data = server.obj.get("data") or {}
    return data["_devices"].split("\n")[3:] if data else []


def test_the_floor_is_told_by_which_names_devices_are_asked_for() -> None:
    assert told(("ADDED", "b", "b.example/card"), ("ADDED", "a", "a.example/card")) == [
        "a.example/card",
        "b.example/card",
    ]
    assert told(("ADDED", "a", "a.example/x"), ("MODIFIED", "a", "a.example/y")) == ["a.example/y"]
    assert told(("ADDED", "a", "a.example/x"), ("DELETED", "a", "a.example/x")) == []
    assert told(("ADDED", "a", "a.example/x"), ("MODIFIED", "a", None)) == []


def test_a_name_that_the_chart_knows_need_not_be_told() -> None:
    assert told(("ADDED", "a", "nvidia.com/gpu"), ("ADDED", "b", None)) == []


@given(st.lists(POLICY, max_size=2), st.lists(st.just("accel.example/card"), max_size=2))
def test_device_names_change_nothing_of_what_is_audited(
    found: list[Any], devices: list[str]
) -> None:
    for number, obj in enumerate(found):
        obj["metadata"]["name"] = f"p{number}"
    policies = [compiled(obj) for obj in found]
    for namespace in ("a", "team", ""):
        without = audited(entries(policies, []), namespace)
        assert audited(entries(policies, [], devices), namespace) == without


# Secrets ----------------------------------------------------------------------------------------


def guarding(mode: str = "Enforce", **pods: Any) -> CompiledPolicy:
    made = policy("guards", mode, include=["team-*"], exclude=["team-x"])
    made["spec"]["pods"] = pods
    return compiled(made)


def may_write(data: dict[str, str], namespace: str, secret: str, user: str) -> bool:
    """As the chart's expressions read it."""
    lines = [line.split("\t") for line in data.get("_secrets", "").split("\n")]
    rules = [
        f
        for f in lines
        if len(f) >= 3
        and secret in f[2].split(" ")
        and re.search(f[0], namespace)
        and not re.search(f[1], namespace)
    ]
    return all("!" in f or f"={user}" in f for f in rules)


def test_secrets_that_a_policy_names_are_written_by_its_rotators_alone() -> None:
    told = entries([guarding(allowedSecrets=["wandb", "hub"], secretRotators=["ann", "b c"])], [])
    for user in ("ann", "b c"):
        assert may_write(told, "team-a", "wandb", user)
    for user in ("eve", "wandb", "hub wandb", "", "=ann", "!", "^(team-.*)$"):
        assert not may_write(told, "team-a", "wandb", user)
    # Twins: another Secret, and where the policy does not hold.
    assert may_write(told, "team-a", "token", "eve")
    assert may_write(told, "team-x", "wandb", "eve")
    assert may_write(told, "other", "wandb", "eve")


def test_nobody_writes_them_where_a_policy_names_no_rotator_and_all_must_agree() -> None:
    nobody = guarding(allowedSecrets=["wandb"], secretRotators=[])
    one = guarding(allowedSecrets=["wandb"], secretRotators=["ann"])
    assert not may_write(entries([nobody], []), "team-a", "wandb", "ann")
    assert may_write(entries([one], []), "team-a", "wandb", "ann")
    assert not may_write(entries([one, nobody], []), "team-a", "wandb", "ann")


def test_a_policy_that_audits_or_names_no_rotators_leaves_secrets_to_roles() -> None:
    audits = guarding("Audit", allowedSecrets=["wandb"], secretRotators=["ann"])
    for lenient in (audits, guarding(allowedSecrets=["wandb"])):
        told = entries([lenient], [])
        assert may_write(told, "team-a", "wandb", "eve")
        assert "wandb" in told["_secrets"], "who did it goes on record"
    assert "_secrets" not in entries([guarding(secretRotators=["ann"])], [])


@given(st.lists(POLICY, max_size=2))
def test_secrets_change_nothing_of_what_is_audited(found: list[Any]) -> None:
    for number, obj in enumerate(found):
        obj["metadata"]["name"] = f"p{number}"
    policies = [compiled(obj) for obj in found]
    for obj in found:
        obj["spec"]["pods"] = {"allowedSecrets": ["wandb"], "secretRotators": ["ann"]}
    guarded = [compiled(obj) for obj in found]
    for namespace in ("a", "team", ""):
        assert audited(entries(guarded, []), namespace) == audited(entries(policies, []), namespace)


@pytest.mark.parametrize("user", ["a\tb", "a\n=b", "\x7f", ""])
def test_a_name_that_would_not_be_one_field_is_refused(user: str) -> None:
    with pytest.raises(InvalidObjectError, match="secretRotators"):
        guarding(secretRotators=[user])
