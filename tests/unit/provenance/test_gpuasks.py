"""Every way to ask for a GPU is seen, by its words; what only looks like one is not."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from trainseal.provenance.gpuasks import GpuRules, asked, held, resources_of

Object = dict[str, Any]
RULES = GpuRules(lambda r: r.startswith("nvidia.com/"), frozenset({"nvidia"}))
GPU = {"nvidia.com/gpu": "1"}


def pod(**spec: Any) -> Object:
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "main"}], **spec}}


def variable(value: str | None = None, **rest: Any) -> Object:
    """A pod with the variable in its container."""
    entry = {
        "name": "NVIDIA_VISIBLE_DEVICES",
        **({} if value is None else {"value": value}),
        **rest,
    }
    return pod(containers=[{"name": "main", "env": [{"name": "A", "value": "all"}, entry]}])


FROM_ELSEWHERE = {"configMapKeyRef": {"name": "mine", "key": "devices"}}
ASKING: dict[str, tuple[Object, str]] = {
    "a limit": (
        pod(containers=[{"name": "main", "resources": {"limits": GPU}}]),
        "asks for nvidia.com/gpu",
    ),
    "a request of an init container": (
        pod(initContainers=[{"name": "i", "resources": {"requests": GPU}}]),
        "asks for nvidia.com/gpu",
    ),
    "a debug container": (
        pod(ephemeralContainers=[{"name": "e", "resources": {"limits": GPU}}]),
        "asks for nvidia.com/gpu",
    ),
    "the pod's own resources": (pod(resources={"limits": GPU}), "asks for nvidia.com/gpu"),
    "several, told in order": (
        pod(resources={"limits": {"nvidia.com/mig-1g.5gb": 1, **GPU}, "requests": GPU}),
        "asks for nvidia.com/gpu, nvidia.com/mig-1g.5gb",
    ),
    "a claim": (pod(resourceClaims=[{"name": "gpu"}]), "claims a device"),
    "an annotation for the runtime": (
        pod() | {"metadata": {"annotations": {"cdi.k8s.io/mine": "nvidia.com/gpu=all"}}},
        "asks for devices by the annotation cdi.k8s.io/mine",
    ),
    "a runtime class": (pod(runtimeClassName="nvidia"), "gets devices by RuntimeClass nvidia"),
    "the variable": (
        variable("all"), "asks for devices by the variable NVIDIA_VISIBLE_DEVICES"),
    "the variable, by number": (
        variable("0"), "asks for devices by the variable NVIDIA_VISIBLE_DEVICES"),
    "the variable from elsewhere": (
        variable(valueFrom=FROM_ELSEWHERE),
        "asks for devices by the variable NVIDIA_VISIBLE_DEVICES"),
}  # fmt: skip


@pytest.mark.parametrize("way", ASKING)
def test_every_way_to_ask_is_told_in_words(way: str) -> None:
    asking, words = ASKING[way]
    assert asked(asking, RULES) == words


@pytest.mark.parametrize("way", ASKING)
def test_what_a_pod_had_before_is_not_asked_for_anew(way: str) -> None:
    asking, words = ASKING[way]
    assert asked(asking, RULES, copy.deepcopy(asking)) == ""
    assert asked(asking, RULES, pod()) == words
    assert asked(pod(), RULES, asking) == ""


@pytest.mark.parametrize(
    "twin",
    [
        pod(),
        {},
        pod(containers=[{"name": "main", "resources": {"limits": {"example.com/fpga": 1}}}]),
        pod(runtimeClassName="gvisor"),
        *(variable(value) for value in ("void", "none", "", None)),
        pod(containers=[{"name": "main", "env": [{"name": "CUDA_VISIBLE_DEVICES", "value": "0"}]}]),
        pod() | {"metadata": {"annotations": {"team.example/cdi.k8s.io": "all"}}},
    ],
)
def test_what_asks_for_none_is_not_told_of(twin: Object) -> None:
    assert asked(twin, RULES) == ""


def test_another_value_of_an_annotation_asks_anew() -> None:
    one = pod() | {"metadata": {"annotations": {"cdi.k8s.io/mine": "vendor.example/nic=1"}}}
    other = pod() | {"metadata": {"annotations": {"cdi.k8s.io/mine": "nvidia.com/gpu=all"}}}
    assert "cdi.k8s.io/mine" in asked(other, RULES, one)


def test_a_debug_container_with_the_variable_asks_though_another_had_it() -> None:
    before = variable("all")
    joined = copy.deepcopy(before)
    env = copy.deepcopy(before["spec"]["containers"][0]["env"])
    joined["spec"]["ephemeralContainers"] = [{"name": "debug", "env": env}]
    assert "NVIDIA_VISIBLE_DEVICES" in asked(joined, RULES, before)


def test_resources_are_those_of_every_holder() -> None:
    spec: Object = {
        "resources": {"limits": {"a": 1}},
        "containers": [{"resources": {"requests": {"b": 1}, "limits": {"c": 1}}}],
        "initContainers": [{"resources": {"limits": {"d": 1}}}, "malformed"],
        "ephemeralContainers": None,
    }
    assert sorted(resources_of(spec)) == ["a", "b", "c", "d"]


def containers(*amounts: Any, **rest: Any) -> list[Object]:
    return [
        {"name": f"c{i}", "resources": {"limits": {"nvidia.com/gpu": a, "cpu": "4"}}, **rest}
        for i, a in enumerate(amounts)
    ]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"containers": containers("8")}, 8),
        ({"containers": containers("1", 2)}, 3),
        ({"containers": containers("1"), "initContainers": containers("4", "2")}, 4),
        ({"containers": containers("4"), "initContainers": containers("2")}, 4),
        (
            {
                "containers": containers("4"),
                "initContainers": containers("2", restartPolicy="Always"),
            },
            6,
        ),
        ({"containers": containers("1"), "resourceClaims": [{"name": "a"}, {"name": "b"}]}, 3),
        ({"containers": containers("8k")}, 1),
        ({"containers": containers("0")}, 0),
        ({"runtimeClassName": "nvidia"}, 1),
        ({}, 0),
    ],
)
def test_a_pod_holds_what_a_scheduler_would_count(spec: Object, expected: int) -> None:
    assert held(pod(**spec), RULES) == expected
