"""Runs by Kubeflow's training operator: bound to PyTorchJobs, followed by their status."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from tests.unit import world
from tests.unit.controller.cluster import Cluster
from tests.unit.controller.lookedat import findings, index_of, live_run
from tests.unit.engines.pytorchjobs import LABELS, OPERATOR, by_the_operator, in_two_roles, pod
from trainseal.admission.pods import decide
from trainseal.admission.reviews import Response
from trainseal.cluster.api import KubeError, NotFoundError
from trainseal.controller.disturbances import unexplained_deletion
from trainseal.controller.runstate import state_of
from trainseal.controller.steering import PODS_AGAIN
from trainseal.engines.engine import LABEL_QUEUE
from trainseal.provenance.selectors import equal_to

Object = dict[str, Any]
ROOTS = "/apis/kubeflow.org/v1/namespaces/research/pytorchjobs"
ROOT, SERVER = f"{ROOTS}/char-lm-worker", f"{ROOTS}/char-lm-server"
ON: Object = {"engines": {"pyTorchJob": {"enabled": True, "controller": OPERATOR}}}
STARTED = "2026-11-23T12:00:00Z"


@dataclass
class WithOperator(Cluster):
    """The same with the kind PyTorchJob, which may be missing."""

    missing: bool = False

    async def create(
        self, path: str, obj: Object, *, dry_run: bool = False, strict: bool = False
    ) -> Object:
        if obj["kind"] == "PyTorchJob" and self.missing:
            raise NotFoundError(404, "NotFound", "the server could not find the requested resource")
        return await super().create(path, obj, dry_run=dry_run, strict=strict)

    @property
    def root(self) -> Object:
        return self.objects[ROOT]

    def says(self, *conditions: str, path: str = ROOT, **counts: int) -> None:
        """The operator's word."""
        self.objects[path]["status"] = {
            "startTime": STARTED,
            "conditions": [{"type": c, "status": "True", "message": c} for c in conditions],
            "replicaStatuses": {"Worker": counts},
        }


def cluster(change: Any = by_the_operator, **more: Any) -> WithOperator:
    """With a signed job."""
    found = WithOperator(settings=ON, **more)
    found.submit(change)
    return found


def test_a_seal_is_bound_to_a_pytorchjob_a_role_before_it_is_let_go() -> None:
    found = cluster(in_two_roles)
    found.settle()
    objects = found.seal["status"]["binding"]["objects"]
    assert [(o["role"], o["kind"], o["name"]) for o in objects] == [
        ("worker", "PyTorchJob", "char-lm-worker"),
        ("server", "PyTorchJob", "char-lm-server"),
    ]
    assert [found.objects[p]["spec"]["runPolicy"]["suspend"] for p in (ROOT, SERVER)] == [False] * 2
    assert not [p for p in found.objects if "/batch/v1/" in p], "the Job that was tried is not made"


def test_the_pods_are_sealed_as_the_api_server_fills_them_in() -> None:
    found = cluster()
    found.settle()
    (role,) = found.seal["spec"]["roles"]
    assert role["template"]["spec"]["dnsPolicy"] == "ClusterFirst"
    worker = found.root["spec"]["pytorchReplicaSpecs"]["Worker"]
    assert worker["template"] == role["template"]


def answered(found: WithOperator, obj: Object, user: str, **engines: str) -> Response:
    context = world.sealed_world().context()
    context = replace(
        context, find=index_of(found).find, pod_makers=engines or {"PyTorchJob": OPERATOR}
    )
    said = decide(world.request(obj, user=user), context, final=True)
    assert isinstance(said, Response)
    return said


def test_the_operator_makes_its_pods_and_nobody_else_does() -> None:
    found = cluster()
    found.settle()
    for index in (0, 1):
        assert answered(found, pod(found.root, index), OPERATOR) == Response(True)
    for user in (world.EDITOR, world.JOB_CONTROLLER, world.CONTROLLER):
        said = answered(found, pod(found.root), user)
        assert f"found creator {user!r}, expected the controller of PyTorchJobs" in said.message
    assert not answered(found, pod(found.root), OPERATOR, JobSet="other").allowed, "switched off"


def test_the_operator_makes_no_pod_of_a_job() -> None:
    sealed = world.sealed_world()
    context = replace(sealed.context(), pod_makers={"PyTorchJob": OPERATOR})
    said = decide(world.request(sealed.pod(), user=OPERATOR), context, final=True)
    assert isinstance(said, Response)
    assert "expected the Job controller" in said.message


def test_a_pod_that_claims_another_place_than_its_content_is_denied() -> None:
    found = cluster(in_two_roles)
    found.settle()
    made = pod(found.root)
    made["metadata"]["labels"][f"{LABELS}replica-index"] = "1"
    assert "metadata.name" in answered(found, made, OPERATOR).message
    made = pod(found.root)
    made["metadata"]["labels"]["trainseal.dev/role"] = "server"
    assert "trainseal.dev/role" in answered(found, made, OPERATOR).message
    made = pod(found.objects[SERVER])
    made["metadata"]["ownerReferences"] = pod(found.root)["metadata"]["ownerReferences"]
    assert not answered(found, made, OPERATOR).allowed


def test_a_pod_with_the_labels_of_a_pytorchjobs_is_made_by_the_operator_alone() -> None:
    """It counts as a worker by them and by its owner; without a GPU nothing else would stop it."""
    found = cluster()
    found.settle()
    mine: Object = {
        "metadata": {
            "name": "mine",
            "namespace": "research",
            "labels": {f"{LABELS}operator-name": "pytorchjob-controller"},
        },
        "spec": {"containers": [{"name": "main", "image": "x"}]},
    }
    assert "of a PyTorchJob's pods" in answered(found, mine, world.EDITOR).message
    assert answered(found, mine, OPERATOR).allowed
    mine["metadata"]["labels"] = {f"{LABELS}job-name": "mpi"}
    assert answered(found, mine, world.EDITOR).allowed


@pytest.mark.parametrize(
    ("labels", "reached"),
    [
        ({f"{LABELS}job-name": "char-lm-worker"}, True),
        ({f"{LABELS}replica-index": "1"}, True),
        ({f"{LABELS}job-role": "master"}, True),
        ({f"{LABELS}job-name": "another"}, False),
        ({"batch.kubernetes.io/job-name": "char-lm-worker"}, False),
    ],
)
def test_a_run_is_reached_by_labels_that_the_operator_gives_its_pods(
    labels: Object, reached: bool
) -> None:
    found = cluster()
    found.settle()
    name = found.seal["metadata"]["name"]
    assert index_of(found).reached_by("research", equal_to(labels)) == [name] * reached


def test_a_run_is_followed_by_what_the_operator_says() -> None:
    found = cluster()
    found.settle()
    found.says("Running", active=2)
    found.settle()
    assert (found.status["phase"], found.status["ready"]) == ("Running", "2/2")
    found.says("Succeeded", succeeded=2)
    found.settle()
    assert found.status["phase"] == "Succeeded"


def test_a_role_that_failed_fails_the_run_and_stops_the_other() -> None:
    found = cluster(in_two_roles)
    found.settle()
    found.says("Failed", failed=1, path=SERVER)
    found.settle()
    assert found.status["phase"] == "Failed"
    assert found.root["spec"]["runPolicy"]["suspend"] is True


def test_a_run_is_suspended_and_resumed() -> None:
    found = cluster()
    found.settle()
    found.edit(suspend=True)
    found.settle()
    assert found.root["spec"]["runPolicy"] == {"cleanPodPolicy": "Running", "suspend": True}
    found.edit(suspend=False)
    found.settle()
    assert found.root["spec"]["runPolicy"] == {"cleanPodPolicy": "Running", "suspend": False}


def test_it_is_resumed_only_once_its_pods_are_gone() -> None:
    """The operator would take a pod that is being deleted for one that failed."""
    found = cluster()
    found.settle()
    made, place = pod(found.root), "/api/v1/namespaces/research/pods/char-lm-worker-worker-0"
    found.objects[place] = made
    found.edit(suspend=True)
    found.settle()
    found.edit(suspend=False)
    assert found.settle() == PODS_AGAIN
    assert found.root["spec"]["runPolicy"]["suspend"] is True
    del found.objects[place]
    found.settle()
    assert found.root["spec"]["runPolicy"]["suspend"] is False


def test_with_a_queue_it_bears_its_label_and_is_not_resumed() -> None:
    found = cluster()
    found.edit(scheduling={"queueName": "gpus"})
    found.settle()
    assert found.root["metadata"]["labels"][LABEL_QUEUE] == "gpus"
    assert found.root["spec"]["runPolicy"]["suspend"] is True


def test_it_is_placed_while_it_is_suspended() -> None:
    found = cluster()
    found.edit(suspend=True)
    found.settle()
    found.edit(scheduling={"nodeSelector": {"pool": "b"}})
    found.settle()
    pods = found.root["spec"]["pytorchReplicaSpecs"]["Worker"]["template"]["spec"]
    assert pods["nodeSelector"] == {"pool": "b"}
    assert found.condition("Placed")["status"] == "True"


def test_placement_waits_for_the_next_start_while_it_runs() -> None:
    found = cluster()
    found.settle()
    found.says("Running", active=2)
    found.edit(scheduling={"nodeSelector": {"pool": "b"}})
    found.settle()
    assert found.condition("Placed")["reason"] == "NextStart"


def test_a_cluster_without_the_kind_refuses_in_words() -> None:
    found = cluster(missing=True)
    found.settle()
    assert found.status["phase"] == "Refused"
    assert "found no kind PyTorchJob (kubeflow.org/v1)" in found.status["message"]


def test_an_engine_that_is_not_enabled_is_refused_in_words() -> None:
    found = WithOperator()
    found.submit(by_the_operator)
    found.settle()
    assert found.status["phase"] == "Refused"
    assert "found the engines Job enabled" in found.status["message"]


def test_a_job_that_the_operator_would_not_run_as_signed_is_refused_in_words() -> None:
    found = cluster(lambda job: job["spec"].update(engine="PyTorchJob"))
    found.settle()
    assert found.status["phase"] == "Refused"
    assert "expected one of the name pytorch" in found.status["message"]


def test_what_the_operators_webhook_refuses_is_told() -> None:
    found = cluster()
    found.refuses[f"TRY {ROOT}"] = KubeError(422, "Invalid", "metadata.name: should match")
    found.settle()
    assert found.status["phase"] == "Refused"
    assert "metadata.name: should match" in found.status["message"]


def test_a_run_as_it_was_sealed_has_no_finding() -> None:
    found = cluster(in_two_roles)
    found.settle()
    assert findings(found) == []


def test_a_changed_pytorchjob_is_found() -> None:
    found = cluster()
    found.settle()
    found.root["spec"]["pytorchReplicaSpecs"]["Worker"]["replicas"] = 1
    assert findings(found) == ["object.changed PyTorchJob char-lm-worker"]


def test_a_deleted_pytorchjob_is_found_and_ends_the_run() -> None:
    found = cluster()
    found.settle()
    del found.objects[ROOT]
    assert findings(found) == ["object.deleted PyTorchJob char-lm-worker"]
    found.settle()
    assert "PyTorchJob char-lm-worker of this run was deleted" in found.status["message"]


def unexplained(found: WithOperator) -> bool:
    """Whether a pod that is being deleted now, by the operator, is a finding."""
    run = live_run(found)
    made = pod(found.root)
    at = world.NOW + timedelta(minutes=1)
    made["metadata"] |= {"creationTimestamp": STARTED, "deletionTimestamp": at.isoformat()}
    return unexplained_deletion(made, state_of(run, run.roles[0].object_uid), []) is not None


def test_a_pod_that_the_operator_deletes_is_a_finding_only_while_the_run_is_on() -> None:
    found = cluster()
    found.settle()
    found.says("Running", active=2)
    assert unexplained(found)
    found.says("Running", "Succeeded", succeeded=2)
    assert not unexplained(found)
    found.says("Running", active=2)
    found.root["spec"]["runPolicy"]["suspend"] = True
    assert not unexplained(found)
