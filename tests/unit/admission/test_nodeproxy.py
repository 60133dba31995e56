"""Through a node's proxy into containers: on record, and refused where exec is not everybody's."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tests.unit import world
from tests.unit.admission.test_access import ApiServer
from trainseal.admission.nodeproxy import NodeContext, NodeProxies
from trainseal.admission.reviews import Request, Response
from trainseal.api.accessrecord import AccessRecord
from trainseal.cluster.api import KubeError
from trainseal.provenance.policies import CompiledPolicy
from trainseal.verifier.policystore import BrokenPolicy

HOME = "trainseal-system"
PATH = "exec/research/char-lm-worker-0-x7f2p/trainer"


def asked(path: str = PATH, **said: Any) -> Request:
    request = world.request(
        {"apiVersion": "v1", "kind": "NodeProxyOptions", "path": path},
        user="root@example.org",
        operation="CONNECT",
        resource="nodes",
        subresource="proxy",
        namespace="",
    )
    return dataclasses.replace(request, **{"name": "node-7", **said})


class Door:
    """The webhook's part, before an API server in memory."""

    def __init__(self, *policies: CompiledPolicy, broken: tuple[BrokenPolicy, ...] = ()) -> None:
        self.api = ApiServer({})
        context = NodeContext(lambda: policies, lambda: broken, HOME, lambda: world.NOW)
        self.proxies = NodeProxies(self.api, context)  # type: ignore[arg-type]

    def ask(self, path: str = PATH, **said: Any) -> Response:
        return world.run(self.proxies.answer(asked(path, **said)))

    def records(self) -> list[Any]:
        for made in self.api.created:
            assert made["metadata"]["namespace"] == HOME
            AccessRecord.parse(made)
        return [made["spec"] for made in self.api.created]


def test_it_is_on_record_with_who_and_what() -> None:
    door = Door(world.policy())
    answer = door.ask()
    assert answer.allowed
    (found,) = door.records()
    assert (found["username"], found["action"]) == ("root@example.org", "NodeProxy")
    assert (found["object"]["kind"], found["object"]["name"]) == ("Node", "node-7")
    assert (found["path"], found["allowed"]) == (f"/{PATH}", True)
    assert answer.audit["access-record"].startswith(f"{HOME}/node-7-")


@pytest.mark.parametrize("said", ["Deny", "BreakGlass"])
def test_it_is_refused_where_a_policy_lets_not_everybody_exec(said: str) -> None:
    door = Door(world.policy(), world.policy("strict", access={"exec": said}))
    answer = door.ask()
    assert not answer.allowed
    assert f"of ProvenancePolicy strict, access.exec is {said}" in answer.message
    assert [r["allowed"] for r in door.records()] == [False]


def test_where_such_a_policy_only_audits_who_does_it_is_warned() -> None:
    answer = Door(world.policy(mode="Audit", access={"exec": "Deny"})).ask()
    assert answer.allowed
    assert "would be denied under Enforce" in answer.warnings[0]


def test_a_policy_that_cannot_be_used_denies() -> None:
    answer = Door(broken=(BrokenPolicy("odd", "why"),)).ask()
    assert not answer.allowed
    assert "ProvenancePolicy odd cannot be used" in answer.message


def test_what_cannot_be_recorded_is_refused() -> None:
    door = Door()
    door.api.write_fails = KubeError(500, "InternalError", "etcd")
    answer = door.ask()
    assert not answer.allowed
    assert "could not be recorded" in answer.message


def test_one_path_is_one_record_in_ten_minutes_and_another_path_another() -> None:
    door = Door()
    for path in (PATH, PATH, "run/research/p/c"):
        assert door.ask(path).allowed
    assert [r["path"] for r in door.records()] == [f"/{PATH}", "/run/research/p/c"]


@pytest.mark.parametrize("name", ["node-7:10250", "https:node-7:10250"])
def test_the_node_is_known_by_its_name_whatever_the_port(name: str) -> None:
    door = Door()
    door.ask(name=name)
    assert door.records()[0]["object"]["name"] == "node-7"


def test_a_long_path_is_cut_and_says_so() -> None:
    door = Door()
    door.ask("exec/" + "x" * 4000)
    (found,) = door.records()
    assert (len(found["path"]), found["truncated"]) == (1024, ["path"])
