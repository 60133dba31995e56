"""A sealed run in an API server without a Job controller, and its pods as that would make them."""

from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from typing import Any

from trainseal.api.trainingjob import TrainingJob
from trainseal.cluster.api import MERGE_PATCH, Kube, path_of
from trainseal.controller.sealing import Sealing, seal_object, template_of
from trainseal.engines.job import render
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


def training_job() -> Object:
    """A job as teams write them: one GPU container, code, config, checkpoints and scratch."""
    env = [{"name": f"SETTING_{i}", "value": f"value-{i}"} for i in range(12)]
    return {
        "apiVersion": "trainseal.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "bench", "namespace": NAMESPACE},
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
                    "replicas": 64,
                    "template": {
                        "spec": {
                            "containers": [
                                {
                                    "name": "trainer",
                                    "image": f"registry.example/research/pytorch@{_DIGEST}",
                                    "command": ["python", "/workspace/train.py"],
                                    "env": env,
                                    "resources": {"limits": {"nvidia.com/gpu": "8", "cpu": "16"}},
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
    digest = job_digest(manifest)
    inputs = RenderInputs("bench-seal", job.metadata.uid, f"registry.example/t@{_DIGEST}", ())
    rendered = render(job, inputs)
    live: Object = await kube.create(path_of("batch/v1", "jobs", NAMESPACE), rendered.roles[0].job)
    now = datetime.now(UTC)
    sealed = seal_object(
        key,
        Sealing(
            job=job,
            verification=JobVerification(digest, (), (), (policy,)),
            rendered=rendered,
            templates={"worker": template_of(live)},
            ticket=Ticket("alice", "", digest, now),
            cluster=cluster,
            run=1,
            now=now,
        ),
    )
    collection = path_of("trainseal.dev/v1alpha1", "sealedruns", NAMESPACE)
    made: Object = await kube.create(collection, sealed)
    uid = live["metadata"]["uid"]
    binding = bind(
        key,
        namespace=NAMESPACE,
        name=made["metadata"]["name"],
        spec=made["spec"],
        objects=(BoundUid("worker", "Job", rendered.roles[0].object_name, uid),),
        now=now,
    )
    await kube.patch(
        f"{collection}/{made['metadata']['name']}/status",
        {"status": {"binding": binding, "phase": "Bound"}},
        MERGE_PATCH,
    )
    return pod_of(live)


def pod_of(job: Object) -> Object:
    """The first pod of a live Job, as its controller would make it."""
    template = copy.deepcopy(job["spec"]["template"])
    name, uid = job["metadata"]["name"], job["metadata"]["uid"]
    metadata = template["metadata"]
    metadata.pop("creationTimestamp", None)
    metadata["generateName"] = f"{name}-0-"
    metadata["labels"] |= {
        "batch.kubernetes.io/controller-uid": uid,
        "batch.kubernetes.io/job-name": name,
        INDEX: "0",
    }
    metadata["annotations"] = {**(metadata.get("annotations") or {}), INDEX: "0"}
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
    spec["hostname"] = f"{name}-0"
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
