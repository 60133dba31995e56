"""JobSets of two roles, and what JobSet's controller makes of them, after its source (v0.11.0)."""

from __future__ import annotations

import copy
import hashlib
from typing import Any

from tests.unit import world
from trainseal.engines.engine import Rendered

Object = dict[str, Any]
ROOT_UID = "jobset-uid"


def in_two_roles() -> Object:
    """A job of two workers and a server."""
    job = world.job_object()
    two_roles(job)
    return job


def two_roles(job: Object) -> None:
    """Makes it one of JobSet's, with a second role."""
    job["spec"]["engine"] = "JobSet"
    server = copy.deepcopy(job["spec"]["roles"][0]) | {"name": "server", "replicas": 1}
    job["spec"]["roles"].append(server)


def rendered(job: Object | None = None) -> Rendered:
    """Its objects."""
    return world.render_job(job or in_two_roles())


def made_by_jobset(root: Object, number: int) -> Object:
    """The child Job of a ReplicatedJob, before the API server fills anything in."""
    metadata, parts = root["metadata"], root["spec"]["replicatedJobs"]
    part, uid = parts[number], metadata.get("uid", ROOT_UID)
    name = f"{metadata['name']}-{part['name']}-0"
    key = hashlib.sha1(f"{metadata['namespace']}/{name}".encode()).hexdigest()  # noqa: S324
    marks = {
        "jobset-name": metadata["name"],
        "jobset-uid": uid,
        "replicatedjob-name": part["name"],
        "restart-attempt": "0",
        "replicatedjob-replicas": str(part["replicas"]),
        "global-replicas": str(sum(p["replicas"] for p in parts)),
        "job-index": "0",
        "job-key": key,
        "job-global-index": str(number),
        "group-name": part["groupName"],
        "group-replicas": str(len(parts)),
        "job-group-index": str(number),
    }
    written = {f"jobset.sigs.k8s.io/{k}": v for k, v in marks.items()}
    spec = copy.deepcopy(part["template"]["spec"])
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            **copy.deepcopy(part["template"].get("metadata", {})),
            "name": name,
            "namespace": metadata["namespace"],
            "ownerReferences": [
                {
                    "apiVersion": "jobset.x-k8s.io/v1alpha2",
                    "kind": "JobSet",
                    "name": metadata["name"],
                    "uid": uid,
                    "controller": True,
                    "blockOwnerDeletion": True,
                }
            ],
        },
        "spec": {**spec, "suspend": root["spec"].get("suspend", False)},
    }
    for obj in (job, spec["template"]):
        made = obj.setdefault("metadata", {})
        for what in ("labels", "annotations"):
            made[what] = {**made.get(what, {}), **written}
    return job
