"""TrainJob (trainer.kubeflow.org): one TrainJob a run, of which the trainer makes a JobSet.

The root is the TrainJob. Beside it stands a TrainingRuntime of the run's own, of which the trainer
makes a JobSet of the TrainJob's name; JobSet's controller makes Jobs of that, which own the pods.
All of it is made while the TrainJob is suspended, so a seal is bound to each of these before there
is a pod. Runtime and JobSet hold what the engine JobSet would have made (``jobset``): workers fail
and are tried again in the same way.

What the trainer may do, by its source (github.com/kubeflow/trainer v2.0.0, pkg/runtime):

1. What a runtime says is code. So a run has one that is rendered from the signed job; none that is
   shared is named, and the TrainJob says nothing but its runtime's name.
2. There is no ``mlPolicy``, and no Job bears the label ``trainjob-ancestor-step``: so the trainer
   changes no container, and adds no variable ``PET_*`` (plugins ``plainml``, ``torch``, ``mpi``;
   ``jobset/builder.go``). What torchrun is to be told is signed in the template.
3. It writes nothing on Jobs and pods. What these have beyond the seal is JobSet's controller's, and
   follows from the JobSet's UID.
4. While it is suspended, and when it is resumed, it writes the runtime's whole JobSet over its own:
   so a run is placed in the runtime, too.
5. It numbers a container's ports by their names, and takes all that have none for one
   (``apply.UpsertPort``): a JobSet of such a container is another, and is not bound.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.api.trainingjob import TrainingJob
from trainseal.engines import job as jobs
from trainseal.engines import jobset, surroundings
from trainseal.engines.engine import Engine, Json, ObjectKind, Rendered
from trainseal.engines.podtemplate import RenderInputs
from trainseal.provenance.boundseals import BoundRole
from trainseal.provenance.enginemarks import Marks

_GROUP = "trainer.kubeflow.org"
ROOT = ObjectKind("TrainJob", f"{_GROUP}/v1alpha1", "trainjobs")
RUNTIME = ObjectKind("TrainingRuntime", f"{_GROUP}/v1alpha1", "trainingruntimes")
OWNER = jobs.OWNER
BETWEEN: tuple[Engine, ...] = (jobset,)
#: The floor lets nobody else's TrainJob name a runtime of such a name.
RUNTIME_PREFIX = "trainseal-"
BESIDE: Mapping[ObjectKind, str] = {RUNTIME: RUNTIME_PREFIX}
FIXED = jobset.FIXED
#: Fields that JobSet has, and the trainer's own copy of it has not.
_UNKNOWN = frozenset({"groupName"})

observe = jobs.observe
outcome = jobs.outcome
is_suspended = jobs.is_suspended
running = jobset.running
suspension = jobs.suspension
root_names = jobset.root_names


def render(job: TrainingJob, inputs: RenderInputs) -> Rendered:
    """One TrainJob, its runtime, and JobSet and Jobs as they are to be made but for marks."""
    made = jobset.render(job, inputs)
    (whole,) = made.roots
    metadata = json_object(whole["metadata"])
    name, labels = str(metadata["name"]), json_object(metadata["labels"])
    runtime: JsonObject = {
        "apiVersion": RUNTIME.api_version,
        "kind": RUNTIME.kind,
        "metadata": surroundings.object_metadata(job, inputs, f"{RUNTIME_PREFIX}{name}", {}),
        "spec": {"template": {"metadata": {"labels": labels}, "spec": _template(whole)}},
    }
    root: JsonObject = {
        "apiVersion": ROOT.api_version,
        "kind": ROOT.kind,
        "metadata": metadata,
        # Whole, with what the API server would fill in: so each further field is a difference.
        "spec": {
            "suspend": True,
            "managedBy": f"{_GROUP}/trainjob-controller",
            "runtimeRef": {
                "apiGroup": _GROUP,
                "kind": RUNTIME.kind,
                "name": f"{RUNTIME_PREFIX}{name}",
            },
        },
    }
    kept: JsonObject = {k: v for k, v in metadata.items() if k != "ownerReferences"}
    return dataclasses.replace(
        made, roots=(root,), beside=(runtime,), between=({**whole, "metadata": kept},)
    )


def _template(whole: JsonObject) -> JsonObject:
    """A JobSet's spec as a runtime has it: whether it is suspended is the TrainJob's to say."""
    spec = {k: v for k, v in json_object(whole["spec"]).items() if k != "suspend"}
    parts: list[JsonValue] = [
        {k: v for k, v in part.items() if k not in _UNKNOWN}
        for part in json_objects(spec["replicatedJobs"])
    ]
    return {**spec, "replicatedJobs": parts}


def with_templates(rendered: Rendered, templates: Mapping[str, JsonObject]) -> Rendered:
    """The same with these pods, in the runtime and in what is made of it."""
    inner = jobset.with_templates(dataclasses.replace(rendered, roots=rendered.between), templates)
    (whole,), (runtime,) = inner.roots, rendered.beside
    template = json_object(json_object(runtime["spec"])["template"])
    new: JsonObject = {**runtime, "spec": {"template": {**template, "spec": _template(whole)}}}
    return dataclasses.replace(inner, roots=rendered.roots, beside=(new,), between=(whole,))


def added(role: BoundRole) -> Marks:
    """What JobSet's controller and its webhook write, by the JobSet that the trainer made."""
    made = next((item for item in role.above if item.kind == jobset.ROOT.kind), None)
    return jobset.added(dataclasses.replace(role, root=made))


def root_changes(wanted: Json, live: Json) -> Iterator[tuple[str, JsonValue, JsonValue]]:
    """What of a TrainJob, of its runtime or of its JobSet is not as rendered, pods aside."""
    if wanted["kind"] == jobset.ROOT.kind:
        yield from jobset.root_changes(wanted, live)
        return
    own, found = json_object(wanted.get("spec")), json_object(live.get("spec"))
    if wanted["kind"] == RUNTIME.kind:
        yield from jobset.differences("spec", own, found, {"template"})
        own, found = json_object(own.get("template")), json_object(found.get("template"))
        yield from jobset.differences("spec.template", own, found, {"spec"})
        for field, has, must in jobset.root_changes(own, found):
            yield f"spec.template.{field}", has, must
        return
    yield from jobset.differences("spec", own, found, {"suspend"})


def pods_at(obj: Json, role: str) -> str:
    """In a runtime as in the JobSet that is made of it; a TrainJob has none."""
    spec = json_object(obj.get("spec"))
    if "runtimeRef" in spec:
        return ""
    within = json_object(json_object(spec.get("template")).get("spec"))
    if "replicatedJobs" in within:
        return "/spec/template" + jobset.pods_at({"spec": within}, role)
    return jobset.pods_at(obj, role)
