"""The access records of a node: small and limited, whatever people do."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trainseal.agent import people
from trainseal.agent.people import AccessRecords, what_is_needed_of_a_record
from trainseal.api.accessrecord import AccessRecord, command_digest

Object = dict[str, Any]
NODE = "node-1"


def record(number: int, user: str = "mallory", uid: str = "pod-0", **fields: Any) -> Object:
    """The record made in second ``number``."""
    time = f"2026-11-23T{number // 3600:02}:{number // 60 % 60:02}:{number % 60:02}Z"
    return {
        "apiVersion": "trainseal.dev/v1alpha1",
        "kind": "AccessRecord",
        "metadata": {"name": f"r{number}", "namespace": "n", "managedFields": ["x" * 9999]},
        "spec": {
            "pod": {"name": "p", "uid": uid},
            "node": NODE,
            "sealedRun": "s-1",
            "action": "Exec",
            "username": user,
            "groups": ["g" * 1024] * 64,
            "command": ["true"],
            "allowed": True,
            "time": time,
            **fields,
        },
    }


class Node:
    """Records of a node on which the pods in ``here`` live."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.here = {"pod-0", "pod-1"}
        self.records = AccessRecords(NODE, self.told.append, self.here.__contains__)

    def see(self, obj: Object, event: Any = "ADDED") -> None:
        key = ("n", obj["metadata"]["name"])
        self.records.on_record(event, key, what_is_needed_of_a_record(obj))

    def names(self, uid: str = "pod-0") -> set[str]:
        return {r.metadata.name for r in self.records.of_pod(uid)}


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Node:
    monkeypatch.setattr(people, "MOST_OF_A_POD", 4)
    monkeypatch.setattr(people, "MOST_OF_THE_NODE", 6)
    return Node()


def test_of_a_record_that_is_long_a_little_is_kept_and_its_commands_digest() -> None:
    command = [f"{n}{'x' * 1000}" for n in range(64)]
    found = what_is_needed_of_a_record(record(1, command=command))
    assert len(json.dumps(found)) < 5000
    spec = AccessRecord.parse(found).spec
    assert spec.command_digest == command_digest(command)
    assert spec.command is not None
    assert spec.command[:3] == command[:3]


def test_of_a_record_that_was_cut_before_the_digest_stays() -> None:
    whole = "sha256:" + "0" * 64
    found = what_is_needed_of_a_record(record(1, command=["x" * 1024] * 8, commandDigest=whole))
    assert AccessRecord.parse(found).spec.command_digest == whole


def test_a_short_record_keeps_what_names_a_person() -> None:
    spec = AccessRecord.parse(what_is_needed_of_a_record(record(1, container="c"))).spec
    assert (spec.username, spec.command, spec.command_digest) == ("mallory", ["true"], None)
    assert (spec.container, spec.node, spec.allowed) == ("c", NODE, True)


def test_of_a_pod_the_newest_are_kept_and_it_is_said_once(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (3, 1, 2, 7, 5, 6, 4):
        node.see(record(number))
    assert node.names() == {"r4", "r5", "r6", "r7"}
    assert len([m for m in caplog.messages if "more access records" in m]) == 1


def test_as_many_as_are_kept_are_all_there_and_nothing_is_said(
    node: Node, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(4):
        node.see(record(number))
    assert node.names() == {"r0", "r1", "r2", "r3"}
    assert not caplog.messages
    assert node.told == ["pod-0"] * 4


def test_a_flood_pushes_out_nobody_elses(node: Node) -> None:
    node.see(record(0, user="alice"))
    for number in range(1, 100):
        node.see(record(number))
    assert node.names() == {"r0", "r97", "r98", "r99"}


def test_what_of_gone_pods_is_there_makes_room(node: Node) -> None:
    for number in range(3):
        node.see(record(number, uid="pod-1"))
    node.here.discard("pod-1")
    for number in range(3, 7):
        node.see(record(number))
    assert node.names("pod-1") == {"r1", "r2"}
    assert node.names() == {"r3", "r4", "r5", "r6"}


def test_the_node_keeps_so_many_and_no_more_however_many_pods_there_are(node: Node) -> None:
    for number in range(50):
        node.see(record(number, uid=f"gone-{number}"))
    assert sum(len(node.names(f"gone-{n}")) for n in range(50)) == 6


def test_what_is_told_again_changes_nothing_and_what_is_deleted_is_gone(node: Node) -> None:
    node.see(record(1))
    node.see(record(1))
    assert node.told == ["pod-0"]
    node.see(record(1), "DELETED")
    assert node.names() == set()
