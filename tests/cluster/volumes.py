"""Volumes for claims: a default StorageClass, and a few directories of the node behind it.

Nothing provisions them; each serves one claim for the cluster's life. They are `local` volumes and
not hostPath, since only with these does the kubelet give a pod's fsGroup the right to write.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

COUNT = 6
CLASS = "trainseal-test"


def make(folder: Path, node: str) -> list[tuple[str, dict[str, Any]]]:
    """Makes the directories; the API's collections with the objects to create there."""
    storage_class = {
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {
            "name": CLASS,
            "annotations": {"storageclass.kubernetes.io/is-default-class": "true"},
        },
        "provisioner": "kubernetes.io/no-provisioner",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    made = [("/apis/storage.k8s.io/v1/storageclasses", storage_class)]
    for number in range(COUNT):
        path = folder / "volumes" / str(number)
        path.mkdir(parents=True, exist_ok=True)
        made.append(("/api/v1/persistentvolumes", _volume(path, number, node)))
    return made


def _volume(path: Path, number: int, node: str) -> dict[str, Any]:
    here = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"{CLASS}-{number}"},
        "spec": {
            # Nothing holds them to it.
            "capacity": {"storage": "100Gi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": CLASS,
            "persistentVolumeReclaimPolicy": "Retain",
            "local": {"path": str(path)},
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }
