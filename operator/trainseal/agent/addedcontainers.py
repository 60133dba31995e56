"""The containers of a live pod beside those of its signed template: what a platform added. Pure.

Whether a policy allows them the webhook decides before, and the controller says afterwards
(`pod.changed`). Here they are watched as what they are: nobody signed their image for this job, so
their programs, files and variables are no difference from anything. What is told of them all the
same is who enters one, and what is done from one to the run's own files.

One that stands before the gate is there while the gate writes what the run is made of. What it sees
in code and config mounts until then is the gate's work: they count once the gate has ended. What
somebody did there a moment before is found with the first reading of the trees.

What a platform mounts into a signed container counts as scratch there: nobody signed what lies in
it, so what runs from there is foreign.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from trainseal.agent.observed import Observation, RoleMount, WatchedContainer
from trainseal.agent.sealedtemplates import SealedContainer, SealedPart, sealed_container
from trainseal.api.findings import FindingId
from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.engines.podtemplate import GATE_CONTAINER

#: What is kept of a live pod's containers.
_KEPT = (
    "env", "lifecycle", "livenessProbe", "name", "readinessProbe", "startupProbe",
    "terminationMessagePath", "volumeMounts",
)  # fmt: skip
_KINDS = ("initContainers", "containers")
_ALWAYS = frozenset(
    {
        FindingId.PROCESS_ENTERED,
        FindingId.PROCESS_UNRECORDED,
        FindingId.PROCESS_MEMORY_OPENED,
        FindingId.GPU_FOREIGN,
        FindingId.WATCH_BLIND,
        FindingId.WATCH_OVERFLOW,
    }
)
_OF_FILES = frozenset(
    {
        FindingId.FILE_CHANGED,
        FindingId.FILE_CREATED,
        FindingId.FILE_REMOVED,
        FindingId.FILE_RENAMED,
        FindingId.FILE_ATTRIBUTES,
        FindingId.IMPORT_CHANGED,
        FindingId.BYTECODE_WRITTEN,
        FindingId.BYTECODE_MISMATCH,
        FindingId.TREE_CHANGED,
        FindingId.MAP_WRITABLE,
    }
)


def containers_kept(spec: JsonObject) -> JsonObject:
    """What of a live pod's spec the functions below read."""
    return {
        kind: [{k: c[k] for k in _KEPT if k in c} for c in json_objects(spec.get(kind))]
        for kind in _KINDS
    }


def gate_has_ended(status: JsonObject, sealed: SealedPart) -> bool:
    """Whether nothing is written any more by the gate; true of a pod that has none.

    By the kubelet's word, which nobody with rights in the namespace can write.
    """
    if GATE_CONTAINER not in sealed.names:
        return True
    return any(
        item.get("name") == GATE_CONTAINER and "terminated" in json_object(item.get("state"))
        for item in json_objects(status.get("initContainerStatuses"))
    )


def live_containers(
    spec: JsonObject, sealed: SealedPart, *, gated: bool
) -> Mapping[str, SealedContainer]:
    """The containers to watch: the template's, and what the live pod has beside them.

    ``gated``: the gate has ended.
    """
    found = dict(sealed.containers)
    for kind in _KINDS:
        for container in json_objects(spec.get(kind)):
            name = str(container.get("name"))
            if name in found:
                found[name] = _with_more_mounts(found[name], container, sealed.volumes)
            elif name not in sealed.names:
                added = sealed_container(container, sealed.volumes, added=True)
                found[name] = added if gated else _without_signed_mounts(added)
    return found


def is_told(container: WatchedContainer, seen: Observation) -> bool:
    """Whether what was seen in a container is a difference, if policies do not except it."""
    if not container.added or seen.finding in _ALWAYS:
        return True
    mount = container.mount_of(seen.path) if seen.path is not None else None
    return seen.finding in _OF_FILES and mount is not None and not mount.writable


def _without_signed_mounts(container: SealedContainer) -> SealedContainer:
    mounts = tuple(m for m in container.mounts if m.role not in ("code", "config"))
    return replace(container, mounts=mounts)


def _with_more_mounts(
    container: SealedContainer, live: JsonObject, volumes: frozenset[str]
) -> SealedContainer:
    more = tuple(
        RoleMount(str(m.get("mountPath")).rstrip("/") or "/", "scratch", str(m.get("name")))
        for m in json_objects(live.get("volumeMounts"))
        if m.get("name") not in volumes
    )
    return replace(container, mounts=(*container.mounts, *more)) if more else container
