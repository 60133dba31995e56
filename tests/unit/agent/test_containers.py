"""Which containers are watched: those of pods that a verified seal's object owns, no others."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.unit import world
from trainseal.agent.containers import (
    SealedPods,
    first_process,
    named_by_mounts,
    recognise,
    what_is_needed_of_a_pod,
)
from trainseal.agent.observed import Process
from trainseal.agent.sealedtemplates import config_digests, role_of, sealed_part
from trainseal.api.model import json_object
from trainseal.provenance.boundseals import kept_by_watchers
from trainseal.provenance.configfiles import config_digest, config_files, file_digests

Object = dict[str, Any]
NOW = datetime(2026, 11, 1, tzinfo=UTC)
UID = "0aa3b1c2-1111-2222-3333-444455556666"
ID = "ab" * 32
ROOT = "21 1 0:30 / / rw - overlay overlay rw"
MOUNTINFO = f"""\
620 500 0:52 / / rw,relatime - overlay overlay rw,lowerdir=/l,upperdir=/u,workdir=/w
700 620 8:1 /kubelet/pods/{UID}/containers/trainer/1f2e3d4c /dev/termination-log rw - ext4 x -
701 620 8:1 /kubelet/pods/{UID}/etc-hosts /etc/hosts rw - ext4 x rw
"""


class Node:
    """A node with one sealed run's seal, and pods that come and go."""

    def __init__(self) -> None:
        self.seal: Object = world.sealed_world().seal
        self.changed: list[str] = []
        self.pods = SealedPods(world.CLUSTER, self.changed.append)
        self.key = ("research", self.seal["metadata"]["name"])

    def give(self, *what: str, pod: Object | None = None) -> None:
        for part in what:
            if part == "keyring":
                self.pods.use_keyring(world.keyring())
            elif part == "seal":
                seal = kept_by_watchers(copy.deepcopy(self.seal))
                self.pods.on_seal("ADDED", self.key, seal)
            else:
                self.pod(pod or a_pod())

    def pod(self, pod: Object, event: Any = "MODIFIED") -> None:
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        self.pods.on_pod(event, key, what_is_needed_of_a_pod(pod))


def a_pod(owner: str = world.OBJECT_UID, **status: object) -> Object:
    return {
        "metadata": {
            "name": "char-lm-worker-0-x",
            "namespace": "research",
            "uid": UID,
            "resourceVersion": "1",
            "ownerReferences": [{"uid": owner, "controller": True}],
        },
        "status": {"phase": "Pending", **status},
    }


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.mark.parametrize(
    "order",
    [
        ("keyring", "seal", "pod"),
        ("pod", "seal", "keyring"),
        ("seal", "pod", "keyring"),
        ("pod", "keyring", "seal"),
    ],
)
def test_a_pod_of_a_sealed_run_is_found_in_whatever_order_word_arrives(
    node: Node, order: tuple[str, ...]
) -> None:
    node.give(*order)
    assert list(node.pods.pods) == [UID]
    assert node.changed == [UID]
    pod = node.pods.pods[UID]
    assert (pod.namespace, pod.seal) == node.key
    assert "trainer" in pod.containers
    assert "trainseal-gate" not in pod.containers


def test_a_pod_that_only_bears_the_labels_is_not(node: Node) -> None:
    other = a_pod(owner="some-other-object")
    other["metadata"]["labels"] = {"trainseal.dev/seal": node.key[1]}
    node.give("keyring", "seal")
    node.pod(other)
    assert not node.pods.pods


def test_an_owner_that_is_not_the_controller_does_not_count(node: Node) -> None:
    other = a_pod()
    other["metadata"]["ownerReferences"][0].pop("controller")
    node.give("keyring", "seal")
    node.pod(other)
    assert not node.pods.pods


def test_a_pod_in_another_namespace_is_not(node: Node) -> None:
    other = a_pod()
    other["metadata"]["namespace"] = "elsewhere"
    node.give("keyring", "seal")
    node.pod(other)
    assert not node.pods.pods


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s["spec"].update(run=2),
        lambda s: s["status"].update(binding=world.binding(s, world.MALLORY)),
        lambda s: s["status"].pop("binding"),
        lambda s: s["spec"].update(cluster="other"),
    ],
)
def test_a_seal_that_is_not_ours_makes_no_pod_a_sealed_one(node: Node, change: Any) -> None:
    change(node.seal)
    node.give("keyring", "seal", "pod")
    assert not node.pods.pods


def test_a_pod_is_watched_to_its_own_end_when_its_run_ends_first(node: Node) -> None:
    node.give("keyring", "seal", "pod")
    node.seal["status"]["phase"] = "Succeeded"
    node.give("seal")
    assert list(node.pods.pods) == [UID]
    node.pod(a_pod(phase="Succeeded"))
    assert not node.pods.pods
    assert node.changed == [UID, UID]


def test_a_deleted_pod_is_told(node: Node) -> None:
    node.give("keyring", "seal", "pod")
    node.pod(a_pod(), "DELETED")
    assert not node.pods.pods
    assert node.changed == [UID, UID]


def test_a_pod_of_the_same_name_is_another_pod(node: Node) -> None:
    node.give("keyring", "seal", "pod")
    again = a_pod()
    again["metadata"]["uid"] = "another"
    node.pod(again)
    assert list(node.pods.pods) == ["another"]


def test_what_the_kubelet_says_is_running_is_kept(node: Node) -> None:
    node.give("keyring", "seal")
    status = {"name": "trainer", "containerID": f"containerd://{ID}", "state": {"running": {}}}
    node.pod(a_pod(containerStatuses=[status]))
    assert node.pods.pods[UID].running == {"trainer": ID}


# Recognising a container --------------------------------------------------------------------------


def process(pid: int, seconds: float = 0.0, container: str | None = ID) -> Process:
    return Process(pid, 1, NOW + timedelta(seconds=seconds), "/x", (), 0, container)


def test_the_first_process_is_the_oldest_of_the_container() -> None:
    found = {10: process(10, 5.0), 11: process(11, 1.0), 12: process(12, 0.5, None)}
    first = first_process([10, 11, 12, 13], ID, found.get)
    assert first == found[11]


def recognised(node: Node, tmp_path: Path, mountinfo: str) -> object:
    (tmp_path / "10").mkdir()
    (tmp_path / "10" / "mountinfo").write_text(mountinfo)
    return recognise(node.pods.pods[UID], ID, [10], lambda pid: process(pid), tmp_path)


def test_a_container_is_known_by_the_kubelets_own_mount(node: Node, tmp_path: Path) -> None:
    node.give("keyring", "seal", "pod")
    found = recognised(node, tmp_path, MOUNTINFO)
    assert found is not None
    assert found.container == "trainer"  # type: ignore[attr-defined]
    assert found.pid == 10  # type: ignore[attr-defined]
    roles = {m.role for m in found.mounts}  # type: ignore[attr-defined]
    assert {"code", "config"} <= roles


@pytest.mark.parametrize(
    ("what", "mountinfo"),
    [
        ("the pause container", MOUNTINFO.splitlines()[0]),
        ("another pod's", MOUNTINFO.replace(UID, UID[::-1])),
        ("with the node's root above its own", f"{ROOT}\n{MOUNTINFO}"),
        ("not yet in its own root", MOUNTINFO.replace("/dev/term", "/run/x/rootfs/dev/term")),
        ("the gate", MOUNTINFO.replace("/trainer/", "/trainseal-gate/")),
        ("a mount of the pod's own naming", MOUNTINFO.replace("/1f2e3d4c ", "/notes.txt ")),
    ],
)
def test_what_is_no_container_of_the_template_is_not_recognised(
    node: Node, tmp_path: Path, what: str, mountinfo: str
) -> None:
    node.give("keyring", "seal", "pod")
    assert recognised(node, tmp_path, mountinfo) is None, what


def test_where_nothing_is_mounted_the_kubelets_status_has_to_do(node: Node, tmp_path: Path) -> None:
    node.give("keyring", "seal")
    status = {"name": "trainer", "containerID": f"containerd://{ID}", "state": {"running": {}}}
    node.pod(a_pod(containerStatuses=[status]))
    assert recognised(node, tmp_path, "") is not None


def test_a_malformed_mount_table_names_nothing(node: Node) -> None:
    node.give("keyring", "seal", "pod")
    assert named_by_mounts("\n\x00 a b\n" + "x " * 5, node.pods.pods[UID]) is None


# The template -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("volume", "role"),
    [
        ("code-trainer", "code"),
        ("config", "config"),
        ("data-corpus", "data"),
        ("checkpoints", "checkpoints"),
        ("scratch-0", "scratch"),
        ("config-source", None),
        ("pull-secrets", None),
    ],
)
def test_volumes_have_the_roles_that_the_operator_names_them_by(
    volume: str, role: str | None
) -> None:
    assert role_of(volume) == role


def test_variables_that_are_only_known_at_run_time_have_no_value() -> None:
    template: Object = {
        "spec": {
            "containers": [
                {
                    "name": "trainer",
                    "env": [
                        {"name": "A", "value": "1"},
                        {"name": "B"},
                        {"name": "C", "value": "$(A)/x"},
                        {"name": "D", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
                    ],
                }
            ]
        }
    }
    env = sealed_part(template).containers["trainer"].env
    assert env == {"A": "1", "B": "", "C": None, "D": None}


def test_when_the_time_of_a_deleted_pod_is_over_is_known(node: Node) -> None:
    node.give("keyring", "seal", "pod")
    assert node.pods.pods[UID].ends is None
    going = a_pod()
    going["metadata"]["deletionTimestamp"] = "2026-11-01T00:00:30Z"
    node.pod(going)
    assert node.pods.pods[UID].ends == NOW + timedelta(seconds=30)
    assert node.changed == [UID, UID]


def test_the_config_is_known_by_the_digests_that_the_gate_is_held_to(node: Node) -> None:
    node.give("keyring", "seal", "pod")
    files = config_files(world.job_object()["spec"]["config"]["parameters"])
    trees = node.pods.pods[UID].trees
    assert trees.config == file_digests(files)
    assert node.seal["spec"]["configDigest"] == config_digest(files)
    assert trees.code == {"code-trainer": world.TREE}


def gated(*args: str) -> Object:
    return {"spec": {"initContainers": [{"name": "trainseal-gate", "args": list(args)}]}}


def plan(**parts: Object) -> str:
    config = {"source": "/s", "target": "/t", "files": {"config.json": world.TREE}}
    return json.dumps({"config": config} | parts)


def test_a_plan_of_another_version_still_tells_of_the_config() -> None:
    found = config_digests(gated("gate", "--plan", plan(laterPart={"a": 1})))
    assert found == {"config.json": world.TREE}


@pytest.mark.parametrize(
    "template",
    [
        {},
        {"spec": {"initContainers": [{"name": "other", "args": ["gate", "--plan", plan()]}]}},
        gated("gate"),
        gated("gate", "--plan"),
        gated("gate", "--plan", "{"),
        gated("gate", "--plan", "[" * 100_000),
        gated("gate", "--plan", "[]"),
        gated("gate", "--plan", "{}"),
        gated("gate", "--plan", plan(config={"files": {"config.json": "sha1:0"}})),
    ],
)
def test_of_arguments_that_cannot_be_read_no_digest_is_taken(template: Object) -> None:
    assert config_digests(template) == {}


def test_the_job_that_was_signed_is_not_held_by_each_node() -> None:
    seal = world.sealed_world().seal
    seal["status"]["signed"] = {"engine": "Job"}
    kept = kept_by_watchers(seal)
    assert "signed" not in json_object(kept["status"])
    assert json_object(kept["status"])["binding"] == seal["status"]["binding"]
    assert kept["spec"] == seal["spec"]
