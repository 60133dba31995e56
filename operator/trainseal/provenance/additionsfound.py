"""Rules that fit just what stands in a pod: for pods whose policies are lost, and to learn from.

Whether a rule of this form may stand in a policy, and whether the pod may have the thing at all, is
not said here: ``additionmatch`` judges it by its own rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from trainseal.provenance.additionmatch import added_capabilities, hooks_of, is_field
from trainseal.provenance.additions import AddedContainer, AddedMount, AddedVolume
from trainseal.provenance.containermatch import ExpectedContainer, token_volume, variables_beside
from trainseal.provenance.differences import Json, mapping, objects, strings
from trainseal.provenance.podmatch import ExpectedPod, is_kubernetes_own

_FOR_NETWORKS = frozenset({"NET_ADMIN", "NET_RAW"})


@dataclass(frozen=True, slots=True)
class Beside:
    """What stands in a pod beside its template and what Kubernetes itself adds. ``env`` and
    ``mounts`` are those of signed containers; ``containers`` say whether they are init containers.
    """

    env: tuple[Json, ...]
    labels: frozenset[str]
    annotations: frozenset[str]
    containers: tuple[tuple[bool, Json], ...]
    volumes: tuple[Json, ...]
    mounts: tuple[Json, ...]
    #: Name of the token's volume; empty where there is none.
    token: str


def beside(expected: ExpectedPod, pod: Json) -> Beside:
    """What somebody added to a pod that should be ``expected``."""
    metadata, spec = mapping(pod.get("metadata")), mapping(pod.get("spec"))
    token = token_volume(spec.get("volumes")) if expected.token else ""
    signed: dict[str, ExpectedContainer] = {
        c.name: c for c in (*expected.init_containers, *expected.containers)
    }
    found = list(containers_in(pod))
    own = [(signed[name], c) for _, c in found if (name := str(c.get("name"))) in signed]
    names = {*expected.volume_names, token}
    return Beside(
        tuple(e for wanted, c in own for e in variables_beside(wanted, objects(c.get("env")))),
        frozenset(
            name
            for name in strings(metadata.get("labels"))
            if name not in expected.labels and not is_kubernetes_own(expected, "labels", name)
        ),
        frozenset(
            name
            for name in strings(metadata.get("annotations"))
            if name not in expected.annotations
            and not is_kubernetes_own(expected, "annotations", name)
        ),
        tuple((k == "initContainers", c) for k, c in found if str(c.get("name")) not in signed),
        tuple(v for v in objects(spec.get("volumes")) if str(v.get("name")) not in names),
        tuple(
            m
            for _, c in own
            for m in objects(c.get("volumeMounts"))
            if str(m.get("name")) not in names
        ),
        token,
    )


def containers_in(pod: Json) -> Iterator[tuple[Literal["initContainers", "containers"], Json]]:
    """All containers, with the list that each stands in."""
    spec = mapping(pod.get("spec"))
    yield from (("initContainers", c) for c in objects(spec.get("initContainers")))
    yield from (("containers", c) for c in objects(spec.get("containers")))


def container_as_found(container: Json, *, init: bool) -> AddedContainer:
    """A rule for this container, with its variables' values whole."""
    env = objects(container.get("env"))
    return AddedContainer(
        name=str(container.get("name")),
        init=init,
        images=frozenset({str(container.get("image"))}),
        command=_words(container, "command"),
        args=_words(container, "args"),
        env=frozenset(
            (str(e.get("name")), str(e.get("value", ""))) for e in env if "valueFrom" not in e
        ),
        fields=frozenset(str(e.get("name")) for e in env if is_field(e)),
        mounts=frozenset(mount_as_found(m) for m in objects(container.get("volumeMounts"))),
        hooks=frozenset(hooks_of(container)),
        capabilities=_FOR_NETWORKS.intersection(added_capabilities(container)),
    )


def volume_as_found(volume: Json) -> AddedVolume:
    """A rule for this volume."""
    kind = next(iter(sorted(volume.keys() - {"name"})), "")
    source = mapping(volume.get(kind))
    parts = objects(source.get("sources")) if kind == "projected" else []
    config_maps = [mapping(p.get("configMap")).get("name") for p in parts if "configMap" in p]
    if kind == "configMap":
        config_maps.append(source.get("name"))
    tokens = [mapping(p["serviceAccountToken"]) for p in parts if "serviceAccountToken" in p]
    return AddedVolume(
        name=str(volume.get("name")),
        kind=kind,
        config_maps=frozenset(map(str, config_maps)),
        audiences=frozenset(str(t["audience"]) for t in tokens if t.get("audience")),
        drivers=frozenset({str(source.get("driver"))} if kind == "csi" else ()),
    )


def mount_as_found(mount: Json) -> AddedMount:
    """A rule for this mount."""
    read_only = mount.get("readOnly") is True
    return AddedMount(str(mount.get("name")), str(mount.get("mountPath")), read_only)


def _words(container: Json, field: str) -> tuple[str, ...] | None:
    value = container.get(field)
    return tuple(map(str, value)) if isinstance(value, list) and value else None
