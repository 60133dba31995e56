"""Katib on a cluster, as its own manifests install it, of images built here.

Its UI is not there. It keeps what it observed in PostgreSQL, as one of its own installs does.
"""

from __future__ import annotations

from typing import Any

import yaml

from tests.cluster import Target
from tests.cluster.toolchain import module_files
from tests.images.postgres_image import USER, build_postgres_image
from tests.stage.engines import apply_kustomized, push_program, wait_for_deployment

Object = dict[str, Any]
NAMESPACE = "kubeflow"
#: What its controller runs as.
CONTROLLER = f"system:serviceaccount:{NAMESPACE}:katib-controller"
_MODULE = "github.com/kubeflow/katib"


def install_katib(target: Target) -> None:
    """Returns once Katib's controller and what keeps its observations are ready."""
    manifests = module_files("katib-controller", _MODULE) / "manifests" / "v1beta1"
    suggestion = push_program(target, "goptuna-suggestion", "/goptuna-suggestion")
    config = yaml.safe_load((manifests / "installs/katib-standalone/katib-config.yaml").read_text())
    # As the example says.
    config["init"]["controller"]["trialResources"].append("TrainingJob.v1alpha1.trainseal.dev")
    few = {"cpu": "20m", "memory": "32Mi", "ephemeral-storage": "-1"}
    config["runtime"]["suggestions"] = [
        {
            "algorithmName": "random",
            "image": suggestion,
            # Katib's word for a limit that is not to be set.
            "resources": {"requests": few, "limits": {"ephemeral-storage": "-1"}},
        }
    ]
    postgres = target.push_image(build_postgres_image(), "engines/postgres")
    container = "/spec/template/spec/containers/0"
    settings = {"katib-config.yaml": yaml.safe_dump(config)}
    components = manifests / "components"
    there = target.kubectl("get", "namespace", NAMESPACE, "--ignore-not-found", "-o", "name")
    if not there.strip():
        target.kubectl("create", "namespace", NAMESPACE)
    apply_kustomized(
        target,
        [components / name for name in ("controller", "crd", "db-manager", "postgres", "webhook")],
        namespace=NAMESPACE,
        images={
            f"ghcr.io/kubeflow/katib/{name}": push_program(target, name, f"/{name}")
            for name in ("katib-controller", "katib-db-manager")
        },
        patches={
            "katib-db-manager": [
                _replaced(f"{container}/env/0/value", "postgres"),
                _replaced(f"{container}/env/1", {"name": "DB_PASSWORD", "value": "katib"}),
            ],
            # What it keeps ends with it: the test cluster provisions no volume.
            "katib-postgres": [
                _replaced(f"{container}/image", postgres),
                _replaced(f"{container}/env", []),
                _replaced(f"{container}/volumeMounts", []),
                _replaced("/spec/template/spec/volumes", []),
                _added("/spec/template/spec/securityContext", {"runAsUser": USER}),
            ],
        },
        objects=[
            _object("ConfigMap", "katib-config", data=settings),
            _object("Secret", "katib-webhook-cert"),
        ],
    )
    for name in ("katib-postgres", "katib-db-manager", "katib-controller"):
        wait_for_deployment(target, NAMESPACE, name)


def _object(kind: str, name: str, **fields: object) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, **fields}


def _replaced(path: str, value: object) -> Object:
    return {"op": "replace", "path": path, "value": value}


def _added(path: str, value: object) -> Object:
    return {"op": "add", "path": path, "value": value}
