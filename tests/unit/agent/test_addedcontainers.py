"""Containers that a platform added: watched as what they are, and told of only at the run's own."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from tests.unit import world
from tests.unit.agent.test_containers import Node, a_pod
from tests.unit.agent.test_judge import CONTAINER
from tests.unit.agent.test_marks import MOUNTS
from tests.unit.agent.test_watch import Told
from tests.unit.platforms import istio, vault
from trainseal.agent.addedcontainers import is_told
from trainseal.agent.containers import SealedPod, recognise
from trainseal.agent.fanotify import MARK_FILESYSTEM, OPEN_EXEC
from trainseal.agent.loaders import Loaders
from trainseal.agent.marks import WRITES, file_marks, name_roots
from trainseal.agent.observed import Observation, RoleMount
from trainseal.agent.watch import NodeWatch
from trainseal.api.findings import FindingId

Object = dict[str, Any]
ADDED = replace(CONTAINER, container="istio-proxy", added=True)


@pytest.fixture
def node() -> Node:
    node = Node()
    node.give("keyring", "seal")
    return node


GATE_ENDED: Object = {
    "initContainerStatuses": [
        {"name": "trainseal-gate", "state": {"terminated": {"exitCode": 0}}},
    ]
}
GATE_RUNS: Object = {
    "initContainerStatuses": [{"name": "trainseal-gate", "state": {"running": {}}}],
}


def watched(node: Node, *changes: Any, status: Object = GATE_ENDED) -> SealedPod:
    """The pod as the node's agent has it, after platforms changed it."""
    pod = a_pod(**status)
    whole = world.sealed_world().pod()
    for change in changes:
        change(whole)
    pod["spec"] = whole["spec"]
    node.pod(pod)
    (found,) = node.pods.pods.values()
    return found


# Who is watched -----------------------------------------------------------------------------------


def test_a_container_beside_the_template_s_is_watched_as_an_added_one(node: Node) -> None:
    pod = watched(node, istio, vault)
    assert {name: c.added for name, c in pod.containers.items()} == {
        "trainer": False,
        "istio-init": True,
        "istio-proxy": True,
        "vault-agent": True,
    }


def test_a_pod_that_nobody_changed_has_the_template_s_containers_as_they_are(node: Node) -> None:
    before = copy.deepcopy(watched(node).containers)
    bare = a_pod()
    node.pod(bare)
    assert node.pods.pods[bare["metadata"]["uid"]].containers == before


def test_the_gate_is_not_watched_and_no_other_bears_its_name(node: Node) -> None:
    def twice(pod: Object) -> None:
        pod["spec"]["containers"].append({"name": "trainseal-gate", "image": "x"})

    assert "trainseal-gate" not in watched(node, twice).containers


def test_the_probes_and_hooks_of_an_added_container_are_its_own(node: Node) -> None:
    proxy = watched(node, istio).containers["istio-proxy"]
    assert proxy.own_commands == {("pilot-agent", "request", "drain")}


def reading(pod: Object) -> None:
    """A mesh whose proxy reads the run's code, and a volume of its own."""
    istio(pod)
    mounts = pod["spec"]["initContainers"][1]["volumeMounts"]
    mounts.append({"name": "code-trainer", "mountPath": "/etc/istio/code", "readOnly": True})
    mounts.append({"name": "checkpoints", "mountPath": "/etc/istio/kept", "readOnly": True})
    mounts.append({"name": "code-of-mine", "mountPath": "/mine"})


CODE = RoleMount("/etc/istio/code", "code", "code-trainer")
KEPT = RoleMount("/etc/istio/kept", "checkpoints", "checkpoints")


def test_only_the_run_s_own_volumes_have_a_role_in_an_added_container(node: Node) -> None:
    assert watched(node, reading).containers["istio-proxy"].mounts == (CODE, KEPT)


@pytest.mark.parametrize("status", [{}, GATE_RUNS])
def test_what_the_gate_still_writes_is_no_signed_mount_yet(node: Node, status: Object) -> None:
    pod = watched(node, reading, status=status)
    assert pod.containers["istio-proxy"].mounts == (KEPT,)
    assert "code" in [m.role for m in pod.containers["trainer"].mounts]
    node.changed.clear()
    assert watched(node, reading).containers["istio-proxy"].mounts == (CODE, KEPT)
    assert node.changed == [pod.uid]


def test_what_is_mounted_into_a_signed_container_nobody_signed(node: Node) -> None:
    trainer = watched(node, vault).containers["trainer"]
    assert RoleMount("/vault/s", "scratch", "vault-secrets") in trainer.mounts
    assert [m.role for m in trainer.mounts].count("code") == 1


def test_an_added_container_is_recognised_by_the_kubelets_own_mount(
    node: Node, tmp_path: Path
) -> None:
    from tests.unit.agent.test_containers import ID, MOUNTINFO, NOW
    from trainseal.agent.observed import Process

    pod = watched(node, istio)
    (tmp_path / "41").mkdir()
    (tmp_path / "41" / "mountinfo").write_text(
        MOUNTINFO.replace("/containers/trainer/", "/containers/istio-proxy/")
    )
    first = Process(41, 1, NOW, "/usr/bin/envoy", ("envoy",), 1337, ID)
    found = recognise(pod, ID, [41], lambda _: first, tmp_path)
    assert found is not None
    assert (found.container, found.added) == ("istio-proxy", True)


# What is told -------------------------------------------------------------------------------------

TOLD = [
    (FindingId.PROCESS_ENTERED, None),
    (FindingId.PROCESS_UNRECORDED, None),
    (FindingId.FILE_CHANGED, "/workspace/train.py"),
    (FindingId.FILE_CREATED, "/workspace/more.py"),
    (FindingId.TREE_CHANGED, "/etc/training/config.yaml"),
    (FindingId.MAP_WRITABLE, "/workspace/lib.so"),
    (FindingId.WATCH_BLIND, None),
]
NOT_TOLD = [
    (FindingId.EXEC_FOREIGN, "/usr/local/bin/envoy"),
    (FindingId.EXEC_FOREIGN, "/tmp/envoy"),
    (FindingId.MAP_FOREIGN, "/etc/istio/proxy/wasm.so"),
    (FindingId.FILE_CREATED, "/etc/istio/proxy/envoy-rev.json"),
    (FindingId.FILE_CHANGED, "/usr/bin/x"),
    (FindingId.FILE_CHANGED, None),
    (FindingId.ENV_LOADER, None),
    (FindingId.PROCESS_TRACED, None),
    (FindingId.PROCESS_STOPPED, None),
    (FindingId.IMPORT_CHANGED, "/checkpoints/x.py"),
]


@pytest.mark.parametrize(("finding", "path"), TOLD)
def test_who_enters_and_what_is_done_to_the_run_s_files_is_told(
    finding: FindingId, path: str | None
) -> None:
    assert is_told(ADDED, Observation(finding, "x", path))


@pytest.mark.parametrize(("finding", "path"), NOT_TOLD)
def test_its_own_programs_and_files_are_no_difference(finding: FindingId, path: str | None) -> None:
    seen = Observation(finding, "x", path)
    assert not is_told(ADDED, seen)
    assert is_told(CONTAINER, seen)


def test_the_watch_tells_the_reports_of_no_more_than_that(tmp_path: Path) -> None:
    told = Told()
    watch = NodeWatch(cast("Any", None), tmp_path)
    pods = type("Pods", (), {"pods": {ADDED.pod_uid: object()}})
    watch.connect(cast("Any", pods), cast("Any", told))
    own = Observation(FindingId.EXEC_FOREIGN, "its own", "/usr/local/bin/envoy")
    code = Observation(FindingId.FILE_CHANGED, "the run's", "/workspace/train.py")
    watch._take(ADDED, [own, code])
    assert told.seen == ["the run's"]


def test_of_its_own_files_only_executions_are_marked() -> None:
    mounts = tuple(m for m in CONTAINER.mounts if m.path == "/workspace")
    container = replace(ADDED, mounts=mounts)
    marks = {m.path: (m.kind, m.mask) for m in file_marks(container, MOUNTS)}
    assert marks == {
        "/": (MARK_FILESYSTEM, OPEN_EXEC),
        "/workspace": (MARK_FILESYSTEM, WRITES | OPEN_EXEC),
    }
    loaders = Loaders(("/usr/lib/python3",), frozenset({"/usr/lib"}), frozenset({"/usr/bin"}))
    assert [root.path for root in name_roots(container, MOUNTS, loaders)] == ["/workspace"]
