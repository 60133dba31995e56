"""Pods in lanes before a real API server: what the floor lets pass by itself, and what is asked.

The webhook's configurations are taken away, as in test_floor: what passes here passes without them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.chart.conftest import ApiServer, Object
from tests.integration.chart.floored import DEV, floored
from tests.integration.chart.test_floor import (
    JOB_CONTROLLER,
    REPLICA_SETS,
    answer,
    gpu,
    job,
    patch,
    pod,
)
from tests.unit import world as unit_world
from trainseal.controller.floor import entries
from trainseal.provenance.policies import CompiledPolicy

TEAM = "lanes-team"
AUDITED = "lanes-audited"
LABEL = "trainseal.dev/lane"
IMAGE = "registry.example/notebooks/jupyter@sha256:" + "1" * 64
STATEFUL_SETS = "--as=system:serviceaccount:kube-system:statefulset-controller"


def _lane(name: str) -> Object:
    return unit_world.lane(
        name=name, namespaces=["lanes-t*"], maxPods=1, maxGPUs=1, maxDurationSeconds=60
    )


@pytest.fixture(scope="module")
def world(server: ApiServer, helm: Path) -> Iterator[ApiServer]:
    """The chart without its webhooks; a team with a lane, and another whose policy only audits."""
    makers = [who.removeprefix("--as=") for who in (JOB_CONTROLLER, REPLICA_SETS, STATEFUL_SETS)]
    with floored(server, helm, (TEAM, AUDITED), makers, entries(_policies(), ())):
        server.until_refused(pod("probe", TEAM, **gpu()), "trainseal", DEV)
        server.until_accepted(notebook(), DEV)
        yield server


def _policies() -> tuple[CompiledPolicy, ...]:
    allow = {"allow": ["registry.example/notebooks/**"]}
    return (
        unit_world.policy(
            "notebooks",
            namespaces={"include": [TEAM]},
            lanes=[_lane("nb"), _lane("half-open")],
            registries=allow,
        ),
        unit_world.policy("all", namespaces={"include": ["lanes-*"]}, mode="Audit"),
        # Opens one of the two.
        unit_world.policy(
            "strict", namespaces={"include": [TEAM]}, lanes=[_lane("nb")], registries=allow
        ),
    )


def notebook(namespace: str = TEAM, lane: str = "nb") -> Object:
    made = pod("notebook", namespace, **gpu())
    made["metadata"]["labels"][LABEL] = lane
    made["spec"]["containers"][0]["image"] = IMAGE
    return made


def owned(kind: str) -> Object:
    made = notebook()
    owner = {"apiVersion": "apps/v1", "kind": kind, "name": "nb", "uid": "1", "controller": True}
    made["metadata"]["ownerReferences"] = [owner]
    return made


def test_pods_that_bear_an_open_lanes_label_pass_whoever_makes_them(world: ApiServer) -> None:
    assert not answer(world, notebook())
    assert not answer(world, owned("StatefulSet"), STATEFUL_SETS)
    assert not answer(world, owned("ReplicaSet"), REPLICA_SETS)


def _without_the_label(p: Object) -> None:
    del p["metadata"]["labels"][LABEL]


def _with_another_label_of_ours(p: Object) -> None:
    p["metadata"]["labels"]["trainseal.dev/seal"] = "char-lm-1"


def _with_the_label_of_a_jobs_pods(p: Object) -> None:
    p["metadata"]["labels"]["batch.kubernetes.io/controller-uid"] = "1"


def _in_a_lane_that_one_policy_does_not_open(p: Object) -> None:
    p["metadata"]["labels"][LABEL] = "half-open"


def _in_a_lane_that_nobody_opens(p: Object) -> None:
    p["metadata"]["labels"][LABEL] = "other"


def _in_a_lane_by_half_its_name(p: Object) -> None:
    p["metadata"]["labels"][LABEL] = "n"


def _with_an_image_by_tag(p: Object) -> None:
    p["spec"]["containers"][0]["image"] = "registry.example/notebooks/jupyter:1"


def _with_an_image_of_another_repository(p: Object) -> None:
    image = IMAGE.replace("notebooks", "elsewhere")
    p["spec"]["initContainers"] = [{"name": "init", "image": image}]


def _with_devices_by_an_annotation(p: Object) -> None:
    p["metadata"]["annotations"] = {"cdi.k8s.io/mine": "nvidia.com/gpu=all"}


def _of_a_job(p: Object) -> None:
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": "x", "uid": "1", "controller": True}
    p["metadata"]["ownerReferences"] = [owner]


BENT = [v for name, v in sorted(globals().items()) if name.startswith(("_with", "_in_", "_of_"))]


@pytest.mark.parametrize("bend", BENT, ids=lambda function: function.__name__.strip("_"))
def test_what_is_no_lanes_pod_does_not_pass(world: ApiServer, bend: Callable[[Any], None]) -> None:
    made = notebook()
    bend(made)
    for who in (DEV, JOB_CONTROLLER):
        assert "is not part of a sealed run" in answer(world, made, who)


def test_where_policies_only_audit_no_lane_is_open(world: ApiServer) -> None:
    assert "bears a label of TrainSeal's" in answer(world, notebook(AUDITED))
    assert not answer(world, pod("gpu", AUDITED, **gpu()))


def test_a_job_for_gpus_is_refused_with_the_label_and_without(world: ApiServer) -> None:
    made = job("trains", TEAM, **gpu())
    assert "is not part of a sealed run" in answer(world, made)
    made["spec"]["template"]["metadata"]["labels"][LABEL] = "nb"
    assert "bears a label of TrainSeal's" in answer(world, made)


def test_nobody_moves_a_pod_into_a_lane_or_out_of_it(world: ApiServer) -> None:
    living = notebook()
    world.create(living, DEV)
    plain = pod("plain", TEAM)
    world.create(plain, DEV)
    try:
        for found, value in ((living, None), (living, "other"), (plain, "nb")):
            said = patch(world, found, {"metadata": {"labels": {LABEL: value}}}, DEV)
            assert "found a change of its labels trainseal.dev/* by dev@example.org" in said
        assert not patch(world, living, {"metadata": {"labels": {"team": "nlp"}}}, DEV)
    finally:
        world.delete(living)
        world.delete(plain)
