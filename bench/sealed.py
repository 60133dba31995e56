"""A sealed run in an API server without a Job controller, and its pods as that would make them."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

from trainseal.api.trainingjob import TrainingJob
from trainseal.cluster.api import MERGE_PATCH, Kube, path_of
from trainseal.controller.sealing import Sealing, seal_object
from trainseal.engines.engine import Rendered
from trainseal.engines.job import render, template_of
from trainseal.engines.podtemplate import RenderInputs
from trainseal.provenance.canonical import job_digest
from trainseal.provenance.keys import PrivateKey
from trainseal.provenance.policies import CompiledPolicy
from trainseal.provenance.seals import BoundUid, bind
from trainseal.provenance.tickets import Ticket
from trainseal.verifier.jobs import JobVerification

Object = dict[str, Any]
NAMESPACE = "research"
_DIGEST = "sha256:" + "ab" * 32
INDEX = "batch.kubernetes.io/job-completion-index"


def training_job(name: str = "bench", replicas: int = 64, gpus: int = 8) -> Object:
    """A job as teams write them: one GPU container, code, config, checkpoints and scratch."""
    limits = {"nvidia.com/gpu": str(gpus), "cpu": "16"}
    env = [{"name": f"SETTING_{i}", "value": f"value-{i}"} for i in range(12)]
    return {
        "apiVersion": "trainseal.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "engine": "Job",
            "code": [
                {
                    "name": "trainer",
                    "mountPath": "/workspace",
                    "oci": {"reference": f"registry.example/research/code@{_DIGEST}"},
                }
            ],
            "config": {"mountPath": "/etc/training", "parameters": {"learning_rate": 0.0003}},
            "checkpoints": {
                "mountPath": "/checkpoints",
                "volume": {"persistentVolumeClaim": {"claimName": "ckpt"}},
            },
            "scratch": [{"mountPath": "/tmp"}],
            "roles": [
                {
                    "name": "worker",
                    "replicas": replicas,
                    "template": {
                        "spec": {
                            "containers": [
                                {
                                    "name": "trainer",
                                    "image": f"registry.example/research/pytorch@{_DIGEST}",
                                    "command": ["python", "/workspace/train.py"],
                                    "env": env,
                                    "resources": {"limits": limits},
                                }
                            ]
                        }
                    },
                }
            ],
        },
    }


async def seal(kube: Kube, key: PrivateKey, cluster: str, policy: CompiledPolicy) -> Object:
    """Makes the Job and its bound seal; returns the pod that the Job controller would make."""
    manifest = training_job()
    manifest["metadata"]["uid"] = "11111111-2222-3333-4444-555555555555"
    job = TrainingJob.parse(manifest)
    inputs = RenderInputs("bench-seal", job.metadata.uid, f"registry.example/t@{_DIGEST}", ())
    verified = JobVerification(job_digest(manifest), (), (), (policy,))
    return pod_of(await seal_run(kube, key, cluster, job, verified, render(job, inputs)))


async def seal_run(
    kube: Kube,
    key: PrivateKey,
    cluster: str,
    job: TrainingJob,
    verified: JobVerification,
    rendered: Rendered,
) -> Object:
    """Makes the Job of a run with one role, and its bound seal; returns the Job as it stands."""
    (role,) = rendered.roles
    live: Object = await kube.create(path_of("batch/v1", "jobs", NAMESPACE), role.owner)
    now = datetime.now(UTC)
    sealed = seal_object(
        key,
        Sealing(
            job=job,
            asked=verified.digest,
            verification=verified,
            rendered=rendered,
            templates={role.name: template_of(live)},
            ticket=Ticket("alice", "", verified.digest, now),
            cluster=cluster,
            run=1,
            now=now,
        ),
    )
    collection = path_of("trainseal.dev/v1alpha1", "sealedruns", NAMESPACE)
    made: Object = await kube.create(collection, sealed)
    binding = bind(
        key,
        namespace=NAMESPACE,
        name=made["metadata"]["name"],
        spec=made["spec"],
        objects=(BoundUid(role.name, "Job", role.object_name, live["metadata"]["uid"]),),
        now=now,
    )
    await kube.patch(
        f"{collection}/{made['metadata']['name']}/status",
        {"status": {"binding": binding, "phase": "Bound"}},
        MERGE_PATCH,
    )
    return live


def pod_of(job: Object, index: int = 0) -> Object:
    """A pod of a live Job, the first if none is named, as its controller would make it."""
    template = copy.deepcopy(job["spec"]["template"])
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    metadata = template["metadata"]
    metadata.pop("creationTimestamp", None)
    metadata["generateName"] = f"{name}-{index}-"
    metadata["labels"] |= {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        INDEX: str(index),
    }
    metadata["annotations"] = {**(metadata.get("annotations") or {}), INDEX: str(index)}
    metadata["finalizers"] = ["batch.kubernetes.io/job-tracking"]
    metadata["ownerReferences"] = [
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "name": name,
            "uid": uid,
            "controller": True,
            "blockOwnerDeletion": True,
        }
    ]
    spec = template["spec"]
    spec["hostname"] = f"{name}-{index}"
    variable = {
        "name": "JOB_COMPLETION_INDEX",
        "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.labels['{INDEX}']"}},
    }
    for kind in ("initContainers", "containers"):
        for container in spec.get(kind) or ():
            container.setdefault("env", []).append(variable)
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def bare_pod() -> Object:
    """A GPU pod that no seal knows; also the probe that tells which webhook is asked."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"generateName": "bare-", "labels": {"bench-probe": "x"}},
        "spec": {
            "containers": [
                {
                    "name": "x",
                    "image": "x",
                    "resources": {"limits": {"nvidia.com/gpu": "1"}},
                }
            ]
        },
    }


def encode(obj: Object) -> bytes:
    """JSON bytes."""
    return json.dumps(obj).encode()
