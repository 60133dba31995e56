"""What people try past the gate is on record with their name; nothing is held up for it."""

from __future__ import annotations

import asyncio
import dataclasses
from typing import Any

import pytest

from tests.unit import world
from tests.unit.admission.test_access import ApiServer
from trainseal.admission.pods import PodRulesContext
from trainseal.admission.reviews import ALLOWED, Request
from trainseal.admission.witness import Attempt, Witness, attempt
from trainseal.api.accessrecord import AccessRecord
from trainseal.cluster.api import KubeError

Object = dict[str, Any]
ANN = "ann@example.org"
GPU = {"limits": {"nvidia.com/gpu": "1"}}
RESOURCES = {
    "CronJob": "cronjobs",
    "DaemonSet": "daemonsets",
    "Deployment": "deployments",
    "Job": "jobs",
    "JobSet": "jobsets",
    "Pod": "pods",
    "PyTorchJob": "pytorchjobs",
    "ReplicaSet": "replicasets",
    "ReplicationController": "replicationcontrollers",
    "StatefulSet": "statefulsets",
}


def workload(kind: str, resources: Object | None = None, **metadata: Any) -> Object:
    """An object that makes pods, or is one."""
    spec = {"containers": [{"name": "main", "image": "x", "resources": resources or {}}]}
    made: Object = {"metadata": {"name": "mine", "namespace": "research"} | metadata}
    if kind == "Pod":
        made["spec"] = spec
    elif kind == "CronJob":
        made["spec"] = {"jobTemplate": {"spec": {"template": {"spec": spec}}}}
    elif kind == "JobSet":
        harmless = {"containers": [{"name": "main", "image": "x"}]}
        made["spec"] = {
            "replicatedJobs": [
                {"name": name, "template": {"spec": {"template": {"spec": pod}}}}
                for name, pod in (("driver", harmless), ("worker", spec))
            ]
        }
    elif kind == "PyTorchJob":
        harmless = {"containers": [{"name": "pytorch", "image": "x"}]}
        replicas = {"Master": harmless, "Worker": spec}
        made["spec"] = {
            "pytorchReplicaSpecs": {k: {"template": {"spec": v}} for k, v in replicas.items()}
        }
    else:
        made["spec"] = {"template": {"spec": spec}, "replicas": 1}
    return made


def made_by_ann(kind: str, obj: Object, old: Object | None = None) -> Request:
    asked = world.request(obj, old, user=ANN, resource=RESOURCES[kind])
    return dataclasses.replace(asked, user={"groups": ["team"]})


@pytest.fixture(scope="module")
def sealed() -> world.World:
    return world.sealed_world()


@pytest.fixture
def context(sealed: world.World) -> PodRulesContext:
    return sealed.context()


def seen(context: PodRulesContext, request: Request) -> Attempt:
    found = attempt(request, context)
    assert found is not None
    return found


@pytest.mark.parametrize("kind", RESOURCES)
def test_whoever_asks_for_a_gpu_past_the_gate_is_seen(context: PodRulesContext, kind: str) -> None:
    found = seen(context, made_by_ann(kind, workload(kind, GPU)))
    assert (found.kind, found.name, found.action) == (kind, "mine", "Create")
    assert not found.allowed
    assert "asks for nvidia.com/gpu and is not part of a sealed run" in found.message


@pytest.mark.parametrize("kind", RESOURCES)
def test_whoever_asks_for_none_is_not(context: PodRulesContext, kind: str) -> None:
    assert attempt(made_by_ann(kind, workload(kind)), context) is None


def test_in_a_namespace_that_only_audits_it_is_seen_as_let_in(context: PodRulesContext) -> None:
    audits = (world.policy(mode="Audit"),)
    lenient = dataclasses.replace(context, policies=lambda _: audits)
    found = seen(lenient, made_by_ann("Pod", workload("Pod", GPU)))
    assert found.allowed
    assert "would be denied under Enforce" in found.message


def test_a_workload_that_comes_to_ask_for_a_gpu_is_seen_and_one_that_is_scaled_is_not(
    context: PodRulesContext,
) -> None:
    before, after = workload("Deployment"), workload("Deployment", GPU)
    gained = seen(context, made_by_ann("Deployment", after, before))
    assert (gained.action, gained.allowed) == ("Change", False)
    scaled = workload("Deployment", GPU)
    scaled["spec"]["replicas"] = 3
    assert attempt(made_by_ann("Deployment", scaled, after), context) is None
    # One that asked before is let be changed: its pods are refused.
    other = workload("Deployment", {"limits": {"nvidia.com/gpu": "8"}})
    assert seen(context, made_by_ann("Deployment", other, after)).allowed


def test_a_change_of_a_sealed_pod_is_seen_with_its_run(
    sealed: world.World, context: PodRulesContext
) -> None:
    changed = sealed.pod()
    changed["spec"]["containers"][0]["image"] = "busybox"
    found = seen(context, made_by_ann("Pod", changed, sealed.pod()))
    assert (found.action, found.allowed) == ("Change", False)
    assert found.seal == sealed.seal["metadata"]["name"]
    noted = sealed.pod()
    noted["metadata"].setdefault("annotations", {})["note"] = "harmless"
    assert attempt(made_by_ann("Pod", noted, sealed.pod()), context) is None


def test_a_pod_with_copied_labels_is_seen(sealed: world.World, context: PodRulesContext) -> None:
    copied = workload("Pod", labels=sealed.pod()["metadata"]["labels"])
    assert "bears a label of TrainSeal's" in seen(context, made_by_ann("Pod", copied)).message


def test_dry_runs_and_excluded_namespaces_are_left_alone(context: PodRulesContext) -> None:
    asked = made_by_ann("Pod", workload("Pod", GPU))
    assert attempt(dataclasses.replace(asked, dry_run=True), context) is None
    assert attempt(dataclasses.replace(asked, namespace="kube-system"), context) is None


def test_a_generated_name_is_told_as_far_as_it_goes(context: PodRulesContext) -> None:
    nameless = workload("Pod", GPU)
    nameless["metadata"] = {"generateName": "mine-", "namespace": "research"}
    assert seen(context, made_by_ann("Pod", nameless)).name == "mine"
    nameless["metadata"] = {"namespace": "research"}
    assert seen(context, made_by_ann("Pod", nameless)).name == "unnamed"


# On record --------------------------------------------------------------------------------------


@pytest.fixture
def kube() -> ApiServer:
    return ApiServer({})


@pytest.fixture
def witness(kube: ApiServer, context: PodRulesContext) -> Witness:
    return Witness(kube, context, lambda: world.NOW, lambda: 0.0)  # type: ignore[arg-type]


def test_the_attempt_is_on_record_with_who_made_it(witness: Witness, kube: ApiServer) -> None:
    asked = made_by_ann("Pod", workload("Pod", GPU))
    assert world.run(witness.answer(asked)) == ALLOWED
    (made,) = kube.created
    spec = AccessRecord.parse(made).spec
    assert spec.wire() == made["spec"]
    assert (spec.username, spec.groups, spec.allowed) == (ANN, ["team"], False)
    assert (spec.action, spec.sealed_run, spec.pod) == ("Create", None, None)
    assert spec.object is not None
    assert (spec.object.kind, spec.object.name) == ("Pod", "mine")
    assert made["metadata"]["namespace"] == "research"


def test_the_same_again_within_ten_minutes_is_one_record(witness: Witness, kube: ApiServer) -> None:
    for uid in ("1", "2"):
        asked = dataclasses.replace(made_by_ann("Pod", workload("Pod", GPU)), uid=uid)
        assert world.run(witness.answer(asked)) == ALLOWED
    assert len(kube.created) == 1
    other = made_by_ann("Pod", workload("Pod", GPU, name="another"))
    world.run(witness.answer(other))
    assert len(kube.created) == 2


def test_who_makes_too_many_is_held_up_by_nothing_and_recorded_no_more(
    witness: Witness, kube: ApiServer
) -> None:
    for number in range(40):
        asked = made_by_ann("Pod", workload("Pod", GPU, name=f"mine-{number}"))
        assert world.run(witness.answer(asked)) == ALLOWED
    assert len(kube.created) == 30


@pytest.mark.parametrize("failure", [KubeError(403, "Forbidden", "no"), TimeoutError()])
def test_what_cannot_be_recorded_is_held_up_by_nothing(
    witness: Witness, kube: ApiServer, failure: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    kube.write_fails = failure
    asked = made_by_ann("Pod", workload("Pod", GPU))
    assert world.run(witness.answer(asked)) == ALLOWED
    kube.write_fails = None
    kube.before = asyncio.Event().wait
    monkeypatch.setattr("trainseal.admission.witness._CALL_SECONDS", 0.01)
    assert world.run(witness.answer(asked)) == ALLOWED
