"""The built-in engine: one Indexed Job a role.

``render`` makes what Kubernetes then runs; ``observe`` reads what it reports. TrainSeal makes no
pods itself. Every pod starts with the gate and retries as a new pod (``restartPolicy: Never``,
``podReplacementPolicy: Failed``). How a worker ended decides what becomes of the Job:

1. A gate that refuted ends the whole Job at once.
2. A gate that could not tell, and a pod that the cluster itself ended (``DisruptionTarget``: a
   drain, a preemption, the loss of a node), are tried again and cost nothing. Kubernetes waits
   longer each time, ten minutes at most.
3. Any other failure counts for its worker alone. One worker that failed too often ends the Job,
   however many workers there are: training goes on with all of them or not at all.

A person can bring about an eviction as often as they like, and the run only loses time by it; each
is on record and a finding. A kill counts like any failure.

A Job selects its pods by labels of ours, which admission gives to nobody else's pod: so the Job
controller counts and adopts no other (docs/decisions/0003).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.api.model import API_VERSION, JsonObject
from trainseal.api.trainingjob import Role, RoleStatus, TrainingJob
from trainseal.engines.podtemplate import (
    GATE_CONTAINER,
    GATE_REFUTED,
    GATE_UNDETERMINED,
    LABEL_JOB,
    LABEL_ROLE,
    LABEL_SEAL,
    MASTER_PORT,
    RenderInputs,
    config_map_name,
    has_gate,
    object_name,
    pod_template,
    service_name,
)
from trainseal.provenance.configfiles import config_files

#: A worker may fail this often; the next time, it takes its Job down.
FAILURES_OF_A_WORKER = 3
#: No bound over all workers: a single crash of one ends the collectives of all others.
_NO_BACKOFF_LIMIT = 2**31 - 1
LABEL_QUEUE = "kueue.x-k8s.io/queue-name"


@dataclass(frozen=True, slots=True)
class RenderedRole:
    """A role and its Job, suspended."""

    name: str
    replicas: int
    object_name: str
    job: JsonObject


@dataclass(frozen=True, slots=True)
class Rendered:
    """All objects of a run; those beside the Jobs come first."""

    config_map: JsonObject | None
    service: JsonObject
    network_policy: JsonObject
    roles: tuple[RenderedRole, ...]


def render(job: TrainingJob, inputs: RenderInputs) -> Rendered:
    """The engine's objects for one run; a pure function of the signed job and the seal."""
    files = config_files(job.spec.config.parameters) if job.spec.config else {}
    config_map: JsonObject | None = None
    if files:
        config_map = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": _object_metadata(job, inputs, config_map_name(inputs.seal_name), {}),
            "immutable": True,
            "data": dict(files),
        }
    selector: JsonObject = {LABEL_SEAL: inputs.seal_name}
    return Rendered(
        config_map=config_map,
        service={
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": _object_metadata(job, inputs, service_name(job.metadata.name), {}),
            "spec": {
                "clusterIP": "None",
                "publishNotReadyAddresses": True,
                "selector": selector,
                "ports": [{"name": "rendezvous", "port": MASTER_PORT, "protocol": "TCP"}],
            },
        },
        network_policy={
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": _object_metadata(job, inputs, inputs.seal_name, {}),
            "spec": {
                # The rendezvous is unauthenticated: only this run's pods may reach it.
                "podSelector": {"matchLabels": selector},
                "policyTypes": ["Ingress"],
                "ingress": [{"from": [{"podSelector": {"matchLabels": selector}}]}],
            },
        },
        roles=tuple(_role(job, role, inputs, files) for role in job.spec.roles),
    )


def isolated(network_policy: JsonObject) -> JsonObject:
    """The run's NetworkPolicy in quarantine: for the same pods, nothing in and nothing out."""
    spec = network_policy["spec"]
    assert isinstance(spec, dict)  # noqa: S101 - rendered by us
    return {
        **network_policy,
        "spec": {"podSelector": spec["podSelector"], "policyTypes": ["Ingress", "Egress"]},
    }


def observe(role: str, replicas: int, job: Mapping[str, JsonValue]) -> RoleStatus:
    """Pod counts as the Job's status reports them.

    Pods that have ended count at once. Kubernetes keeps them under ``uncountedTerminatedPods``
    until it has taken their finalizer off; in between they would be nowhere.
    """
    status = job.get("status")
    counts = status if isinstance(status, Mapping) else {}
    uncounted = counts.get("uncountedTerminatedPods")
    ended = uncounted if isinstance(uncounted, Mapping) else {}

    def count(field: str) -> int:
        value, more = counts.get(field), ended.get(field)
        return (value if isinstance(value, int) else 0) + (
            len(more) if isinstance(more, list) else 0
        )

    return RoleStatus(
        name=role,
        replicas=replicas,
        active=count("active"),
        ready=count("ready"),
        succeeded=count("succeeded"),
        failed=count("failed"),
    )


def outcome(job: Mapping[str, JsonValue]) -> tuple[str, str] | None:
    """``("Complete" | "Failed", message)`` once the Job has ended, else None."""
    status = job.get("status")
    conditions = status.get("conditions") if isinstance(status, Mapping) else None
    for condition in conditions if isinstance(conditions, list) else ():
        if (
            isinstance(condition, Mapping)
            and condition.get("type") in ("Complete", "Failed")
            and condition.get("status") == "True"
        ):
            return str(condition["type"]), str(condition.get("message", ""))
    return None


def _object_metadata(
    job: TrainingJob, inputs: RenderInputs, name: str, labels: Mapping[str, JsonValue]
) -> JsonObject:
    """Metadata of an object that lives and dies with the TrainingJob."""
    return {
        "name": name,
        "namespace": job.metadata.namespace,
        "labels": {LABEL_JOB: job.metadata.name, LABEL_SEAL: inputs.seal_name, **labels},
        "ownerReferences": [
            {
                "apiVersion": API_VERSION,
                "kind": "TrainingJob",
                "name": job.metadata.name,
                "uid": inputs.job_uid,
                "controller": True,
            }
        ],
    }


def _role(
    job: TrainingJob, role: Role, inputs: RenderInputs, files: Mapping[str, str]
) -> RenderedRole:
    name = object_name(job.metadata.name, role.name)
    return RenderedRole(
        name=role.name,
        replicas=role.size,
        object_name=name,
        job={
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": _object_metadata(job, inputs, name, {LABEL_ROLE: role.name}),
            "spec": {
                "suspend": True,
                "completionMode": "Indexed",
                "completions": role.size,
                "parallelism": role.size,
                "backoffLimit": _NO_BACKOFF_LIMIT,
                "backoffLimitPerIndex": FAILURES_OF_A_WORKER,
                "maxFailedIndexes": 0,
                "podReplacementPolicy": "Failed",
                "manualSelector": True,
                "selector": {"matchLabels": {LABEL_SEAL: inputs.seal_name, LABEL_ROLE: role.name}},
                "podFailurePolicy": {"rules": list(_failure_rules(gated=has_gate(job)))},
                "template": pod_template(job, role, inputs, files),
            },
        },
    )


def _failure_rules(*, gated: bool) -> Iterator[JsonObject]:
    """The first that matches counts. The API server refuses a rule on a container there is not."""
    if gated:
        for action, code in (("FailJob", GATE_REFUTED), ("Ignore", GATE_UNDETERMINED)):
            on: JsonObject = {"containerName": GATE_CONTAINER, "operator": "In", "values": [code]}
            yield {"action": action, "onExitCodes": on}
    yield {
        "action": "Ignore",
        "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}],
    }
