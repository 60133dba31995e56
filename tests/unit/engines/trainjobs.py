"""TrainJobs of two roles, and what the trainer makes of them, after its source (v2.0.0)."""

from __future__ import annotations

import copy
from typing import Any

from tests.unit import world
from tests.unit.engines import jobsets
from trainseal.engines.engine import Rendered

Object = dict[str, Any]
ROOT_UID, RUNTIME_UID = "trainjob-uid", "runtime-uid"


def two_roles(job: Object) -> None:
    """Makes it one of the trainer's, with a second role."""
    jobsets.two_roles(job)
    job["spec"]["engine"] = "TrainJob"


def in_two_roles() -> Object:
    """A job of two workers and a server."""
    job = world.job_object()
    two_roles(job)
    return job


def rendered(job: Object | None = None) -> Rendered:
    """Its objects."""
    return world.render_job(job or in_two_roles())


def made_by_trainer(root: Object, runtime: Object) -> Object:
    """The JobSet of a TrainJob without overrides and without a trainer, as it is stored: with what
    JobSet's own schema and webhook fill in.
    """
    metadata, template = root["metadata"], copy.deepcopy(runtime["spec"]["template"])
    spec = template["spec"]
    for part in spec["replicatedJobs"]:
        part.setdefault("groupName", "default")
        inner = part["template"]["spec"]
        inner["completions"] = inner["parallelism"]
        for container in inner["template"]["spec"]["containers"]:
            if "ports" in container:
                container["ports"] = upserted(container["ports"])
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "labels": {**template["metadata"]["labels"], **root["spec"].get("labels", {})},
            "ownerReferences": [
                {
                    "apiVersion": "trainer.kubeflow.org/v1alpha1",
                    "kind": "TrainJob",
                    "name": metadata["name"],
                    "uid": metadata.get("uid", ROOT_UID),
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {**spec, "suspend": root["spec"]["suspend"]},
    }


def upserted(ports: list[Object]) -> list[Object]:
    """A container's ports, each written into the list that they are from (``apply.UpsertPort``)."""
    found = copy.deepcopy(ports)
    for port in ports:
        for at, other in enumerate(found):
            same = port["containerPort"] == other["containerPort"]
            if same or port.get("name") == other.get("name"):
                found[at] = port
                break
    return found
