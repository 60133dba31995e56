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

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.api.trainingjob import Role, RoleStatus, TrainingJob
from trainseal.engines import surroundings
from trainseal.engines.engine import Engine, Json, ObjectKind, Rendered, RenderedRole
from trainseal.engines.podtemplate import (
    GATE_CONTAINER,
    GATE_REFUTED,
    GATE_UNDETERMINED,
    LABEL_ROLE,
    LABEL_SEAL,
    RenderInputs,
    has_gate,
    object_name,
    pod_template,
)
from trainseal.provenance.boundseals import BoundRole
from trainseal.provenance.configfiles import config_files
from trainseal.provenance.enginemarks import NO_MARKS, Marks

ROOT = OWNER = ObjectKind("Job", "batch/v1", "jobs")
BETWEEN: tuple[Engine, ...] = ()
BESIDE: Mapping[ObjectKind, str] = {}
FIXED: frozenset[str] = frozenset()
WAITS_FOR_PODS = False
#: Conditions after which the Job controller deletes the pods that are left (batch/v1).
_ENDING = frozenset({"Complete", "Failed", "FailureTarget", "SuccessCriteriaMet"})
#: A worker may fail this often; the next time, it takes its Job down.
FAILURES_OF_A_WORKER = 3
#: No bound over all workers: a single crash of one ends the collectives of all others.
_NO_BACKOFF_LIMIT = 2**31 - 1


def render(job: TrainingJob, inputs: RenderInputs) -> Rendered:
    """One Job a role."""
    files = config_files(job.spec.config.parameters) if job.spec.config else {}
    host = f"{object_name(job.metadata.name, job.spec.roles[0].name)}-0"
    roles = []
    for role in job.spec.roles:
        name = object_name(job.metadata.name, role.name)
        template = pod_template(job, role, inputs, files, host)
        roles.append(rendered_role(job, role, inputs, name, job_spec(job, role, inputs, template)))
    return Rendered(
        config_map=surroundings.config_map(job, inputs, files),
        service=surroundings.service(job, inputs),
        network_policy=surroundings.network_policy(job, inputs),
        roots=tuple(role.owner for role in roles),
        roles=tuple(roles),
    )


def rendered_role(
    job: TrainingJob, role: Role, inputs: RenderInputs, name: str, spec: JsonObject
) -> RenderedRole:
    """A role whose pods a suspended Job of this name and ``job_spec`` owns."""
    return RenderedRole(
        name=role.name,
        replicas=role.size,
        object_name=name,
        owner={
            "apiVersion": OWNER.api_version,
            "kind": OWNER.kind,
            "metadata": surroundings.object_metadata(job, inputs, name, {LABEL_ROLE: role.name}),
            "spec": {"suspend": True, **spec},
        },
    )


def as_job(owner: Json) -> JsonObject:
    """It is one."""
    return dict(owner)


def with_templates(rendered: Rendered, templates: Mapping[str, JsonObject]) -> Rendered:
    """The same Jobs with these pods, by role."""
    roles = tuple(
        dataclasses.replace(role, owner=with_template(role.owner, templates[role.name]))
        for role in rendered.roles
    )
    return dataclasses.replace(rendered, roots=tuple(r.owner for r in roles), roles=roles)


def with_template(job: JsonObject, template: JsonObject) -> JsonObject:
    """The Job with these pods."""
    return {**job, "spec": {**json_object(job["spec"]), "template": template}}


def root_names(job: str, owners: Sequence[tuple[str, str]]) -> tuple[str, ...]:  # noqa: ARG001
    """Each Job is a root."""
    return tuple(name for _, name in owners)


def added(role: BoundRole) -> Marks:  # noqa: ARG001 - of none is anything known beyond its Job
    """Nothing beyond what Kubernetes' own Job controller writes, which ``podmatch`` knows."""
    return NO_MARKS


def template_of(owner: Json, added: Marks | None = None) -> JsonObject:
    """A Job's pod template as the API server stores it, less what the server adds for itself.

    The Job controller's own labels differ between a dry run and the Job that is then made (they
    carry its UID); pods get them again, and the comparison allows them.
    """
    template = json_object(owner.get("spec")).get("template")
    found: JsonObject = dict(template) if isinstance(template, dict) else {}
    metadata = found.get("metadata")
    kept: JsonObject = dict(metadata) if isinstance(metadata, dict) else {}
    kept.pop("creationTimestamp", None)
    marks = added or NO_MARKS
    for what, theirs in (("labels", marks.labels), ("annotations", marks.annotations)):
        given = kept.get(what)
        if isinstance(given, dict):
            rest: JsonObject = {k: v for k, v in given.items() if theirs.get(k) != v}
            kept[what] = rest
            if given and not rest:
                del kept[what]
    labels = kept.get("labels")
    if isinstance(labels, dict):
        kept["labels"] = {k: v for k, v in labels.items() if not _is_job_label(k)}
    found["metadata"] = kept
    return found


def _is_job_label(name: str) -> bool:
    return name in ("controller-uid", "job-name") or name.startswith("batch.kubernetes.io/")


def root_changes(wanted: Json, live: Json) -> Iterator[tuple[str, JsonValue, JsonValue]]:  # noqa: ARG001
    """Nothing: a Job owns its pods."""
    yield from ()


def is_suspended(root: Json) -> bool:
    """Whether the Job is."""
    return bool(json_object(root.get("spec")).get("suspend"))


def running(root: JsonObject) -> JsonObject | None:
    """The Job, not suspended: its controller tries again what was refused, later each time."""
    return {**root, "spec": {**json_object(root["spec"]), "suspend": False}}


def suspension(suspended: bool) -> JsonObject:
    """A merge patch of a Job."""
    return {"spec": {"suspend": suspended}}


def pods_at(obj: Json, role: str) -> str:  # noqa: ARG001
    """A Job has one template."""
    return "/spec/template/spec"


def observe(role: str, replicas: int, owner: Json) -> RoleStatus:
    """Pod counts as the Job's status reports them.

    Pods that have ended count at once. Kubernetes keeps them under ``uncountedTerminatedPods``
    until it has taken their finalizer off; in between they would be nowhere.
    """
    status = owner.get("status")
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


def outcome(root: Json) -> tuple[str, str] | None:
    """``("Complete" | "Failed", message)`` once the Job has ended, else None."""
    status = root.get("status")
    conditions = status.get("conditions") if isinstance(status, Mapping) else None
    for condition in conditions if isinstance(conditions, list) else ():
        if (
            isinstance(condition, Mapping)
            and condition.get("type") in ("Complete", "Failed")
            and condition.get("status") == "True"
        ):
            return str(condition["type"]), str(condition.get("message", ""))
    return None


def is_idle(owner: Json) -> bool:
    """Whether the Job is suspended and the Job controller has taken its pods away."""
    status = json_object(owner.get("status"))
    return is_suspended(owner) and has_stopped(status) and not status.get("active")


def has_stopped(status: Json) -> bool:
    """Whether whoever makes the pods says that it never started, or has seen it suspended. Read
    alike of other kinds that tell it so.
    """
    return status.get("startTime") is None or seen_suspended(status)


def seen_suspended(status: Json) -> bool:
    """Whether whoever makes the pods has seen it suspended, and not yet resumed."""
    return any(
        c.get("type") == "Suspended" and c.get("status") == "True"
        for c in json_objects(status.get("conditions"))
    )


def is_ending(owner: Json) -> bool:
    """Whether the Job has ended, or is about to."""
    return any(
        c.get("type") in _ENDING and c.get("status") == "True"
        for c in json_objects(json_object(owner.get("status")).get("conditions"))
    )


def job_spec(
    job: TrainingJob, role: Role, inputs: RenderInputs, template: JsonObject
) -> JsonObject:
    """Of the Job that runs a role's pods, but for whether it is suspended."""
    return {
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
        "template": template,
    }


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
