"""PyTorchJobs, and the pods that the training operator makes of them, after its source (v1.8.1)."""

from __future__ import annotations

import copy
from typing import Any

from tests.unit import world
from trainseal.engines import pytorchjob
from trainseal.engines.engine import Rendered
from trainseal.engines.job import template_of
from trainseal.provenance.boundseals import BoundRole

Object = dict[str, Any]
OPERATOR = "system:serviceaccount:kubeflow:training-operator"
LABELS = "training.kubeflow.org/"


def by_the_operator(job: Object) -> None:
    """Makes it one of the training operator's."""
    job["spec"]["engine"] = "PyTorchJob"
    job["spec"]["roles"][0]["template"]["spec"]["containers"][0]["name"] = "pytorch"


def in_two_roles(job: Object) -> None:
    """The same with a second role."""
    by_the_operator(job)
    server = copy.deepcopy(job["spec"]["roles"][0]) | {"name": "server", "replicas": 1}
    job["spec"]["roles"].append(server)


def job_object(change: Any = by_the_operator) -> Object:
    """A job of two workers."""
    job = world.job_object()
    change(job)
    return job


def rendered(job: Object | None = None) -> Rendered:
    """Its objects."""
    return world.render_job(job or job_object())


def bound(job: Object | None = None) -> BoundRole:
    """The first role as its seal is bound."""
    (role, *_) = rendered(job).roles
    assert role.trial is not None
    trial: Object = role.trial
    return BoundRole(
        role.name,
        role.object_name,
        world.OBJECT_UID,
        role.replicas,
        template_of(world.stored_job(trial, "dry-run")),
        namespace="research",
        engine="PyTorchJob",
        peers=(role.name,),
    )


def root(job: Object | None = None) -> Object:
    """The PyTorchJob as it is made, with the pods that the seal holds."""
    found = rendered(job)
    templates = {role.name: bound(job).template for role in found.roles}
    (made, *_) = pytorchjob.with_templates(found, templates).roots
    made["metadata"] = {**made["metadata"], "uid": world.OBJECT_UID}
    return made


def pod(root: Object, index: int = 0) -> Object:
    """What the operator makes of it (createNewPod, setPodEnv), then admission plugins."""
    metadata, spec = root["metadata"], root["spec"]
    worker = spec["pytorchReplicaSpecs"]["Worker"]
    template = copy.deepcopy(worker["template"])
    pod: Object = template["spec"]
    for container in pod["containers"]:
        container["env"] += [
            {"name": "PYTHONUNBUFFERED", "value": "1"},
            {"name": "PET_NPROC_PER_NODE", "value": spec["nprocPerNode"]},
            {"name": "PET_NNODES", "value": str(worker["replicas"])},
        ]
    pod.setdefault("serviceAccountName", "default")
    pod["serviceAccount"] = pod["serviceAccountName"]
    pod["priority"], pod["preemptionPolicy"] = 0, "PreemptLowerPriority"
    for container in (*pod.get("initContainers", []), *pod["containers"]):
        resources = container["resources"]
        if resources.get("limits"):
            resources["requests"] = {**resources["limits"], **resources.get("requests", {})}
    labels = {
        **template["metadata"]["labels"],
        f"{LABELS}operator-name": "pytorchjob-controller",
        f"{LABELS}job-name": metadata["name"],
        f"{LABELS}replica-type": "worker",
        f"{LABELS}replica-index": str(index),
        **({f"{LABELS}job-role": "master"} if index == 0 else {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": f"{metadata['name']}-worker-{index}",
            "namespace": metadata["namespace"],
            "uid": f"pod-{index}",
            "labels": labels,
            "annotations": template["metadata"].get("annotations", {}),
            "ownerReferences": [
                {
                    "apiVersion": "kubeflow.org/v1",
                    "kind": "PyTorchJob",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": pod,
        "status": {},
    }
