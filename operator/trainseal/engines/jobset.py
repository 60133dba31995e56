"""JobSet (jobset.sigs.k8s.io): one JobSet a run, with one Job a role, made by JobSet's controller.

The root is the JobSet; its child Jobs own the pods. While the JobSet is suspended, its controller
makes the child Jobs suspended: so a seal is bound to the JobSet and to each of its Jobs before a
pod is made, and a pod is admitted by the UID of its Job, as with the built-in engine. Each child
Job is what that engine would have made, so workers fail and are tried again in the same way.

What JobSet does beside, and what it may not:

1. One failed Job fails the JobSet, and its controller ends the Jobs of the other roles. There is no
   ``failurePolicy``: a restart makes new Jobs, which no seal is bound to.
2. ``network`` is off: the run's own Service is there before the first pod.
3. On pods and on Jobs its controller writes labels and annotations, all of which follow from the
   JobSet's name and UID and the role's place in it; its webhook writes a label with the pod's
   priority. Source: sigs.k8s.io/jobset v0.11.0, pkg/controllers/jobset_controller.go
   (``labelAndAnnotateObject``) and pkg/webhooks/pod_mutating_webhook.go.
4. It gives node selector, tolerations and scheduling gates on to its Jobs once it is resumed, and
   takes none away; affinity it lets nobody change.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence, Set

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.api.trainingjob import TrainingJob
from trainseal.engines import job as jobs
from trainseal.engines import surroundings
from trainseal.engines.engine import Engine, Json, ObjectKind, Rendered, RenderedRole
from trainseal.engines.podtemplate import RenderInputs, pod_template, shortened
from trainseal.provenance.boundseals import BoundRole
from trainseal.provenance.configfiles import config_files
from trainseal.provenance.enginemarks import Marks

ROOT = ObjectKind("JobSet", "jobset.x-k8s.io/v1alpha2", "jobsets")
OWNER = jobs.OWNER
BETWEEN: tuple[Engine, ...] = ()
BESIDE: Mapping[ObjectKind, str] = {}
FIXED = frozenset({"affinity"})
_PREFIX = "jobset.sigs.k8s.io/"
_GROUP = "default"
#: What JobSet adds to a JobSet's name for a pod's: role, Job's index, pod's index, five characters.
_LONGEST_POD = 63
_SUFFIXES = len("-0-99999-abcde")

observe = jobs.observe
is_suspended = jobs.is_suspended
suspension = jobs.suspension


def render(job: TrainingJob, inputs: RenderInputs) -> Rendered:
    """One JobSet, and its Jobs as its controller is to make them but for its marks."""
    files = config_files(job.spec.config.parameters) if job.spec.config else {}
    name = jobset_name(job.metadata.name, [role.name for role in job.spec.roles])
    first = f"{child_name(name, job.spec.roles[0].name)}-0"
    roles: list[RenderedRole] = []
    parts: list[JsonValue] = []
    for role in job.spec.roles:
        spec = jobs.job_spec(job, role, inputs, pod_template(job, role, inputs, files, first))
        child = child_name(name, role.name)
        rendered = jobs.rendered_role(job, role, inputs, child, copy.deepcopy(spec))
        labels = json_object(rendered.owner["metadata"])["labels"]
        parts.append(
            {
                "name": role.name,
                "groupName": _GROUP,
                "replicas": 1,
                "template": {"metadata": {"labels": labels}, "spec": spec},
            }
        )
        roles.append(rendered)
    root: JsonObject = {
        "apiVersion": ROOT.api_version,
        "kind": ROOT.kind,
        "metadata": surroundings.object_metadata(job, inputs, name, {}),
        # Whole, with what JobSet's webhook would fill in: so each further field is a difference.
        "spec": {
            "suspend": True,
            "network": {"enableDNSHostnames": False, "publishNotReadyAddresses": True},
            "successPolicy": {"operator": "All"},
            "startupPolicy": {"startupPolicyOrder": "AnyOrder"},
            "replicatedJobs": parts,
        },
    }
    return Rendered(
        config_map=surroundings.config_map(job, inputs, files),
        service=surroundings.service(job, inputs),
        network_policy=surroundings.network_policy(job, inputs),
        roots=(root,),
        roles=tuple(roles),
    )


def jobset_name(job: str, roles: Sequence[str]) -> str:
    """So short that the names of all its pods are labels of the domain name system."""
    return shortened(job, _LONGEST_POD - _SUFFIXES - 1 - max(map(len, roles)))


def child_name(jobset: str, role: str) -> str:
    """How JobSet's controller names a role's Job."""
    return f"{jobset}-{role}-0"


def running(root: JsonObject) -> JsonObject | None:  # noqa: ARG001
    """None: its Jobs are made, and bound, while it is suspended."""
    return None


def with_templates(rendered: Rendered, templates: Mapping[str, JsonObject]) -> Rendered:
    """The same with these pods, in the JobSet and in what is made of it."""
    (root,) = rendered.roots
    spec = json_object(root["spec"])
    parts: list[JsonValue] = []
    for part in json_objects(spec["replicatedJobs"]):
        template = json_object(part["template"])
        with_pods = {**json_object(template["spec"]), "template": templates[str(part["name"])]}
        parts.append({**part, "template": {**template, "spec": with_pods}})
    roles = tuple(
        dataclasses.replace(role, owner=jobs.with_template(role.owner, templates[role.name]))
        for role in rendered.roles
    )
    new: JsonObject = {**root, "spec": {**spec, "replicatedJobs": parts}}
    return dataclasses.replace(rendered, roots=(new,), roles=roles)


def root_names(job: str, owners: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The one JobSet."""
    return (jobset_name(job, [role for role, _ in owners]),)


def added(role: BoundRole) -> Marks:
    """What JobSet's controller and its webhook write."""
    if role.root is None:
        return Marks()  # bound to no JobSet: nothing is its controller's
    many, place = str(len(role.peers)), str(role.peers.index(role.role))
    name = f"{role.namespace}/{role.object_name}"
    marks = {
        "jobset-name": role.root.name,
        "jobset-uid": role.root.uid,
        "replicatedjob-name": role.role,
        "restart-attempt": "0",
        "replicatedjob-replicas": "1",
        "global-replicas": many,
        "job-index": "0",
        "job-key": hashlib.sha1(name.encode(), usedforsecurity=False).hexdigest(),
        "job-global-index": place,
        "group-name": _GROUP,
        "group-replicas": many,
        "job-group-index": place,
    }
    written = {f"{_PREFIX}{key}": value for key, value in marks.items()}
    return Marks(written, written, priority_label=f"{_PREFIX}priority")


def root_changes(wanted: Json, live: Json) -> Iterator[tuple[str, JsonValue, JsonValue]]:
    """What of a JobSet is not as rendered, its pods aside: those of its Jobs are compared.

    Found, and expected.
    """
    own, found = json_object(wanted.get("spec")), json_object(live.get("spec"))
    yield from differences("spec", own, found, {"suspend", "replicatedJobs"})
    one, other = (json_objects(spec.get("replicatedJobs")) for spec in (own, found))
    if len(one) != len(other):
        yield "spec.replicatedJobs", len(other), len(one)
    for number, (part, has) in enumerate(zip(one, other, strict=False)):
        if _without_pods(part) != _without_pods(has):
            yield f"spec.replicatedJobs[{number}]", _without_pods(has), _without_pods(part)


def differences(
    at: str, own: Json, found: Json, but: Set[str]
) -> Iterator[tuple[str, JsonValue, JsonValue]]:
    """Fields at this path, less these, that are not as rendered: found and expected."""
    for field in sorted((own.keys() | found.keys()) - but):
        if own.get(field) != found.get(field):
            yield f"{at}.{field}", found.get(field), own.get(field)


def _without_pods(part: JsonObject) -> JsonObject:
    template = json_object(part.get("template"))
    spec = {k: v for k, v in json_object(template.get("spec")).items() if k != "template"}
    # The kinds of a JobSet's templates are written with a creation time by some clients.
    metadata = json_object(template.get("metadata"))
    kept = {k: v for k, v in metadata.items() if k != "creationTimestamp"}
    return {**part, "template": {**template, "metadata": kept, "spec": spec}}


def outcome(root: Json) -> tuple[str, str] | None:
    """``("Complete" | "Failed", message)`` once the JobSet has ended, else None."""
    for condition in json_objects(json_object(root.get("status")).get("conditions")):
        if condition.get("type") in ("Completed", "Failed") and condition.get("status") == "True":
            ended = "Complete" if condition["type"] == "Completed" else "Failed"
            return ended, str(condition.get("message", ""))
    return None


def pods_at(obj: Json, role: str) -> str:
    """In a JobSet by the role's place, in a Job of it as in each Job."""
    spec = json_object(obj.get("spec"))
    if "replicatedJobs" not in spec:
        return jobs.pods_at(obj, role)
    names = [part.get("name") for part in json_objects(spec["replicatedJobs"])]
    number = names.index(role) if role in names else len(names)
    return f"/spec/replicatedJobs/{number}/template/spec/template/spec"
