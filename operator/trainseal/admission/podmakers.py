"""What makes pods: which kinds do, where each has its template, and what is said of the pods.

A Deployment is admitted by nobody here; its pods are. What would become of them is told by the
rules of pods, as if whoever makes Jobs' pods made one of the template.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainseal.admission.pods import PodRulesContext, decide
from trainseal.admission.reviews import Request, Response
from trainseal.api.accessrecord import ObjectKind
from trainseal.api.model import JsonObject, json_object


@dataclass(frozen=True, slots=True)
class PodMaker:
    """A kind, and the fields that lead to its template; none of a pod, which is its own."""

    kind: ObjectKind
    api_version: str
    plural: str
    place: tuple[str, ...] = ("spec", "template")

    def template(self, obj: JsonObject) -> JsonObject:
        """The pod's template in an object of the kind; empty where it has none."""
        for part in self.place:
            obj = json_object(obj.get(part))
        return obj


_ALL = (
    PodMaker("CronJob", "batch/v1", "cronjobs", ("spec", "jobTemplate", "spec", "template")),
    PodMaker("DaemonSet", "apps/v1", "daemonsets"),
    PodMaker("Deployment", "apps/v1", "deployments"),
    PodMaker("Job", "batch/v1", "jobs"),
    PodMaker("Pod", "v1", "pods", ()),
    PodMaker("ReplicaSet", "apps/v1", "replicasets"),
    PodMaker("ReplicationController", "v1", "replicationcontrollers"),
    PodMaker("StatefulSet", "apps/v1", "statefulsets"),
)
BY_KIND: Mapping[str, PodMaker] = {maker.kind: maker for maker in _ALL}
BY_PLURAL: Mapping[str, PodMaker] = {maker.plural: maker for maker in _ALL}


def judged(template: JsonObject, namespace: str, name: str, context: PodRulesContext) -> Response:
    """What would be said of a pod made of the template."""
    metadata = json_object(template.get("metadata"))
    pod: JsonObject = {
        "metadata": {
            **{k: metadata[k] for k in ("labels", "annotations") if k in metadata},
            "name": name,
            "namespace": namespace,
        },
        "spec": json_object(template.get("spec")),
    }
    request = Request(
        uid="",
        operation="CREATE",
        resource="pods",
        subresource="",
        namespace=namespace,
        name=name,
        username=min(context.pod_creators, default=""),
        user_uid="",
        dry_run=True,
        object=pod,
        old={},
    )
    return decide(request, context, final=True)
