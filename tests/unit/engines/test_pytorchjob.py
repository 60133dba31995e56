"""A run as PyTorchJobs: what is rendered, and what the training operator may write on pods."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.unit import world
from tests.unit.engines.pytorchjobs import (
    LABELS,
    bound,
    by_the_operator,
    in_two_roles,
    job_object,
    pod,
    rendered,
    root,
)
from trainseal.api.trainingjob import TrainingJob
from trainseal.controller.engineobjects import changed_before_binding
from trainseal.engines import pytorchjob
from trainseal.engines.catalogue import expected_pod, unfit
from trainseal.provenance.additions import Additions
from trainseal.provenance.boundseals import BoundRole
from trainseal.provenance.downward import signed_value
from trainseal.provenance.livepods import index_of, live_differences
from trainseal.provenance.podmatch import changed_parts, compare_pod

Object = dict[str, Any]
INDEX = f"metadata.labels['{LABELS}replica-index']"


def differences(found: Object, job: Object | None = None) -> list[str]:
    return [d.path for d in compare_pod(expected_pod(bound(job)), found, Additions())]


def test_it_waits_until_its_seal_is_bound_and_has_workers_alone() -> None:
    """With a master its workers would get an init container whose image nobody signed."""
    spec = root()["spec"]
    assert spec["runPolicy"] == {"cleanPodPolicy": "Running", "suspend": True}
    ((kind, worker),) = spec["pytorchReplicaSpecs"].items()
    assert (kind, worker["replicas"], worker["restartPolicy"]) == ("Worker", 2, "Never")


def test_each_role_is_one_of_its_own_and_goes_with_the_training_job() -> None:
    found = rendered(job_object(in_two_roles))
    roots: list[Any] = [*found.roots]
    assert [r["metadata"]["name"] for r in roots] == ["char-lm-worker", "char-lm-server"]
    for one in roots:
        (owner,) = one["metadata"]["ownerReferences"]
        assert (owner["kind"], owner["uid"]) == ("TrainingJob", world.JOB_UID)


def test_workers_meet_at_the_runs_own_service_which_is_the_first_pod() -> None:
    """The operator's Services are anybody's to change who may edit Services."""
    found: Any = rendered()
    env = {e["name"]: e for e in bound().template["spec"]["containers"][0]["env"]}
    for name in ("MASTER_ADDR", "PET_MASTER_ADDR"):
        assert env[name]["value"] == "char-lm.research.svc"
    selector = found.service["spec"]["selector"]
    expected = expected_pod(bound())
    assert selector["trainseal.dev/seal"] == expected.labels["trainseal.dev/seal"]
    for index, chosen in ((0, True), (1, False)):
        labels = pod(root(), index)["metadata"]["labels"]
        assert (selector.items() <= labels.items()) == chosen


def test_ranks_are_read_from_the_operators_label() -> None:
    env = {e["name"]: e for e in bound().template["spec"]["containers"][0]["env"]}
    for name in ("RANK", "PET_NODE_RANK", "JOB_COMPLETION_INDEX"):
        assert env[name]["valueFrom"]["fieldRef"]["fieldPath"] == INDEX
    assert signed_value(INDEX, {}) == "0"


@pytest.mark.parametrize("index", [0, 1])
def test_a_pod_as_the_operator_makes_it_is_what_its_seal_says(index: int) -> None:
    found = pod(root(), index)
    assert differences(found) == []
    assert live_differences(expected_pod(bound()), found, Additions()) == ()
    assert index_of(found) == str(index)


def label(name: str, value: str) -> Any:
    return lambda p: p["metadata"]["labels"].update({f"{LABELS}{name}": value})


def variable(name: str, value: str) -> Any:
    def change(found: Object) -> None:
        env = found["spec"]["containers"][0]["env"]
        env[:] = [e for e in env if e["name"] != name] + [{"name": name, "value": value}]

    return change


def more_of_a_variable(found: Object) -> None:
    found["spec"]["containers"][0]["env"].append({"name": "PET_NNODES", "value": "2"})


def an_init_container(found: Object) -> None:
    image = {"name": "init-pytorch", "image": "alpine:3.10"}
    found["spec"]["initContainers"].append(image)


def an_index_variable_of_a_job(found: Object) -> None:
    path = {"apiVersion": "v1", "fieldPath": "metadata.labels['x']"}
    entry = {"name": "JOB_COMPLETION_INDEX", "valueFrom": {"fieldRef": path}}
    found["spec"]["containers"][0]["env"].append(entry)


def a_job_s_label(found: Object) -> None:
    found["metadata"]["labels"]["batch.kubernetes.io/controller-uid"] = world.OBJECT_UID


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (label("replica-index", "1"), "metadata.name"),
        (label("replica-index", "2"), f"metadata.labels[{LABELS}replica-index]"),
        (label("replica-index", "00"), f"metadata.labels[{LABELS}replica-index]"),
        (label("replica-type", "master"), f"metadata.labels[{LABELS}replica-type]"),
        (label("job-name", "another"), f"metadata.labels[{LABELS}job-name]"),
        (label("operator-name", "tfjob-controller"), f"metadata.labels[{LABELS}operator-name]"),
        (label("job-role", "worker"), f"metadata.labels[{LABELS}job-role]"),
        (label("other", "1"), f"metadata.labels[{LABELS}other]"),
        (a_job_s_label, "metadata.labels[batch.kubernetes.io/controller-uid]"),
        (variable("PET_NNODES", "3"), "spec.containers[0].env[PET_NNODES]"),
        (variable("PYTHONUNBUFFERED", ""), "spec.containers[0].env[PYTHONUNBUFFERED]"),
        (variable("RANK", "0"), "spec.containers[0].env[RANK]"),
        (more_of_a_variable, "spec.containers[0].env[PET_NNODES]"),
        (an_index_variable_of_a_job, "spec.containers[0].env[JOB_COMPLETION_INDEX]"),
        (an_init_container, "spec.initContainers[init-pytorch]"),
        (lambda p: p["spec"].update(hostname="char-lm-worker-0"), "spec.hostname"),
        (lambda p: p["metadata"].update(name="char-lm-worker-worker-1"), "metadata.name"),
        (
            lambda p: p["metadata"]["annotations"].update(
                {"batch.kubernetes.io/job-completion-index": "1"}
            ),
            "metadata.annotations[batch.kubernetes.io/job-completion-index]",
        ),
    ],
)
def test_what_the_operator_would_not_have_written_is_a_difference(change: Any, path: str) -> None:
    found = pod(root())
    change(found)
    assert path in differences(found)


def test_the_label_of_the_first_pod_is_no_other_pods() -> None:
    found = pod(root(), 1)
    label("job-role", "master")(found)
    assert differences(found) == [f"metadata.labels[{LABELS}job-role]"]


def test_variables_of_the_operators_are_none_on_a_pod_of_the_built_in_engine() -> None:
    sealed = world.sealed_world()
    found = sealed.pod()
    found["spec"]["containers"][0]["env"].append({"name": "PET_NNODES", "value": "2"})
    role = BoundRole("worker", "char-lm-worker", world.OBJECT_UID, 2, sealed.template)
    assert len(compare_pod(expected_pod(role), found, Additions())) == 1


def test_labels_by_which_the_operator_knows_a_pod_stay() -> None:
    old, new = pod(root()), pod(root())
    label("replica-index", "1")(new)
    path = f"metadata.labels[{LABELS}replica-index]"
    assert changed_parts(old, new, expected_pod(bound())) == (path,)
    assert changed_parts(old, new, None) == (path,), "also of a seal that is not known any more"


def signed(name: str, value: str) -> Any:
    def change(job: Object) -> None:
        by_the_operator(job)
        container = job["spec"]["roles"][0]["template"]["spec"]["containers"][0]
        container["env"].append({"name": name, "value": value})

    return change


def test_what_is_signed_for_torchrun_is_what_the_operator_is_told() -> None:
    job = job_object(signed("PET_NPROC_PER_NODE", "8"))
    assert root(job)["spec"]["nprocPerNode"] == "8"
    assert unfit(TrainingJob.parse(job)) == ""
    assert differences(pod(root(job)), job) == []


def test_what_is_signed_as_the_operator_writes_it_may_stand_twice() -> None:
    job = job_object(signed("PYTHONUNBUFFERED", "1"))
    assert unfit(TrainingJob.parse(job)) == ""
    found = pod(root(job))
    assert differences(found, job) == []
    found["spec"]["containers"][0]["env"].append({"name": "PYTHONUNBUFFERED", "value": "1"})
    assert differences(found, job) == ["spec.containers[0].env"]


def test_of_a_variable_that_is_signed_twice_the_last_counts() -> None:
    def twice(job: Object) -> None:
        signed("PYTHONUNBUFFERED", "1")(job)
        container_of(job)["env"].append({"name": "PYTHONUNBUFFERED", "value": ""})

    job = job_object(twice)
    assert "found variable PYTHONUNBUFFERED" in unfit(TrainingJob.parse(job))
    assert differences(pod(root(job)), job), "what the operator adds would count"


def container_of(job: Object) -> Object:
    found: Object = job["spec"]["roles"][0]["template"]["spec"]["containers"][0]
    return found


def under_another_name(job: Object) -> None:
    by_the_operator(job)
    container_of(job)["name"] = "trainer"


def with_a_nameless_port(job: Object) -> None:
    by_the_operator(job)
    container_of(job)["ports"] = [{"containerPort": 8080}]


def with_a_job_s_index(job: Object) -> None:
    by_the_operator(job)
    path = {"fieldPath": "metadata.annotations['batch.kubernetes.io/job-completion-index']"}
    container_of(job)["env"].append({"name": "SHARD", "valueFrom": {"fieldRef": path}})


def with_a_hostname(job: Object) -> None:
    by_the_operator(job)
    job["spec"]["roles"][0]["template"]["spec"]["hostname"] = "one"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (under_another_name, "found the containers trainer, expected one of the name pytorch"),
        (signed("PET_NNODES", "4"), "found variable PET_NNODES of container pytorch"),
        (signed("PYTHONUNBUFFERED", ""), "found variable PYTHONUNBUFFERED"),
        (with_a_nameless_port, "found port 8080 without a name"),
        (with_a_job_s_index, "found a reference to annotations batch.kubernetes.io/"),
        (with_a_hostname, "found a hostname"),
    ],
)
def test_what_the_operator_would_not_run_as_signed_is_refused_in_words(
    change: Any, words: str
) -> None:
    job = TrainingJob.parse(job_object(change))
    assert words in unfit(job)
    assert unfit(TrainingJob.parse(job_object())) == ""


def test_a_pytorchjob_as_it_was_made_is_unchanged() -> None:
    live = copy.deepcopy(root())
    live["spec"]["runPolicy"]["suspend"] = False
    live["status"] = {"conditions": []}
    assert changed_before_binding(root(), live) == ""


def policy(**more: Any) -> Any:
    return lambda spec: spec["runPolicy"].update(more)


def with_a_master(spec: Object) -> None:
    spec["pytorchReplicaSpecs"]["Master"] = spec["pytorchReplicaSpecs"]["Worker"]


def of_other_size(spec: Object) -> None:
    spec["pytorchReplicaSpecs"]["Worker"]["replicas"] = 3


def restarting(spec: Object) -> None:
    spec["pytorchReplicaSpecs"]["Worker"]["restartPolicy"] = "OnFailure"


def of_another_command(spec: Object) -> None:
    pods = spec["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    pods["containers"][0]["command"] = ["sh"]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        (policy(cleanPodPolicy="None"), "spec.runPolicy.cleanPodPolicy"),
        (policy(activeDeadlineSeconds=1), "spec.runPolicy.activeDeadlineSeconds"),
        (policy(ttlSecondsAfterFinished=1), "spec.runPolicy.ttlSecondsAfterFinished"),
        (with_a_master, "spec.pytorchReplicaSpecs.Master"),
        (of_other_size, "spec.pytorchReplicaSpecs.Worker.replicas"),
        (restarting, "spec.pytorchReplicaSpecs.Worker.restartPolicy"),
        (of_another_command, "spec.template"),
        (lambda spec: spec.update(elasticPolicy={"maxReplicas": 9}), "spec.elasticPolicy"),
        (lambda spec: spec.update(nprocPerNode="8"), "spec.nprocPerNode"),
    ],
)
def test_one_that_says_something_else_is_bound_to_no_seal(change: Any, path: str) -> None:
    live = copy.deepcopy(root())
    change(live["spec"])
    assert changed_before_binding(root(), live) == path


@pytest.mark.parametrize(
    ("condition", "ended"),
    [
        ({"type": "Succeeded", "status": "True", "message": "m"}, ("Complete", "m")),
        ({"type": "Failed", "status": "True", "message": "m"}, ("Failed", "m")),
        ({"type": "Succeeded", "status": "False", "message": "m"}, None),
        ({"type": "Running", "status": "True", "message": "m"}, None),
    ],
)
def test_how_it_ended(condition: Object, ended: object) -> None:
    status: Object = {"status": {"conditions": [condition]}}
    assert pytorchjob.outcome(status) == ended
    assert pytorchjob.is_ending(status) == (ended is not None)


def test_it_is_idle_once_the_operator_has_seen_that_it_is_suspended() -> None:
    found = root()
    assert pytorchjob.is_idle(found), "it never ran"
    found["status"] = {"startTime": "2026-11-23T12:00:00Z", "replicaStatuses": {"Worker": {}}}
    assert not pytorchjob.is_idle(found)
    found["status"]["conditions"] = [{"type": "Suspended", "status": "True"}]
    assert pytorchjob.is_idle(found)
    found["status"]["replicaStatuses"]["Worker"]["active"] = 1
    assert not pytorchjob.is_idle(found)


def test_where_its_pods_are_placed() -> None:
    assert pytorchjob.pods_at(root(), "worker") == (
        "/spec/pytorchReplicaSpecs/Worker/template/spec"
    )
