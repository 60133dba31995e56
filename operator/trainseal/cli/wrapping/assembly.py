"""The TrainingJob of a workload, put together of what its converter found."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from pydantic import JsonValue

from trainseal.api.model import API_VERSION, JsonObject
from trainseal.cli.wrapping.environment import Reading
from trainseal.cli.wrapping.fields import Field
from trainseal.cli.wrapping.ledger import Ledger
from trainseal.cli.wrapping.mounts import Roles, roles_of
from trainseal.cli.wrapping.pods import (
    FOR_JOBSET,
    WITHOUT_JOBSET,
    Pod,
    in_image,
    placement,
    role_template,
)
from trainseal.cli.wrapping.surroundings import Surroundings
from trainseal.cli.wrapping.workload import Subject, Workload
from trainseal.engines.engine import LABEL_QUEUE
from trainseal.provenance.canonical import KIND
from trainseal.provenance.document import FieldPath
from trainseal.provenance.jobrules import MAX_NAME

_KUEUE = "kueue.x-k8s.io/"
#: What the cluster writes, and no person.
_CLUSTERS = frozenset(
    {
        "creationTimestamp", "deletionTimestamp", "generation", "managedFields", "resourceVersion",
        "selfLink", "uid",
    }
)  # fmt: skip
_CLUSTERS_KEYS = ("kubectl.kubernetes.io/last-applied-configuration", "batch.kubernetes.io/")
_NO_NAME = re.compile(r"[^a-z0-9]+")


def job_name(root: Field, ledger: Ledger) -> str:
    """The name that the TrainingJob gets: the workload's, or one like it that a job may have."""
    metadata = root.get("metadata") or root
    found, generated = metadata.get("name"), metadata.get("generateName")
    text = metadata.text("name") or metadata.text("generateName")
    name = _NO_NAME.sub("-", text.lower()).strip("-")
    name = name if name[:1].isalpha() else f"job-{name}".rstrip("-")
    name = name[:MAX_NAME].rstrip("-")
    ledger.settle(found)
    at: FieldPath = ("metadata", "name")
    ledger.came_from(at, found or generated or root)
    if found is None and generated is not None:
        ledger.guessed(
            generated, f"a job that is signed has a name of its own: {name}",
            "for many runs of one job, `trainseal template from-job`", at,
        )  # fmt: skip
    elif name != text:
        ledger.guessed(
            found or root, f"{text!r} became {name!r}: pods and their host names carry it",
            f"give it a DNS label of at most {MAX_NAME} characters that starts with a letter", at,
        )  # fmt: skip
        ledger.settle(generated)
    else:
        ledger.settle(generated)
    return name


def assembled(subject: Subject, workload: Workload, around: Surroundings) -> JsonObject:
    """The TrainingJob. What of the workload is not in it stands in the ledger."""
    ledger, root = subject.ledger, subject.root
    subject = replace(subject, roles=tuple(role.name for role in workload.roles))
    ledger.settle(root.get("apiVersion"), root.get("kind"), root.get("status"))
    ledger.settle(workload.suspend)
    pods = [Pod(role.template) for role in workload.roles]
    mounts = roles_of(
        [m for pod in pods for m in pod.mounts()],
        [p for pod in pods for p in pod.runs()],
        around,
        ledger,
    )
    _unmounted(pods, ledger)
    scheduling, hoisted = _scheduling(subject, workload, pods)
    spec: JsonObject = {"engine": subject.engine, **mounts.spec()}
    spec["roles"] = [
        _role(subject, workload, index, mounts, around, hoisted)
        for index in range(len(workload.roles))
    ]
    in_image(pods, _mount_paths(mounts), ledger)
    metadata, queue = _metadata(subject, workload)
    if queue:
        scheduling = {"queueName": queue, **scheduling}
    if scheduling:
        spec["scheduling"] = scheduling
    if workload.suspend is not None and workload.suspend.content is True:
        spec["suspend"] = True
    return {"apiVersion": API_VERSION, "kind": KIND, "metadata": metadata, "spec": spec}


def _role(
    subject: Subject,
    workload: Workload,
    index: int,
    mounts: Roles,
    around: Surroundings,
    hoisted: Mapping[str, Field],
) -> JsonObject:
    role = workload.roles[index]
    at: FieldPath = ("spec", "roles", index)
    subject.ledger.came_from(at, role.template)
    reading = Reading(
        role=role,
        renames=(*workload.hosts, *mounts.renames),
        first=subject.first_host(workload.roles[0].name),
        index=subject.index_path,
        around=around,
        ledger=subject.ledger,
    )
    template = role_template(Pod(role.template), (*at, "template"), reading, hoisted)
    return {"name": role.name, "replicas": role.replicas, "template": template}


def _unmounted(pods: list[Pod], ledger: Ledger) -> None:
    mounted = {
        (id(m.volume.document), m.volume.path) for pod in pods for m in pod.mounts() if m.volume
    }
    for pod in pods:
        listed = pod.template.at("spec", "volumes")
        for volume in listed.items() if listed else ():
            if (id(volume.document), volume.path) not in mounted:
                ledger.changed(volume, "nothing mounts it")


def _mount_paths(mounts: Roles) -> list[str]:
    entries = [*mounts.code, *mounts.data, *mounts.scratch]
    entries += [e for e in (mounts.config, mounts.checkpoints) if e]
    return [str(entry["mountPath"]) for entry in entries]


def _scheduling(
    subject: Subject, workload: Workload, pods: list[Pod]
) -> tuple[JsonObject, Mapping[str, Field]]:
    """What says where the pods go, where all of them say the same; it is not signed then."""
    ledger = subject.ledger
    found: JsonObject = {}
    hoisted = dict(placement(pods))
    for name, field in hoisted.items():
        at: FieldPath = ("spec", "scheduling", name)
        found[name] = ledger.carry(field, at)
        ledger.changed(field, "it is spec.scheduling now, which is not signed", at)
        ledger.settle(*(pod.spec.get(name) for pod in pods if pod.spec))
    gang = workload.priority_class
    if gang is not None:
        at = ("spec", "scheduling", "priorityClassName")
        if "priorityClassName" in found:
            ledger.left(gang, "the pods name a priority class of their own", "choose one of them")
        else:
            found["priorityClassName"] = ledger.carry(gang, at)
            ledger.changed(gang, "it is spec.scheduling now, which is not signed", at)
    return found, hoisted


def _metadata(subject: Subject, workload: Workload) -> tuple[JsonObject, str]:
    """The TrainingJob's own, and the queue that a label of it names."""
    ledger = subject.ledger
    metadata = subject.root.get("metadata")
    found: JsonObject = {"name": subject.name}
    if subject.namespace:
        found["namespace"] = subject.namespace
    queue = ""
    for name, field in metadata.entries() if metadata else ():
        if name in _CLUSTERS or name == "namespace":
            ledger.settle(field)
    parts: dict[str, dict[str, JsonValue]] = {}
    places = [(n, f) for n in ("labels", "annotations") if (f := metadata and metadata.get(n))]
    places += [("labels", field) for field in workload.labels]
    for part, field in places:
        for key, value in field.entries():
            if key == LABEL_QUEUE:
                queue = queue or str(value.content)
                at: FieldPath = ("spec", "scheduling", "queueName")
                ledger.changed(value, "the queue is spec.scheduling.queueName", at)
            elif key.startswith(_KUEUE):
                ledger.left(
                    value, f"{key} is not passed on to what the queue sees",
                    "see whether the queue needs it", settles=True,
                )  # fmt: skip
            elif key.startswith(FOR_JOBSET):
                ledger.left(value, *WITHOUT_JOBSET)
            elif key.startswith(_CLUSTERS_KEYS):
                ledger.settle(value)
            else:
                parts.setdefault(part, {})[key] = ledger.carry(value, ("metadata", part, key))
        if not [*field.entries()]:
            ledger.settle(field)
    return {**found, **parts}, queue
