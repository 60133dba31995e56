"""What a run leans on beside its engine's objects: ConfigMap, Service and NetworkPolicy."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from trainseal.api.model import API_VERSION, JsonObject, json_object
from trainseal.api.trainingjob import TrainingJob
from trainseal.engines.podtemplate import (
    LABEL_JOB,
    LABEL_SEAL,
    MASTER_PORT,
    RenderInputs,
    config_map_name,
    has_service,
    service_name,
)


def config_map(
    job: TrainingJob, inputs: RenderInputs, files: Mapping[str, str]
) -> JsonObject | None:
    """The config files, which the gate copies; None where there are none."""
    if not files:
        return None
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": object_metadata(job, inputs, config_map_name(inputs.seal_name), {}),
        "immutable": True,
        "data": dict(files),
    }


def service(
    job: TrainingJob, inputs: RenderInputs, of: Mapping[str, JsonValue] | None = None
) -> JsonObject | None:
    """The headless Service by which workers find each other, None where nobody looks for another;
    ``of``: further labels of the pods that it is a name of, where it is not one of all.
    """
    if not has_service(job, inputs):
        return None
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": object_metadata(job, inputs, service_name(job.metadata.name), {}),
        "spec": {
            "clusterIP": "None",
            "publishNotReadyAddresses": True,
            "selector": {LABEL_SEAL: inputs.seal_name, **(of or {})},
            "ports": [{"name": "rendezvous", "port": MASTER_PORT, "protocol": "TCP"}],
        },
    }


def network_policy(job: TrainingJob, inputs: RenderInputs) -> JsonObject:
    """The rendezvous is unauthenticated: only this run's pods may reach it."""
    selector: JsonObject = {LABEL_SEAL: inputs.seal_name}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": object_metadata(job, inputs, inputs.seal_name, {}),
        "spec": {
            "podSelector": {"matchLabels": selector},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": [{"podSelector": {"matchLabels": selector}}]}],
        },
    }


def isolated(ordinary: JsonObject) -> JsonObject:
    """The run's NetworkPolicy in quarantine: for the same pods, nothing in and nothing out."""
    spec = ordinary["spec"]
    assert isinstance(spec, dict)  # noqa: S101 - rendered by us
    return {
        **ordinary,
        "spec": {"podSelector": spec["podSelector"], "policyTypes": ["Ingress", "Egress"]},
    }


def object_metadata(
    job: TrainingJob, inputs: RenderInputs, name: str, labels: Mapping[str, JsonValue]
) -> JsonObject:
    """Metadata of an object that lives and dies with the TrainingJob."""
    owner = job.metadata.name
    found = owned_metadata(job.metadata.namespace, name, owner, inputs.job_uid, inputs.seal_name)
    return {**found, "labels": {**json_object(found["labels"]), **labels}}


def owned_metadata(namespace: str, name: str, job: str, uid: str, seal: str) -> JsonObject:
    """The same, of a run's TrainingJob by name and UID."""
    return {
        "name": name,
        "namespace": namespace,
        "labels": {LABEL_JOB: job, LABEL_SEAL: seal},
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": "TrainingJob",
                "name": job,
                "uid": uid,
                "controller": True,
            }
        ],
    }
