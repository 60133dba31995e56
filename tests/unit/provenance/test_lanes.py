"""What a pod in a lane may be: each test breaks one rule of a notebook that keeps them all."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import pytest

from tests.unit import world
from trainseal.cluster.settings import Settings
from trainseal.provenance.lanes import (
    Lane,
    admitted,
    breaches,
    chosen,
    gpus,
    images,
    lane_of,
    open_lanes,
)

Object = dict[str, Any]
LABEL = "trainseal.dev/lane"
GPUS = Settings().gpus


def lane(**fields: Any) -> Object:
    """A policy's lane with scratch and a Secret, and with these fields."""
    return world.lane(**{"scratchClaims": ["scratch-*"], "secrets": ["wandb"]} | fields)


def opened(*lanes: Object, mode: str = "Enforce", name: str = "research") -> Any:
    return world.policy(name, mode=mode, lanes=[*lanes])


def the_lane(*policies: Any) -> Lane:
    return open_lanes(policies or (opened(lane()),), "research")["notebooks"]


def notebook() -> Object:
    """As a StatefulSet makes it, with what its lane gives it."""
    owner = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "nb", "controller": True}
    claim = {"persistentVolumeClaim": {"claimName": "scratch-nb"}}
    token = {"serviceAccountToken": {"path": "token"}}
    return {
        "metadata": {
            "name": "nb-0",
            "namespace": "research",
            "labels": {"app": "nb", LABEL: "notebooks"},
            "annotations": {"team": "nlp", "seccomp.security.alpha.kubernetes.io/pod": "x"},
            "ownerReferences": [owner | {"uid": "u1"}],
        },
        "spec": {
            "activeDeadlineSeconds": 3600,
            "volumes": [
                {"name": "home", **claim},
                {"name": "shm", "emptyDir": {"medium": "Memory"}},
                {"name": "token", "projected": {"sources": [token, {"configMap": {"name": "ca"}}]}},
                {"name": "corpus", "persistentVolumeClaim": {"claimName": "corpus"}},
            ],
            "containers": [
                {
                    "name": "main",
                    "image": world.IMAGE,
                    "resources": {"limits": {"nvidia.com/gpu": "1", "cpu": "4"}},
                    "volumeMounts": [
                        {"name": "home", "mountPath": "/home"},
                        {"name": "corpus", "mountPath": "/corpus", "readOnly": True},
                    ],
                    "env": [
                        {
                            "name": "KEY",
                            "valueFrom": {"secretKeyRef": {"name": "wandb", "key": "key"}},
                        }
                    ],
                }
            ],
        },
    }


def found(change: Callable[[Object, Object], object]) -> list[str]:
    """Places of the breaches; ``change`` takes the pod and its one container."""
    pod = notebook()
    change(pod, pod["spec"]["containers"][0])
    return [b.path for b in breaches(pod, the_lane(), GPUS)]


def test_a_notebook_that_keeps_every_rule_breaks_none() -> None:
    assert found(lambda *_: None) == []


@pytest.mark.parametrize("owner", ["Job", "PyTorchJob", "DaemonSet", "CronJob", "Node"])
def test_what_trains_is_no_lanes(owner: str) -> None:
    def change(pod: Object, _: Object) -> None:
        pod["metadata"]["ownerReferences"] = [{"apiVersion": "batch/v1", "kind": owner}]

    assert found(change) == ["metadata.ownerReferences"]


@pytest.mark.parametrize(
    "owners", [[], [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "controller": True}]]
)
def test_a_bare_pod_and_a_deployments_may_run(owners: list[Object]) -> None:
    assert found(lambda pod, _: pod["metadata"].update(ownerReferences=owners)) == []


@pytest.mark.parametrize(
    "label",
    [
        "trainseal.dev/seal",
        "trainseal.dev/job",
        "batch.kubernetes.io/controller-uid",
        "batch.kubernetes.io/job-name",
        "controller-uid",
        "job-name",
    ],
)
def test_it_bears_no_label_by_which_a_run_or_a_job_knows_its_pods(label: str) -> None:
    def change(pod: Object, _: Object) -> None:
        pod["metadata"]["labels"][label] = "x"

    assert found(change) == [f"metadata.labels[{label}]"]


@pytest.mark.parametrize(
    "annotation",
    ["cdi.k8s.io/gpu", "io.katacontainers.x", "k8s.v1.cni.cncf.io/networks", "io.containerd.x"],
)
def test_no_annotation_has_a_runtime_give_it_more(annotation: str) -> None:
    def change(pod: Object, _: Object) -> None:
        pod["metadata"]["annotations"][annotation] = "x"

    assert found(change) == [f"metadata.annotations[{annotation}]"]


@pytest.mark.parametrize("seconds", [None, 3601, "60"])
def test_it_ends_in_time(seconds: object) -> None:
    change = lambda pod, _: pod["spec"].update(activeDeadlineSeconds=seconds)  # noqa: E731
    assert found(change) == ["spec.activeDeadlineSeconds"]


@pytest.mark.parametrize("amount", ["5", 5, "1k", "500m", "1e1", "-1", "1_0"])
def test_more_gpus_than_the_lane_has_or_such_as_cannot_be_counted_are_refused(
    amount: object,
) -> None:
    change = lambda _, c: c["resources"]["limits"].update({"nvidia.com/gpu": amount})  # noqa: E731
    assert found(change) == ["spec.containers"]


def test_gpus_of_all_containers_count_and_a_request_without_a_limit_does() -> None:
    pod = notebook()
    pod["spec"]["initContainers"] = [{"resources": {"requests": {"amd.com/gpu": "2"}}}]
    pod["spec"]["containers"].append({"resources": {"limits": {"nvidia.com/mig-1g.5gb": 3}}})
    assert gpus(pod, GPUS.is_gpu) == 6


@pytest.mark.parametrize(
    ("spec", "path"),
    [
        ({"hostNetwork": True}, "spec.hostNetwork"),
        ({"hostPID": True}, "spec.hostPID"),
        ({"hostIPC": True}, "spec.hostIPC"),
        ({"resourceClaims": [{"name": "gpu"}]}, "spec.resourceClaims"),
        ({"ephemeralContainers": [{"name": "debug"}]}, "spec.ephemeralContainers"),
        ({"securityContext": {"sysctls": [{"name": "x"}]}}, "spec.securityContext.sysctls"),
    ],
)
def test_it_reaches_neither_the_node_nor_devices_by_claim(spec: Object, path: str) -> None:
    assert found(lambda pod, _: pod["spec"].update(spec)) == [path]


@pytest.mark.parametrize(
    ("context", "path"),
    [
        ({"privileged": True}, "privileged"),
        ({"procMount": "Unmasked"}, "procMount"),
        ({"capabilities": {"add": ["CAP_SYS_ADMIN"]}}, "capabilities.add"),
        ({"capabilities": {"add": ["SYS_PTRACE"]}}, "capabilities.add"),
    ],
)
@pytest.mark.parametrize("kind", ["containers", "initContainers"])
def test_no_container_of_it_is_privileged(kind: str, context: Object, path: str) -> None:
    def change(pod: Object, container: Object) -> None:
        made = copy.deepcopy(container) | {"name": "other", "securityContext": context}
        pod["spec"].setdefault(kind, []).append(made)

    assert found(change) == [f"spec.{kind}[other].securityContext.{path}"]


@pytest.mark.parametrize(
    "volume",
    [
        {"hostPath": {"path": "/dev"}},
        {"nfs": {"server": "x", "path": "/"}},
        {"csi": {"driver": "x"}},
        {"image": {"reference": "registry.example/x"}},
        {"ephemeral": {"volumeClaimTemplate": {}}},
        {"secret": {"secretName": "other"}},
        {"projected": {"sources": [{"secret": {"name": "other"}}]}},
        {"projected": {"sources": [{"podCertificate": {}}]}},
    ],
)
def test_only_volumes_that_hold_nobody_elses_bytes_or_secrets_are_mounted(volume: Object) -> None:
    def change(pod: Object, _: Object) -> None:
        pod["spec"]["volumes"].append({"name": "x", **volume})

    assert [path.removesuffix(".projected") for path in found(change)] == ["spec.volumes[x]"]


def test_a_claim_that_is_no_scratch_is_read_only() -> None:
    def mount(pod: Object, container: Object) -> None:
        container["volumeMounts"][1]["readOnly"] = False

    assert found(mount) == ["spec.volumes[corpus]"]

    def device(pod: Object, container: Object) -> None:
        container["volumeDevices"] = [{"name": "corpus", "devicePath": "/dev/x"}]

    assert found(device) == ["spec.volumes[corpus]"]

    def closed(pod: Object, container: Object) -> None:
        mount(pod, container)
        pod["spec"]["volumes"][3]["persistentVolumeClaim"]["readOnly"] = True

    assert found(closed) == []


def test_variables_come_from_the_lanes_secrets_alone_and_choose_no_devices() -> None:
    def read(pod: Object, container: Object) -> None:
        container["env"][0]["valueFrom"]["secretKeyRef"]["name"] = "other"

    assert found(read) == ["spec.containers[main].env[KEY]"]
    change = lambda _, c: c.update(envFrom=[{"secretRef": {"name": "other"}}])  # noqa: E731
    assert found(change) == ["spec.containers[main].envFrom"]
    named = {"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}
    change = lambda _, c: c["env"].append(named)  # noqa: E731
    assert found(change) == ["spec.containers[main].env[NVIDIA_VISIBLE_DEVICES]"]


# Which lane ---------------------------------------------------------------------------------------


def test_a_lane_is_open_where_every_enforcing_policy_opens_it_within_the_smallest_limits() -> None:
    one = opened(lane(maxPods=5, secrets=["a", "b"], scratchClaims=["*"]), name="one")
    other = opened(lane(maxGPUs=1, maxDurationSeconds=60, secrets=["b"]), name="other")
    audits = world.policy("audits", mode="Audit")
    found = the_lane(one, other, audits)
    assert (found.max_pods, found.max_gpus, found.max_seconds) == (2, 1, 60)
    assert found.secrets == {"b"}
    assert found.is_scratch("scratch-x")
    assert not found.is_scratch("corpus")
    assert [p.name for p in found.policies] == ["one", "other"]
    assert open_lanes((one, other, world.policy("third")), "research") == {}
    assert open_lanes((one, opened(lane(name="else"))), "research") == {}


def test_no_lane_is_open_elsewhere_nor_where_nothing_is_enforced() -> None:
    assert open_lanes((opened(lane()),), "other") == {}
    assert open_lanes((opened(lane(), mode="Audit"),), "research") == {}
    assert open_lanes((), "research") == {}


def test_images_of_a_lane_are_judged_by_whom_the_lane_names_and_remembered_apart() -> None:
    policy = opened(lane())
    (judged,) = the_lane(policy).policies
    assert [a.name for a in judged.image.authorities] == ["alice"]
    assert [a.name for a in policy.image.authorities] == ["alice", "bob"]
    assert judged.digest != policy.digest


def test_a_pod_is_taken_by_the_only_lane_or_the_one_it_names() -> None:
    two = open_lanes((opened(lane(), lane(name="render")),), "research")
    plain, one = notebook(), open_lanes((opened(lane()),), "research")
    del plain["metadata"]["labels"][LABEL]
    assert getattr(chosen(plain, one), "name", None) == "notebooks"
    assert chosen(plain, two) is None
    assert getattr(chosen(notebook(), two), "name", None) == "notebooks"
    assert chosen(plain, {}) is None


def test_a_jobs_pod_and_a_sealed_one_are_taken_by_none() -> None:
    lanes = open_lanes((opened(lane()),), "research")
    for label in ("trainseal.dev/seal", "batch.kubernetes.io/controller-uid"):
        pod = notebook()
        pod["metadata"]["labels"][label] = "x"
        assert chosen(pod, lanes) is None
    pod = notebook()
    pod["metadata"]["ownerReferences"] = [{"apiVersion": "batch/v1", "kind": "Job"}]
    assert chosen(pod, lanes) is None


def test_what_a_lane_gives_a_pod_is_its_label_and_the_sooner_end() -> None:
    pod = notebook()
    del pod["metadata"]["labels"], pod["spec"]["activeDeadlineSeconds"]
    given = cast("Object", admitted(pod, the_lane()))
    assert (lane_of(given), given["spec"]["activeDeadlineSeconds"]) == ("notebooks", 3600)
    pod["spec"]["activeDeadlineSeconds"] = 60
    given = cast("Object", admitted(pod, the_lane()))
    assert given["spec"]["activeDeadlineSeconds"] == 60


def test_another_label_of_ours_beside_it_makes_it_no_lanes_pod() -> None:
    pod = notebook()
    assert lane_of(pod) == "notebooks"
    pod["metadata"]["labels"]["trainseal.dev/job"] = "x"
    assert lane_of(pod) is None


def test_every_container_has_its_image_by_place() -> None:
    pod = notebook()
    pod["spec"]["initContainers"] = [{"image": "a"}]
    assert images(pod) == {
        "/spec/initContainers/0/image": "a",
        "/spec/containers/0/image": world.IMAGE,
    }
