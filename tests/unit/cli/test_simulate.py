"""`trainseal simulate`: what would be refused of what exists, and why."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit import world
from tests.unit.cli.conftest import Run
from tests.unit.cli.fake_kube import FakeKube, connecting_to
from trainseal.cluster import api
from trainseal.cluster.api import KubeError

Object = dict[str, Any]
GPU = {"limits": {"nvidia.com/gpu": "1"}}


def pod_spec(resources: Object | None = None) -> Object:
    return {"containers": [{"name": "main", "image": "x", "resources": resources or {}}]}


def workload(kind: str, name: str, resources: Object | None = None, **metadata: Any) -> Object:
    """Of a kind that makes pods, in the namespace research unless the keywords say another."""
    made: Object = {
        "apiVersion": "v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": "research", **metadata},
    }
    template = {"spec": pod_spec(resources)}
    if kind == "Pod":
        made["spec"] = template["spec"]
    elif kind == "CronJob":
        made["spec"] = {"jobTemplate": {"spec": {"template": template}}}
    else:
        made["spec"] = {"template": template}
    return made


@pytest.fixture
def dump(tmp_path: Path) -> Any:
    """Writes objects as kubectl prints them, and a policy beside them; the arguments for both."""

    def write(*objects: Object, as_list: bool = True, **policy: Any) -> tuple[str, ...]:
        manifests, rules = tmp_path / "dump.yaml", tmp_path / "policy.yaml"
        listed: list[Object] = [{"kind": "List", "items": [*objects]}]
        manifests.write_text(yaml.safe_dump_all(listed if as_list else objects))
        rules.write_text(yaml.safe_dump(world.policy_object(**policy)))
        return "-f", str(manifests), "--policy", str(rules)

    return write


def simulated(trainseal: Run, *arguments: str) -> tuple[int, dict[str, str]]:
    """Exit code, and the answer on each object by its kind and name."""
    answer = trainseal("simulate", *arguments, "--offline", "-o", "json")
    found = json.loads(answer.out)
    return answer.code, {f"{o['kind']} {o['name']}": o["answer"] for o in found["objects"]}


KINDS = (
    "CronJob", "DaemonSet", "Deployment", "Job", "Pod", "ReplicaSet", "ReplicationController",
    "StatefulSet",
)  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("as_list", [True, False])
def test_whatever_makes_pods_for_a_gpu_would_be_refused(
    trainseal: Run, dump: Any, kind: str, as_list: bool
) -> None:
    objects = workload(kind, "gpu", GPU), workload(kind, "cpu")
    code, found = simulated(trainseal, *dump(*objects, as_list=as_list))
    assert code == 1
    assert found == {f"{kind} gpu": "refused", f"{kind} cpu": "passes"}


def test_people_see_why_by_namespace(trainseal: Run, dump: Any) -> None:
    arguments = dump(workload("Deployment", "notebook", GPU), workload("Pod", "web"))
    answer = trainseal("simulate", *arguments, "--offline")
    assert answer.code == 1
    assert "research: 1 passes, 1 refused; policies: research (Enforce)" in answer.out
    assert "Deployment notebook: pod research/notebook asks for nvidia.com/gpu" in answer.out
    assert "1 of 2 objects would be refused" in answer.out
    assert "web" not in answer.out


def test_under_a_policy_that_audits_it_would_be_warned_unless_it_is_to_enforce(
    trainseal: Run, dump: Any
) -> None:
    arguments = dump(workload("Pod", "gpu", GPU), mode="Audit")
    assert simulated(trainseal, *arguments) == (0, {"Pod gpu": "warned"})
    assert simulated(trainseal, *arguments, "--enforce") == (1, {"Pod gpu": "refused"})


def test_a_namespace_without_a_policy_runs_no_gpu_pod(trainseal: Run, dump: Any) -> None:
    arguments = dump(workload("Pod", "gpu", GPU, namespace="other"), mode="Audit")
    assert simulated(trainseal, *arguments) == (1, {"Pod gpu": "refused"})


def test_an_excluded_namespace_is_left_alone(trainseal: Run, dump: Any) -> None:
    arguments = dump(workload("Pod", "gpu", GPU, namespace="kube-system"))
    assert simulated(trainseal, *arguments) == (0, {"Pod gpu": "passes"})


def test_what_a_controller_made_is_judged_once_and_what_is_sealed_is_counted(
    trainseal: Run, dump: Any
) -> None:
    def owned(kind: str, name: str) -> Object:
        return {"ownerReferences": [{"kind": kind, "name": name, "controller": True}]}

    code, found = simulated(
        trainseal,
        *dump(
            workload("Deployment", "web", GPU),
            workload("ReplicaSet", "web-1", GPU, **owned("Deployment", "web")),
            workload("Pod", "web-1-a", GPU, **owned("ReplicaSet", "web-1")),
            workload("StatefulSet", "notebook", GPU, **owned("Notebook", "notebook")),
            workload("Job", "sealed", GPU, labels={"trainseal.dev/seal": "run-1"}),
        ),
    )
    assert code == 1
    assert found == {
        "Deployment web": "refused",
        "StatefulSet notebook": "refused",
        "Job sealed": "sealed",
    }


def test_a_device_by_the_name_of_its_class_counts(trainseal: Run, dump: Any) -> None:
    device = {
        "kind": "DeviceClass",
        "metadata": {"name": "a"},
        "spec": {"extendedResourceName": "accel.example/card"},
    }
    asks = workload("Pod", "accel", {"limits": {"accel.example/card": "1"}})
    assert simulated(trainseal, *dump(asks)) == (0, {"Pod accel": "passes"})
    assert simulated(trainseal, *dump(asks, device)) == (1, {"Pod accel": "refused"})


def test_training_jobs_are_not_judged_offline(trainseal: Run, dump: Any) -> None:
    code, found = simulated(trainseal, *dump(world.signed_job()))
    assert (code, found) == (2, {"TrainingJob char-lm": "undetermined"})


def test_an_unsigned_training_job_would_be_refused_without_asking_a_registry(
    trainseal: Run, dump: Any
) -> None:
    answer = trainseal("simulate", *dump(world.job_object()), "-o", "json")
    (found,) = json.loads(answer.out)["objects"]
    assert (answer.code, found["answer"]) == (1, "refused")
    assert "no signature found" in found["why"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", "dump.yaml"),
        ("kind: Secret\nmetadata: {name: x}", "nothing that makes pods (found Secret)"),
        ("", "nothing that makes pods (found nothing)"),
    ],
)
def test_a_dump_that_holds_nothing_is_wrong_use(
    trainseal: Run, dump: Any, text: str, words: str
) -> None:
    arguments = dump(workload("Pod", "x"))
    Path(arguments[1]).write_text(text)
    answer = trainseal("simulate", *arguments)
    assert answer.code == 64
    assert words in answer.err


def test_a_dump_needs_its_policies(trainseal: Run, dump: Any) -> None:
    answer = trainseal("simulate", *dump(workload("Pod", "x"))[:2])
    assert answer.code == 64
    assert "name the policies' files" in answer.err


# A cluster --------------------------------------------------------------------------------------


LISTS = {
    "/api/v1/pods": [workload("Pod", "gpu", GPU)],
    "/api/v1/replicationcontrollers": [],
    "/apis/apps/v1/daemonsets": [],
    "/apis/apps/v1/deployments": [workload("Deployment", "web")],
    "/apis/apps/v1/replicasets": [],
    "/apis/apps/v1/statefulsets": [],
    "/apis/batch/v1/cronjobs": [],
    "/apis/batch/v1/jobs": [],
    "/apis/trainseal.dev/v1alpha1/trainingjobs": [],
    "/apis/trainseal.dev/v1alpha1/trustroots": [],
    "/apis/trainseal.dev/v1alpha1/provenancepolicies": [world.policy_object()],
}
CONFIG = "/api/v1/namespaces/trainseal-system/configmaps/trainseal-config"


@pytest.fixture
def kube(monkeypatch: pytest.MonkeyPatch) -> FakeKube:
    """Lists leave out the kind of their items."""
    objects: dict[str, Object] = {
        path: {"items": [{k: v for k, v in o.items() if k != "kind"} for o in items]}
        for path, items in LISTS.items()
    }
    objects[CONFIG] = {"data": {"config.yaml": "gpuResources: [nvidia.com/*]\n"}}
    found = FakeKube(objects)
    monkeypatch.setattr(api, "connect", connecting_to(found))
    return found


def test_a_cluster_is_judged_by_its_own_policies_and_settings(
    trainseal: Run, kube: FakeKube
) -> None:
    assert simulated(trainseal, "--kubeconfig", "unused") == (
        1,
        {"Deployment web": "passes", "Pod gpu": "refused"},
    )
    kube.objects[CONFIG]["data"]["config.yaml"] = "gpuResources: [other.example/*]\n"
    assert simulated(trainseal, "--kubeconfig", "unused")[1]["Pod gpu"] == "passes"


def test_or_by_others(trainseal: Run, kube: FakeKube, dump: Any) -> None:
    policy = dump(workload("Pod", "x"), mode="Audit")[2:]
    code, found = simulated(trainseal, *policy, "--kubeconfig", "unused")
    assert (code, found["Pod gpu"]) == (0, "warned")


def test_a_cluster_that_may_not_be_read_is_undetermined(trainseal: Run, kube: FakeKube) -> None:
    kube.failures["/api/v1/pods"] = KubeError(403, "Forbidden", "cannot list pods")
    answer = trainseal("simulate", "--kubeconfig", "unused")
    assert answer.code == 2
    assert "cannot list pods" in answer.err
    assert "trainseal simulate -f dump.yaml" in answer.err


def test_a_policy_that_cannot_be_used_is_said(trainseal: Run, kube: FakeKube) -> None:
    broken = world.policy_object("broken")
    broken["spec"]["authorities"][0]["key"]["publicKey"] = "x" * 80
    kube.objects["/apis/trainseal.dev/v1alpha1/provenancepolicies"]["items"].append(broken)
    answer = trainseal("simulate", "--offline", "--kubeconfig", "unused")
    assert "ProvenancePolicy broken cannot be used" in answer.out


LANE = {
    "name": "notebooks",
    "reason": "interactive work",
    "namespaces": ["research"],
    "image": {"authorities": ["alice"]},
    "maxPods": 1,
    "maxGPUs": 1,
    "maxDurationSeconds": 60,
}


@pytest.mark.parametrize("kind", KINDS)
def test_where_a_lane_is_open_notebooks_pass_and_what_trains_does_not(
    trainseal: Run, dump: Any, kind: str
) -> None:
    _, answers = simulated(trainseal, *dump(workload(kind, "gpu", GPU), lanes=[LANE]))
    taken = kind in ("Deployment", "Pod", "ReplicaSet", "StatefulSet")
    assert answers == {f"{kind} gpu": "passes" if taken else "refused"}


def test_a_notebook_that_its_lane_would_refuse_is_refused(trainseal: Run, dump: Any) -> None:
    two = {"limits": {"nvidia.com/gpu": "2"}}
    _, answers = simulated(trainseal, *dump(workload("StatefulSet", "gpu", two), lanes=[LANE]))
    assert answers == {"StatefulSet gpu": "refused"}
