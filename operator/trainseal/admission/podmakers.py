"""What makes pods: which kinds do, where each has its template, and what is said of the pods.

A Deployment is admitted by nobody here; its pods are. What would become of them is told by the
rules of pods, as if whoever makes Jobs' pods made one of the template; where a lane takes them, as
they are then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainseal.admission.pods import PodRulesContext, decide
from trainseal.admission.reviews import Request, Response
from trainseal.api.accessrecord import ObjectKind
from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.provenance.gpuasks import resources_of
from trainseal.provenance.lanes import admitted, chosen


@dataclass(frozen=True, slots=True)
class PodMaker:
    """A kind, and the fields that lead to its template; none of a pod, which is its own.

    ``in_lanes``: lanes take its pods. ``parts``: the fields that lead to a list, or to a map, in
    each item of which there is a template.
    """

    kind: ObjectKind
    api_version: str
    plural: str
    place: tuple[str, ...] = ("spec", "template")
    in_lanes: bool = False
    parts: tuple[str, ...] = ()

    def templates(self, obj: JsonObject) -> tuple[JsonObject, ...]:
        """The templates of its pods."""
        if not self.parts:
            return (self.template(obj),)
        *above, last = self.parts
        for part in above:
            obj = json_object(obj.get(part))
        items = obj.get(last)
        listed = list(items.values()) if isinstance(items, dict) else items
        return tuple(self.template(item) for item in json_objects(listed))

    def template(self, obj: JsonObject) -> JsonObject:
        """The pod's template in an object of the kind; empty where it has none."""
        for part in self.place:
            obj = json_object(obj.get(part))
        return obj


_ALL = (
    PodMaker("CronJob", "batch/v1", "cronjobs", ("spec", "jobTemplate", "spec", "template")),
    PodMaker("DaemonSet", "apps/v1", "daemonsets"),
    PodMaker("Deployment", "apps/v1", "deployments", in_lanes=True),
    PodMaker("Job", "batch/v1", "jobs"),
    PodMaker("Pod", "v1", "pods", (), in_lanes=True),
    PodMaker("ReplicaSet", "apps/v1", "replicasets", in_lanes=True),
    PodMaker("ReplicationController", "v1", "replicationcontrollers"),
    PodMaker("StatefulSet", "apps/v1", "statefulsets", in_lanes=True),
)
BY_KIND: Mapping[str, PodMaker] = {maker.kind: maker for maker in _ALL}
_JOBSET = PodMaker(
    "JobSet",
    "jobset.x-k8s.io/v1alpha2",
    "jobsets",
    ("template", "spec", "template"),
    parts=("spec", "replicatedJobs"),
)
_PYTORCHJOB = PodMaker(
    "PyTorchJob",
    "kubeflow.org/v1",
    "pytorchjobs",
    ("template",),
    parts=("spec", "pytorchReplicaSpecs"),
)
#: With those that not every cluster has.
BY_PLURAL: Mapping[str, PodMaker] = {maker.plural: maker for maker in (*_ALL, _JOBSET, _PYTORCHJOB)}


def judged(
    maker: PodMaker, template: JsonObject, namespace: str, name: str, context: PodRulesContext
) -> Response:
    """What would be said of a pod made of the template, its images and others' pods aside."""
    metadata = json_object(template.get("metadata"))
    pod: JsonObject = {
        "metadata": {
            **{k: metadata[k] for k in ("labels", "annotations") if k in metadata},
            "name": name,
            "namespace": namespace,
        },
        "spec": json_object(template.get("spec")),
    }
    if maker.in_lanes and (lane := chosen(pod, context.lanes(namespace))) and _asks(pod, context):
        pod = admitted(pod, lane)
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


def _asks(pod: JsonObject, context: PodRulesContext) -> bool:
    """Whether a lane is asked for: by a GPU, which is what the webhook is asked about."""
    return any(context.gpus.is_gpu(name) for name in resources_of(json_object(pod.get("spec"))))
