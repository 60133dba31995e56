"""What makes pods for GPUs is refused by the API server itself, as whoever makes it hears; what was
there before is scaled, rolled back and deleted. And ways to a GPU by the runtime.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.chart.conftest import CONTROLLER, ApiServer, Object
from tests.integration.chart.floored import DEV, floored
from tests.integration.chart.test_floor import QUEUE, SEAL, answer, gpu, patch
from tests.integration.chart.test_floor import job as floor_job
from tests.integration.chart.test_floor import pod as floor_pod

TEAM, AUDITED = "workloads-team", "workloads-audited"
TOLD = {"team": "Enforce\n^(workloads-t.*)$\n^()$", "all": "Audit\n^(.*)$\n^(nowhere)$"}
KINDS = (
    "CronJob",
    "DaemonSet",
    "Deployment",
    "ReplicaSet",
    "ReplicationController",
    "StatefulSet",
)
_VERSIONS = {"CronJob": "batch/v1", "ReplicationController": "v1"}
ALL: dict[str, Any] = {"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "all"}]}


@pytest.fixture(scope="module")
def world(server: ApiServer, helm: Path) -> Iterator[ApiServer]:
    """The floor, with a queue and a RuntimeClass; an enforced team and an audited one."""
    values = (f"floor.jobParents={{{QUEUE}}}", "gpuRuntimeClasses={nvidia}")
    classes: list[Object] = [
        {
            "apiVersion": "node.k8s.io/v1",
            "kind": "RuntimeClass",
            "handler": name,
            "metadata": {"name": name},
        }
        for name in ("nvidia", "gvisor")
    ]
    with floored(server, helm, (TEAM, AUDITED), [QUEUE], TOLD, *values):
        for made in classes:
            server.create(made)
        try:
            server.until_refused(workload("Deployment", "probe", **gpu()), "has pods", DEV)
            server.until_accepted(workload("Deployment", "probe", AUDITED, **gpu()), DEV)
            yield server
        finally:
            for made in classes:
                server.delete(made)


def pod(name: str, namespace: str = TEAM, **container: Any) -> Object:
    return floor_pod(name, namespace, **container)


def job(name: str, namespace: str = TEAM, **container: Any) -> Object:
    return floor_job(name, namespace, **container)


def template_of(made: Object) -> Object:
    spec = made["spec"]
    if made["kind"] == "CronJob":
        spec = spec["jobTemplate"]["spec"]
    found: Object = spec["template"]
    return found


def workload(kind: str, name: str, namespace: str = TEAM, **container: Any) -> Object:
    """An object of the kind; the keywords go into the container of its pods."""
    labels = {"app": name}
    spec = pod("x", **container)["spec"]
    if kind != "CronJob":
        del spec["restartPolicy"]
    template: Object = {"metadata": {"labels": labels}, "spec": spec}
    body: Object = {"template": template, "replicas": 2}
    if kind == "CronJob":
        body = {"schedule": "0 0 * * *", "jobTemplate": {"spec": {"template": template}}}
    elif kind == "ReplicationController":
        body["selector"] = labels
    else:
        body["selector"] = {"matchLabels": labels}
    if kind == "DaemonSet":
        del body["replicas"]
    return {
        "apiVersion": _VERSIONS.get(kind, "apps/v1"),
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": body,
    }


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_makes_what_makes_gpu_pods_hears_it_at_once(world: ApiServer, kind: str) -> None:
    said = answer(world, workload(kind, "trainer", **gpu()))
    assert "ValidatingAdmissionPolicy 'trainseal-workloads'" in said
    assert f"{kind} {TEAM}/trainer has pods that ask for GPUs and are not part of a sealed" in said
    assert f"found creator dev@example.org, expected {CONTROLLER}; what is to be trained" in said
    # Its twins: without a GPU; where all policies audit; a queue's own; in an excluded namespace.
    assert not answer(world, workload(kind, "web"))
    assert not answer(world, workload(kind, "audited", AUDITED, **gpu()))
    assert not answer(world, workload(kind, "queued", **gpu()), f"--as={QUEUE}")
    admin = ("--as=admin", "--as-group=system:masters")
    assert not answer(world, workload(kind, "plugin", "kube-system", **gpu()), *admin)


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_did_not_ask_does_not_come_to(world: ApiServer, kind: str) -> None:
    made = workload(kind, "web")
    world.create(made, DEV)
    try:
        change = copy.deepcopy(world.get(made))
        template_of(change)["spec"]["containers"][0] |= gpu()
        said = patch(world, made, {"spec": change["spec"]}, DEV)
        assert "has pods that ask for GPUs" in said
        assert "found a change by dev@example.org" in said
        assert not patch(world, made, {"metadata": {"labels": {"team": "a"}}}, DEV)
    finally:
        world.delete(made)


@pytest.mark.parametrize("kind", KINDS)
def test_one_that_was_there_before_is_scaled_down_changed_and_deleted(
    world: ApiServer, kind: str
) -> None:
    """Its pods are refused all the same."""
    made = workload(kind, "before", **gpu())
    world.create(made, f"--as={QUEUE}")
    try:
        if kind == "CronJob":
            assert not patch(world, made, {"spec": {"suspend": True}}, DEV)
        elif kind != "DaemonSet":
            assert not patch(world, made, {"spec": {"replicas": 0}}, DEV)
            scale = ("scale", kind.lower(), "before", "-n", TEAM, "--replicas=1", DEV)
            assert "scaled" in world.kubectl(*scale)
        change = copy.deepcopy(world.get(made))
        template_of(change)["spec"]["containers"][0]["image"] = "registry.example/older"
        assert not patch(world, made, {"spec": change["spec"]}, DEV)
        world.kubectl("delete", kind.lower(), "before", "-n", TEAM, "--dry-run=server", DEV)
    finally:
        world.delete(made)


def test_pods_with_a_label_of_ours_are_asked_for_by_our_controller_alone(world: ApiServer) -> None:
    for namespace in (TEAM, AUDITED):
        made = workload("Deployment", "forged", namespace)
        template_of(made)["metadata"]["labels"] |= SEAL
        assert "bear a label of TrainSeal's" in answer(world, made)


# By the runtime -----------------------------------------------------------------------------------


def _asking(way: str) -> tuple[Object, Object]:
    """What goes into the spec, and into the container."""
    from_elsewhere = {"configMapKeyRef": {"name": "mine", "key": "k"}}
    ways: dict[str, tuple[Object, Object]] = {
        "variable": ({}, ALL),
        "variable from elsewhere": (
            {},
            {"env": [{"name": "NVIDIA_VISIBLE_DEVICES", "valueFrom": from_elsewhere}]},
        ),
        "runtime class": ({"runtimeClassName": "nvidia"}, {}),
    }
    return ways[way]


@pytest.mark.parametrize("way", ["variable", "variable from elsewhere", "runtime class"])
def test_a_gpu_that_the_runtime_gives_is_asked_for(world: ApiServer, way: str) -> None:
    spec, container = _asking(way)
    bare = pod("bare", **container)
    bare["spec"] |= spec
    assert "by a request, a RuntimeClass or a variable NVIDIA_VISIBLE_DEVICES" in answer(
        world, bare
    )
    asking = job("asking", **container)
    asking["spec"]["template"]["spec"] |= spec
    assert "asks for GPUs" in answer(world, asking)
    made = workload("StatefulSet", "asking", **container)
    template_of(made)["spec"] |= spec
    assert "has pods that ask for GPUs" in answer(world, made)


@pytest.mark.parametrize("value", ["void", "none", ""])
def test_a_variable_that_gives_none_asks_for_none(world: ApiServer, value: str) -> None:
    env = [{"name": "NVIDIA_VISIBLE_DEVICES", "value": value}, {"name": "A", "value": "all"}]
    assert not answer(world, pod("void", env=env))
    assert not answer(world, workload("StatefulSet", "void", env=env))


def test_another_runtime_class_asks_for_none(world: ApiServer) -> None:
    other = pod("other")
    other["spec"]["runtimeClassName"] = "gvisor"
    assert not answer(world, other)


def _large(made: Object) -> Object:
    """With a hundred containers of a hundred variables each, and many resources."""
    amounts = {f"vendor-{n}.example/device-{n}": "1" for n in range(20)} | {"cpu": "1"}
    env = [{"name": f"VARIABLE_{n}", "value": "a value of some length"} for n in range(100)]
    template = made if made["kind"] == "Pod" else template_of(made)
    template["spec"]["containers"] = [
        {
            "name": f"c{n}",
            "image": "x",
            "env": env,
            "resources": {"limits": amounts, "requests": amounts},
        }
        for n in range(100)
    ]
    return made


@pytest.mark.parametrize("kind", ["Pod", "Job", *KINDS])
def test_the_largest_one_stays_within_the_cost_of_an_expression(
    world: ApiServer, kind: str
) -> None:
    made = {"Pod": pod, "Job": job}.get(kind, lambda name: workload(kind, name))("large")
    large = _large(made)
    assert not answer(world, large)
    template = large if kind == "Pod" else template_of(large)
    template["spec"]["containers"][-1]["env"] = ALL["env"]
    assert "not part of a sealed run" in answer(world, large)


def test_a_large_one_is_still_changed(world: ApiServer) -> None:
    large = _large(workload("Deployment", "large"))
    world.create(large, DEV)
    try:
        assert not patch(world, large, {"spec": {"replicas": 0}}, DEV)
    finally:
        world.delete(large)
