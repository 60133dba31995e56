"""Notebooks, and the policy that opens a lane for them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

from tests.stage.people import Person
from tests.stage.policies import policy

Object = dict[str, Any]
LANE = "notebooks"
LABEL = "trainseal.dev/lane"
#: What notebooks may write to.
SCRATCH = "scratch"


def lane_policy(
    namespace: str,
    *,
    signers: Sequence[Person],
    image_signer: Person,
    registries: Sequence[str],
    pods: int = 8,
) -> Object:
    """Jobs by ``signers``, and a lane of pods with images by ``image_signer``."""
    made = policy(
        namespace,
        namespace,
        signers=signers,
        image_signers=[image_signer],
        registries=registries,
    )
    made["spec"]["lanes"] = [
        {
            "name": LANE,
            "reason": "the team's notebooks",
            "namespaces": [namespace],
            "image": {"authorities": [image_signer.name]},
            "maxPods": pods,
            "maxGPUs": 8,
            "maxDurationSeconds": 3600,
            "scratchClaims": [f"{SCRATCH}*"],
        }
    ]
    return made


def pod(name: str, namespace: str, image: str, gpus: int = 1) -> Object:
    """A notebook as its owner writes it: nothing of lanes stands in it."""
    limits = {"nvidia.com/gpu": gpus} if gpus else {}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "terminationGracePeriodSeconds": 1,
            "containers": [
                {
                    "name": "main",
                    "image": image,
                    "command": ["sleep", "infinity"],
                    "resources": {"limits": limits},
                }
            ],
        },
    }


def workload(kind: str, name: str, namespace: str, image: str) -> Object:
    """A StatefulSet or Deployment of one notebook."""
    labels = {"app": name}
    spec: Object = {
        "replicas": 1,
        "selector": {"matchLabels": labels},
        "template": {
            "metadata": {"labels": labels},
            "spec": copy.deepcopy(pod(name, namespace, image)["spec"]),
        },
    }
    if kind == "StatefulSet":
        spec["serviceName"] = name
    return {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def claim(name: str, namespace: str) -> Object:
    """A claim on one of the cluster's volumes."""
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}},
        },
    }


def mounting(made: Object, claim: str, *, read_only: bool = False) -> Object:
    """The notebook with the claim at /work."""
    spec = made["spec"]
    volume = {"name": "work", "persistentVolumeClaim": {"claimName": claim}}
    spec.setdefault("volumes", []).append(volume)
    mount = {"name": "work", "mountPath": "/work", "readOnly": read_only}
    spec["containers"][0].setdefault("volumeMounts", []).append(mount)
    return made
