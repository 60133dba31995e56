"""The training example without TrainSeal, as a team would write it.

An Indexed Job with its code and configuration in a ConfigMap. It asks for no GPU, so that no
webhook is asked about its pods; the cluster's GPUs are numbers on a node and take no time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Object = dict[str, Any]

_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"


def bare_job(signed: Object, name: str, namespace: str, tree: Path) -> list[Object]:
    """The objects to apply: what a TrainingJob's one role trains with, less what TrainSeal adds."""
    role = signed["spec"]["roles"][0]
    trainer = role["template"]["spec"]["containers"][0]
    parameters = signed["spec"]["config"]["parameters"]
    files = {path.name: path.read_text() for path in sorted(tree.glob("*.py"))}
    folders = {
        "/workspace": "code",
        "/etc/training": "config",
        "/checkpoints": "out",
        "/tmp": "tmp",
    }
    container = {
        "name": "trainer",
        "image": trainer["image"],
        "command": trainer["command"],
        "resources": {"requests": trainer["resources"]["requests"]},
        "volumeMounts": [{"name": n, "mountPath": path} for path, n in folders.items()],
        "env": [
            {"name": "MASTER_ADDR", "value": f"{name}-0.{name}.{namespace}.svc"},
            {"name": "MASTER_PORT", "value": "29500"},
            {"name": "WORLD_SIZE", "value": str(role["replicas"])},
            {"name": "RANK", "valueFrom": {"fieldRef": {"fieldPath": _INDEX}}},
        ],
    }
    pod = {
        "restartPolicy": "Never",
        "subdomain": name,
        "containers": [container],
        "volumes": [
            {"name": "code", "configMap": {"name": name}},
            {"name": "config", "configMap": {"name": f"{name}-config"}},
            {"name": "out", "emptyDir": {}},
            {"name": "tmp", "emptyDir": {}},
        ],
    }
    return [
        _config_map(name, namespace, files),
        _config_map(f"{name}-config", namespace, {"config.json": json.dumps(parameters)}),
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": {"batch.kubernetes.io/job-name": name},
            },
        },
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "completionMode": "Indexed",
                "completions": role["replicas"],
                "parallelism": role["replicas"],
                "template": {"spec": pod},
            },
        },
    ]


def _config_map(name: str, namespace: str, data: Mapping[str, str]) -> Object:
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": dict(data)}
