"""A pod that runs against its seal: what admission found equal stays equal, and no more."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit import world
from tests.unit.platforms import vault
from trainseal.provenance.additions import Additions
from trainseal.provenance.livepods import (
    debug_containers,
    image_differences,
    known_images,
    live_differences,
    odd_ranks,
    unlike_sealed,
)
from trainseal.provenance.podmatch import ExpectedPod, compare_pod, prepare
from trainseal.provenance.resizes import Size

Object = dict[str, Any]
SEALED = world.sealed_world()
EXPECTED: ExpectedPod = prepare("char-lm-worker", world.OBJECT_UID, 2, SEALED.template)
IMAGES = known_images(SEALED.seal["spec"])
(IMAGE,) = SEALED.seal["spec"]["images"]
PLATFORM = IMAGE["platforms"][0]


def running(index: int = 0, digest: str = PLATFORM["config"]) -> Object:
    """A pod as it is once the scheduler, a CNI plugin and the kubelet have written to it."""
    pod = SEALED.pod(index)
    pod["metadata"] |= {"name": f"char-lm-worker-{index}-x7kq2", "uid": f"pod-{index}"}
    pod["metadata"]["annotations"] |= {
        "cni.projectcalico.org/podIP": "10.0.0.7/32",
        "k8s.v1.cni.cncf.io/network-status": "[]",
    }
    pod["metadata"]["labels"]["seen-by"] = "eve"
    pod["spec"]["nodeName"] = "node-1"
    pod["status"] = {
        "phase": "Running",
        "containerStatuses": [
            {"name": "trainer", "imageID": f"registry.example/research/pytorch@{digest}"}
        ],
        "initContainerStatuses": [
            {"name": "trainseal-gate", "imageID": f"registry.example/x@sha256:{'5' * 64}"}
        ],
    }
    return pod


def paths(pod: Object) -> list[str]:
    return [d.path for d in live_differences(EXPECTED, pod, Additions())]


@pytest.mark.parametrize("index", [0, 1])
def test_a_pod_that_was_admitted_and_runs_has_no_difference(index: int) -> None:
    assert paths(running(index)) == []
    assert image_differences(running(index), IMAGES) == ()
    assert debug_containers(running(index)) == ()


def trainer(pod: Object) -> Object:
    found: Object = pod["spec"]["containers"][0]
    return found


CHANGES: dict[str, tuple[Callable[[Object], object], str]] = {
    "image patched in place": (
        lambda p: trainer(p).update(image="registry.example/evil@sha256:" + "e" * 64),
        "spec.containers[0].image",
    ),
    "a variable that loads code": (
        lambda p: trainer(p)["env"].append({"name": "LD_PRELOAD", "value": "/tmp/x.so"}),
        "spec.containers[0].env[LD_PRELOAD]",
    ),
    "a deadline that ends it soon": (
        lambda p: p["spec"].update(activeDeadlineSeconds=1),
        "spec.activeDeadlineSeconds",
    ),
    "a container beside the trainer": (
        lambda p: p["spec"]["containers"].append({"name": "x", "image": "x"}),
        "spec.containers[x]",
    ),
    "its label of the run": (
        lambda p: p["metadata"]["labels"].update({"trainseal.dev/seal": "other"}),
        "metadata.labels[trainseal.dev/seal]",
    ),
    "no owner": (lambda p: p["metadata"].pop("ownerReferences"), "metadata.ownerReferences"),
    "a device by annotation": (
        lambda p: p["metadata"]["annotations"].update({"cdi.k8s.io/x": "nvidia.com/gpu=all"}),
        "metadata.annotations[cdi.k8s.io/x]",
    ),
}


@pytest.mark.parametrize("what", CHANGES)
def test_what_got_past_the_webhook_is_a_difference(what: str) -> None:
    change, path = CHANGES[what]
    pod = running()
    change(pod)
    assert path in paths(pod)


@given(st.sampled_from(sorted(CHANGES)))
def test_every_difference_of_the_spec_that_admission_finds_is_found_live(what: str) -> None:
    pod = SEALED.pod()
    CHANGES[what][0](pod)
    found = {d.path for d in compare_pod(EXPECTED, pod, Additions())}
    assert {p for p in found if p.startswith("spec.")} <= set(paths(pod))


@pytest.mark.parametrize("signed", [True, False], ids=["signed", "from before the rule"])
def test_an_annotation_that_a_variable_is_read_from_counts_and_no_other(signed: bool) -> None:
    template = copy.deepcopy(SEALED.template)
    path = "metadata.annotations['example.org/flavor']"
    entry = {"name": "F", "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": path}}}
    template["spec"]["containers"][0]["env"].append(entry)
    if signed:
        template["metadata"]["annotations"] = {"example.org/flavor": "small"}
    expected = prepare("char-lm-worker", world.OBJECT_UID, 2, template)
    pod = running()
    trainer(pod)["env"].insert(-1, entry)
    if signed:
        pod["metadata"]["annotations"]["example.org/flavor"] = "small"
    pod["metadata"]["annotations"]["example.org/note"] = "mine"
    assert live_differences(expected, pod, Additions()) == ()
    pod["metadata"]["annotations"]["example.org/flavor"] = "/ckpt/evil.so"
    (found,) = live_differences(expected, pod, Additions())
    assert found.path == "metadata.annotations[example.org/flavor]"


def larger(pod: Object) -> Object:
    """More processor and memory for the trainer."""
    trainer(pod)["resources"]["requests"] |= {"cpu": "4", "memory": "8Gi"}
    trainer(pod)["resources"]["limits"]["memory"] = "8Gi"
    return pod


def test_a_resize_is_a_difference_but_for_just_what_was_let() -> None:
    pod = larger(running())
    parts = ("limits[memory]", "requests[cpu]", "requests[memory]")
    assert paths(pod) == [f"spec.containers[0].resources.{part}" for part in parts]
    let = unlike_sealed(EXPECTED, pod)
    assert live_differences(EXPECTED, pod, Additions(), let) == ()
    # Nothing else is let by it: no other amount, not of another container, and nothing beside.
    trainer(pod)["resources"]["requests"]["cpu"] = "5"
    assert "spec.containers[0].resources.requests[cpu]" in [
        d.path for d in live_differences(EXPECTED, pod, Additions(), let)
    ]
    pod = larger(running())
    trainer(pod)["resources"]["limits"]["nvidia.com/gpu"] = "8"
    trainer(pod)["image"] = "x"
    assert [d.path for d in live_differences(EXPECTED, pod, Additions(), let)] == [
        "spec.containers[0].image",
        "spec.containers[0].resources.limits[nvidia.com/gpu]",
        "spec.containers[0].resources.requests[nvidia.com/gpu]",
    ]


def test_amounts_as_sealed_are_in_no_question() -> None:
    assert unlike_sealed(EXPECTED, running()) == frozenset()
    (size,) = unlike_sealed(EXPECTED, larger(running()))
    assert size == Size.of("trainer", trainer(larger(running()))["resources"])


@given(st.sampled_from(sorted(CHANGES)))
def test_what_was_let_be_resized_hides_nothing_else(what: str) -> None:
    pod = larger(running())
    let = unlike_sealed(EXPECTED, pod)
    change, path = CHANGES[what]
    change(pod)
    assert path in [d.path for d in live_differences(EXPECTED, pod, Additions(), let)]


def test_a_debug_container_is_named() -> None:
    pod = running()
    pod["spec"]["ephemeralContainers"] = [{"name": "debugger", "image": "busybox"}]
    assert paths(pod) == []
    assert debug_containers(pod) == ("debugger (busybox)",)


@pytest.mark.parametrize("digest", [IMAGE["digest"], PLATFORM["manifest"], PLATFORM["config"]])
@pytest.mark.parametrize("form", ["{}", "docker-pullable://registry.example/x@{}", "docker://{}"])
def test_an_image_is_known_by_each_of_its_digests(digest: str, form: str) -> None:
    pod = running()
    pod["status"]["containerStatuses"][0]["imageID"] = form.format(digest)
    assert image_differences(pod, IMAGES) == ()


def test_an_image_by_another_digest_is_named_with_the_sealed_ones() -> None:
    (found,) = image_differences(running(digest="sha256:" + "e" * 64), IMAGES)
    assert (found.path, found.found) == ("status.trainer.imageID", "sha256:" + "e" * 64)
    assert IMAGE["digest"] in found.sealed


def test_a_container_that_waits_for_its_image_has_none_yet() -> None:
    pod = running()
    pod["status"]["containerStatuses"][0]["imageID"] = ""
    assert image_differences(pod, IMAGES) == ()


def ranks(count: int) -> list[Object]:
    pods = []
    for index in range(count):
        pod = running(0)
        pod["metadata"]["annotations"]["batch.kubernetes.io/job-completion-index"] = str(index)
        pods.append(pod)
    return pods


def test_ranks_that_are_alike_are_not_odd() -> None:
    assert odd_ranks(ranks(4), IMAGES) == ()
    assert odd_ranks([], IMAGES) == ()
    assert odd_ranks(ranks(1), IMAGES) == ()


@given(st.integers(2, 12), st.data())
def test_the_one_that_differs_is_found_wherever_it_stands(count: int, data: st.DataObject) -> None:
    pods = ranks(count)
    odd = (
        data.draw(st.integers(1, count - 1)) if count == 2 else data.draw(st.integers(0, count - 1))
    )
    trainer(pods[odd])["env"].append({"name": "NCCL_DEBUG", "value": "INFO"})
    (found,) = odd_ranks(data.draw(st.permutations(pods)), IMAGES)
    assert found.index == str(odd)
    assert "NCCL_DEBUG" in found.words


def test_a_rank_of_another_size_is_not_odd() -> None:
    pods = ranks(3)
    larger(pods[1])
    assert odd_ranks(pods, IMAGES) == ()


def test_a_rank_that_runs_the_image_for_another_platform_is_odd() -> None:
    arm = {
        "platform": "linux/arm64",
        "manifest": "sha256:" + "d" * 64,
        "config": "sha256:" + "f" * 64,
    }
    spec = copy.deepcopy(SEALED.seal["spec"])
    spec["images"][0]["platforms"].append(arm)
    pods = ranks(3)
    pods[2]["status"]["containerStatuses"][0]["imageID"] = arm["config"]
    (found,) = odd_ranks(pods, known_images(spec))
    assert found.index == "2"
    assert "linux/arm64" in found.words


def test_a_rank_with_a_container_that_its_peers_have_not_is_odd() -> None:
    pods = ranks(3)
    vault(pods[1])
    (found,) = odd_ranks(pods, IMAGES)
    assert (found.index, found.words) == ("1", "containers: has 'vault-agent'")
