"""What a pod in a lane may be: interactive work on GPUs, without a seal and within limits.

A lane is open in a namespace where every policy that enforces there has one of its name; what each
of them refuses is refused. The rules, in order:

1. It is nobody's, a StatefulSet's or a Deployment's pod. Jobs train, and so are sealed; a pod in a
   lane bears no label by which a run, or a Job, knows its own.
2. It ends: ``activeDeadlineSeconds`` is within the lane's.
3. It asks for GPUs as whole numbers of extended resources, which can be counted; nothing of it has
   a runtime hand it others.
4. It reaches neither the node nor other pods: no host namespaces, paths, privileges or capabilities
   beyond those of any sealed pod.
5. Its volumes are of kinds that hold no one else's bytes; claims are read-only, but the lane's
   scratch; Secrets are those that the lane names.

Its images are judged elsewhere, by digest: that takes a registry. What it writes to scratch no
sealed run reads (``jobrules``).
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.api.model import JsonObject
from trainseal.api.policylanes import LABEL_LANE
from trainseal.provenance.capabilities import CAPABILITIES
from trainseal.provenance.differences import Json, mapping, objects, short
from trainseal.provenance.gpuasks import VARIABLE, GpuRules
from trainseal.provenance.podmatch import CONTROLLERS_LABELS
from trainseal.provenance.policies import CompiledLane, CompiledPolicy

_OURS = "trainseal.dev/"
#: By these controllers and sealed runs select their pods.
_RUN_LABELS = (_OURS, *CONTROLLERS_LABELS)
#: By annotations that begin so, a runtime or a network plugin gives more than the spec says.
_RUNTIME_ANNOTATIONS = (
    "cdi.k8s.io/",
    "io.containerd.",
    "io.katacontainers.",
    "io.kubernetes.cri",
    "k8s.v1.cni.cncf.io/networks",
)
_OWNERS = (("apps/v1", "StatefulSet"), ("apps/v1", "ReplicaSet"))
_VOLUMES = frozenset(
    {"configMap", "downwardAPI", "emptyDir", "persistentVolumeClaim", "projected", "secret"}
)
_SOURCES = frozenset(
    {"clusterTrustBundle", "configMap", "downwardAPI", "secret", "serviceAccountToken"}
)
_CONTAINERS = ("initContainers", "containers")
_WHOLE = re.compile(r"[0-9]{1,9}")
_COUNTED = "GPUs by resources.limits, which are counted"


@dataclass(frozen=True, slots=True)
class Breach:
    """One thing that a pod in a lane must not be: its place, what was found, what was expected."""

    path: str
    found: str
    expected: str

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}, expected {self.expected}"


@dataclass(frozen=True, slots=True)
class Lane:
    """A lane that is open in a namespace: what every policy that enforces there lets it be.

    ``policies`` are those, each with the lane's own requirement for images.
    """

    name: str
    policies: tuple[CompiledPolicy, ...]
    max_pods: int
    max_gpus: int
    max_seconds: int
    secrets: frozenset[str]
    parts: tuple[CompiledLane, ...]

    def is_scratch(self, claim: str) -> bool:
        """Whether its pods may write to a claim of this name."""
        return all(part.is_scratch(claim) for part in self.parts)


def open_lanes(policies: Sequence[CompiledPolicy], namespace: str) -> Mapping[str, Lane]:
    """Lanes by name; ``policies`` are those of the namespace, and none of them is broken."""
    enforcing = [p for p in policies if p.mode == "Enforce"]
    found = [{x.name: x for x in p.lanes if x.names(namespace)} for p in enforcing]
    names = set.intersection(*(set(lanes) for lanes in found)) if found else set()
    return {
        name: _together(name, enforcing, [lanes[name] for lanes in found]) for name in sorted(names)
    }


def _together(name: str, policies: Sequence[CompiledPolicy], parts: Sequence[CompiledLane]) -> Lane:
    return Lane(
        name=name,
        # Verdicts are remembered by a policy's digest: images of jobs are judged by others.
        policies=tuple(
            dataclasses.replace(policy, image=part.image, digest=f"{policy.digest}/lanes/{name}")
            for policy, part in zip(policies, parts, strict=True)
        ),
        max_pods=min(part.max_pods for part in parts),
        max_gpus=min(part.max_gpus for part in parts),
        max_seconds=min(part.max_seconds for part in parts),
        secrets=frozenset.intersection(*(part.secrets for part in parts)),
        parts=tuple(parts),
    )


def lane_of(pod: Json) -> str | None:
    """The lane whose label a pod bears; None where it bears another of ours, or none."""
    labels = mapping(mapping(pod.get("metadata")).get("labels"))
    named = labels.get(LABEL_LANE)
    ours = [key for key in labels if key.startswith(_OURS)]
    return named if isinstance(named, str) and ours == [LABEL_LANE] else None


def chosen(pod: Json, lanes: Mapping[str, Lane]) -> Lane | None:
    """The lane that takes a pod as it comes: the one that it names; else the only one there is."""
    labels = mapping(mapping(pod.get("metadata")).get("labels"))
    if any(key.startswith(_RUN_LABELS) and key != LABEL_LANE for key in labels) or any(
        breach for breach in _owners(mapping(pod.get("metadata")))
    ):
        return None
    named = labels.get(LABEL_LANE)
    if named is not None:
        return lanes.get(str(named))
    return next(iter(lanes.values())) if len(lanes) == 1 else None


def admitted(pod: JsonObject, lane: Lane) -> JsonObject:
    """The pod with what the lane gives it: its label and its end."""
    metadata, spec = mapping(pod.get("metadata")), mapping(pod.get("spec"))
    labels: JsonObject = {**mapping(metadata.get("labels")), LABEL_LANE: lane.name}
    own = spec.get("activeDeadlineSeconds")
    seconds = min(own, lane.max_seconds) if isinstance(own, int) else lane.max_seconds
    return {
        **pod,
        "metadata": {**metadata, "labels": labels},
        "spec": {**spec, "activeDeadlineSeconds": seconds},
    }


def images(pod: Json) -> Mapping[str, str]:
    """Every image of a pod by its place, as a path of JSON Patch (``/spec/containers/0/image``)."""
    spec = mapping(pod.get("spec"))
    return {
        f"/spec/{kind}/{index}/image": str(container.get("image") or "")
        for kind in _CONTAINERS
        for index, container in enumerate(objects(spec.get(kind)))
    }


def gpus(pod: Json, is_gpu: Callable[[str], bool]) -> int:
    """How many GPUs a pod holds; containers that run one after the other count together.

    Raises ValueError where an amount is no whole number.
    """
    spec = mapping(pod.get("spec"))
    return sum(
        _amount(name, _asked(container)[name])
        for kind in _CONTAINERS
        for container in objects(spec.get(kind))
        for name in _asked(container)
        if is_gpu(name)
    )


def _asked(container: Json) -> Json:
    resources = mapping(container.get("resources"))
    return {**mapping(resources.get("requests")), **mapping(resources.get("limits"))}


def _amount(name: str, value: JsonValue) -> int:
    if not _WHOLE.fullmatch(str(value)):
        raise ValueError(f"{name}: {short(value)}")
    return int(str(value))


def breaches(pod: Json, lane: Lane, rules: GpuRules) -> tuple[Breach, ...]:
    """What a pod that bears the lane's label must not be; none for one that may run in it.

    How many pods and GPUs others hold is not judged here.
    """
    return tuple(_breaches(pod, lane, rules))


def owner_breaches(pod: Json) -> tuple[Breach, ...]:
    """Of these, what a change of a pod's owners may bring."""
    return tuple(_owners(mapping(pod.get("metadata"))))


def _breaches(pod: Json, lane: Lane, rules: GpuRules) -> Iterator[Breach]:
    spec = mapping(pod.get("spec"))
    yield from _metadata(mapping(pod.get("metadata")))
    seconds = spec.get("activeDeadlineSeconds")
    if not isinstance(seconds, int) or seconds > lane.max_seconds:
        yield Breach("spec.activeDeadlineSeconds", short(seconds), f"at most {lane.max_seconds}")
    if spec.get("resourceClaims"):
        yield Breach("spec.resourceClaims", "set", _COUNTED)
    if (runtime := spec.get("runtimeClassName")) in rules.runtime_classes:
        yield Breach("spec.runtimeClassName", str(runtime), _COUNTED)
    try:
        if (held := gpus(pod, rules.is_gpu)) > lane.max_gpus:
            yield Breach("spec.containers", f"{held} GPUs", f"at most {lane.max_gpus}")
    except ValueError as error:
        yield Breach("spec.containers", str(error), "a whole number of GPUs")
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if spec.get(field):
            yield Breach(f"spec.{field}", "true", "namespaces of the pod's own")
    yield from _security(spec.get("securityContext"), "spec.securityContext")
    writable = frozenset(_writable(spec))
    for volume in objects(spec.get("volumes")):
        yield from _volume(volume, str(volume.get("name")) in writable, lane)
    for kind in _CONTAINERS:
        for container in objects(spec.get(kind)):
            yield from _container(container, f"spec.{kind}[{container.get('name')}]", lane)
    if spec.get("ephemeralContainers"):
        yield Breach("spec.ephemeralContainers", "set", "none: their images are nobody's")


def _metadata(metadata: Json) -> Iterator[Breach]:
    yield from _owners(metadata)
    for key in mapping(metadata.get("labels")):
        if key.startswith(_RUN_LABELS) and key != LABEL_LANE:
            yield Breach(f"metadata.labels[{key}]", "set", "no label of a run or a Job")
    for key in mapping(metadata.get("annotations")):
        if key.startswith(_RUNTIME_ANNOTATIONS):
            yield Breach(f"metadata.annotations[{key}]", "set", "nothing that a runtime acts on")


def _owners(metadata: Json) -> Iterator[Breach]:
    for owner in objects(metadata.get("ownerReferences")):
        kind = (str(owner.get("apiVersion")), str(owner.get("kind")))
        if kind not in _OWNERS:
            yield Breach(
                "metadata.ownerReferences",
                f"{kind[1]} ({kind[0]})",
                "none, a StatefulSet or a Deployment's ReplicaSet: what trains is a TrainingJob",
            )


def _security(value: JsonValue, path: str) -> Iterator[Breach]:
    context = mapping(value)
    if context.get("privileged"):
        yield Breach(f"{path}.privileged", "true", "false")
    if context.get("procMount") not in (None, "Default"):
        yield Breach(f"{path}.procMount", short(context["procMount"]), "Default")
    for field in ("windowsOptions", "sysctls"):
        if context.get(field):
            yield Breach(f"{path}.{field}", "set", "nothing")
    added = mapping(context.get("capabilities")).get("add")
    for name in added if isinstance(added, list) else ():
        if str(name).removeprefix("CAP_").upper() not in CAPABILITIES:
            yield Breach(f"{path}.capabilities.add", f"{name}", "none that reaches out of the pod")


def _volume(volume: Json, writable: bool, lane: Lane) -> Iterator[Breach]:
    path = f"spec.volumes[{volume.get('name')}]"
    for kind in sorted(volume.keys() - {"name"} - _VOLUMES):
        yield Breach(path, kind, f"one of {', '.join(sorted(_VOLUMES))}")
    yield from _secret(mapping(volume.get("secret")).get("secretName"), path, lane)
    for source in objects(mapping(volume.get("projected")).get("sources")):
        for kind in sorted(source.keys() - _SOURCES):
            yield Breach(f"{path}.projected", kind, f"one of {', '.join(sorted(_SOURCES))}")
        yield from _secret(mapping(source.get("secret")).get("name"), path, lane)
    claim = mapping(volume.get("persistentVolumeClaim"))
    name = str(claim.get("claimName"))
    if claim and writable and not lane.is_scratch(name):
        yield Breach(
            path, f"claim {name}, mounted to write", "it read-only, or one of the lane's scratch"
        )


def _secret(name: JsonValue, path: str, lane: Lane) -> Iterator[Breach]:
    if name is not None and name not in lane.secrets:
        named = ", ".join(sorted(lane.secrets)) or "none"
        yield Breach(path, f"Secret {name}", f"those that the lane names ({named})")


def scratch_claims(pod: Json) -> frozenset[str]:
    """Claims that a pod mounts to write."""
    spec = mapping(pod.get("spec"))
    writable = frozenset(_writable(spec))
    return frozenset(
        str(claim.get("claimName"))
        for volume in objects(spec.get("volumes"))
        if str(volume.get("name")) in writable
        and (claim := mapping(volume.get("persistentVolumeClaim")))
    )


def _writable(spec: Json) -> Iterator[str]:
    """Names of volumes that a container may write to; what the volume says of itself counts."""
    closed = {
        str(volume.get("name"))
        for volume in objects(spec.get("volumes"))
        if mapping(volume.get("persistentVolumeClaim")).get("readOnly") is True
    }
    for kind in _CONTAINERS:
        for container in objects(spec.get(kind)):
            for mount in objects(container.get("volumeMounts")):
                if mount.get("readOnly") is not True and mount.get("name") not in closed:
                    yield str(mount.get("name"))
            for device in objects(container.get("volumeDevices")):
                yield str(device.get("name"))


def _container(container: Json, path: str, lane: Lane) -> Iterator[Breach]:
    yield from _security(container.get("securityContext"), f"{path}.securityContext")
    for variable in objects(container.get("env")):
        place = f"{path}.env[{variable.get('name')}]"
        if variable.get("name") == VARIABLE:
            yield Breach(place, "set", "devices by resources.limits, which are counted")
        reference = mapping(mapping(variable.get("valueFrom")).get("secretKeyRef"))
        yield from _secret(reference.get("name"), place, lane)
    for source in objects(container.get("envFrom")):
        reference = mapping(source.get("secretRef"))
        yield from _secret(reference.get("name"), f"{path}.envFrom", lane)
