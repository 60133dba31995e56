"""Kueue's objects as a platform team writes them: two flavors of nodes, and queues with a quota."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Object = dict[str, Any]

API = "kueue.x-k8s.io/v1beta2"
#: What Kueue puts on the pods of what it lets start, for a policy's additions.
ADDITION: Object = {
    "name": "kueue",
    "reason": "Kueue says which of a workload's pods this is",
    "labels": ["kueue.x-k8s.io/podset"],
    "annotations": ["kueue.x-k8s.io/workload"],
}
#: By which nodes say of which flavor they are.
POOL = "pool.example.org"
_PLENTY = 1000


def flavor(name: str) -> Object:
    """Nodes whose pool has this name."""
    return _object("ResourceFlavor", name, {"nodeLabels": {POOL: name}})


def cluster_queue(
    name: str, gpus: dict[str, int], checks: Sequence[str] = (), **spec: Any
) -> Object:
    """So many GPUs of each flavor, and plenty of all else; for every namespace."""
    covered = ["cpu", "memory", "nvidia.com/gpu"]
    quotas = {"cpu": _PLENTY, "memory": f"{_PLENTY}Gi"}
    found = {
        "namespaceSelector": {},
        "resourceGroups": [
            {
                "coveredResources": covered,
                "flavors": [
                    {
                        "name": flavor,
                        "resources": [
                            {"name": resource, "nominalQuota": quotas.get(resource, number)}
                            for resource in covered
                        ],
                    }
                    for flavor, number in gpus.items()
                ],
            }
        ],
        **spec,
    }
    if checks:
        found["admissionChecksStrategy"] = {"admissionChecks": [{"name": c} for c in checks]}
    return _object("ClusterQueue", name, found)


def local_queue(name: str, namespace: str, cluster: str) -> Object:
    """A team's way into a ClusterQueue."""
    return _object("LocalQueue", name, {"clusterQueue": cluster}, namespace)


def admission_check(name: str, controller: str) -> Object:
    """Asked before a queue that lists it admits a Workload."""
    return _object("AdmissionCheck", name, {"controllerName": controller})


def _object(kind: str, name: str, spec: Object, namespace: str = "") -> Object:
    place = {"namespace": namespace} if namespace else {}
    return {"apiVersion": API, "kind": kind, "metadata": {"name": name, **place}, "spec": spec}
