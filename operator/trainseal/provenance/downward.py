"""Values that the kubelet takes from the pod itself when a container starts (the downward API).

What a pod says of itself is not all signed: whoever may edit pods may annotate one while its gate
runs, and the kubelet reads the annotation when the trainer starts. So a template may refer to a
closed list of fields that nobody but the cluster writes, and to labels and annotations of its own
metadata, whose values are sealed and guarded. Keys that a pod refers to are guarded whoever wrote
them: on every update, and where the live pod is compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

from pydantic import JsonValue

from trainseal.provenance.containermatch import INDEX
from trainseal.provenance.differences import Json, mapping, objects, strings
from trainseal.provenance.enginemarks import KUBEFLOW_INDEX

#: Fields that the API server, the scheduler, the kubelet or the seal decides, each with a value of
#: the form that it has: names, UIDs and addresses hold no ``/`` and no word of a shell.
FIELDS: Mapping[str, str] = {
    "metadata.name": "pod",
    "metadata.namespace": "namespace",
    "metadata.uid": "uid",
    "spec.nodeName": "node",
    "spec.serviceAccountName": "account",
    "status.hostIP": "address",
    "status.hostIPs": "address",
    "status.podIP": "address",
    "status.podIPs": "address",
}
_CONTAINERS = ("initContainers", "containers")


class Key(NamedTuple):
    """A label or an annotation, by its key."""

    part: Literal["labels", "annotations"]
    name: str


def key_of(field_path: str) -> Key | None:
    """The label or annotation that a field path means, read as the kubelet reads it."""
    if not field_path.endswith("']"):
        return None
    path, bracket, name = field_path.removesuffix("']").partition("['")
    if bracket and path == "metadata.labels":
        return Key("labels", name)
    if bracket and path == "metadata.annotations":
        return Key("annotations", name)
    return None


def signed_value(field_path: str, metadata: Json) -> str | None:
    """The value, or one of its form, of a field that a template with this metadata may refer to.

    None where what it will be is not in what was signed.
    """
    if field_path in FIELDS:
        return FIELDS[field_path]
    key = key_of(field_path)
    if key is None:
        return None
    if key.name == INDEX or key == ("labels", KUBEFLOW_INDEX):
        return "0"
    return strings(metadata.get(key.part)).get(key.name)


def referred_keys(spec: Json) -> frozenset[Key]:
    """The labels and annotations that a pod's variables and volumes take values from."""
    return frozenset(key for path in _field_paths(spec) if (key := key_of(path)) is not None)


def _field_paths(spec: Json) -> Iterator[str]:
    for kind in _CONTAINERS:
        for container in objects(spec.get(kind)):
            for entry in objects(container.get("env")):
                yield _field_path(mapping(entry.get("valueFrom")).get("fieldRef"))
    for volume in objects(spec.get("volumes")):
        sources = [volume, *objects(mapping(volume.get("projected")).get("sources"))]
        for source in sources:
            for item in objects(mapping(source.get("downwardAPI")).get("items")):
                yield _field_path(item.get("fieldRef"))


def _field_path(reference: JsonValue) -> str:
    return str(mapping(reference).get("fieldPath") or "")
