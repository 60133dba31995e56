"""What a resize of a pod that runs changes: how much processor and memory its containers ask for.

Pure. Kubernetes changes these in place by the subresource ``pods/resize``, and nothing else by it
(k8s.io/kubernetes 1.36, registry/core/pod, podResizeStrategy). That it stays so is not left to it:
what else comes with a resize is named, so that it can be denied.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.provenance.differences import Json, mapping, objects

_RESOURCES = frozenset({"cpu", "memory"})
_PARTS = ("limits", "requests")
_KINDS = ("initContainers", "containers")


@dataclass(frozen=True, slots=True)
class Size:
    """How much one container asks for: each amount by part and resource, as the API server writes
    it. Two are the same only where they are written the same."""

    container: str
    amounts: frozenset[tuple[str, str, str]]

    @classmethod
    def of(cls, container: str, resources: Json) -> Size:
        """Of a container's ``resources``, and of what ``wire`` gives."""
        return cls(
            container,
            frozenset(
                (part, name, str(amount))
                for part in _PARTS
                for name, amount in mapping(resources.get(part)).items()
                if name in _RESOURCES
            ),
        )

    def wire(self) -> dict[str, JsonValue]:
        """As an access record has it."""
        made: dict[str, JsonValue] = {"container": self.container}
        for part in _PARTS:
            amounts: dict[str, JsonValue] = {n: a for p, n, a in sorted(self.amounts) if p == part}
            if amounts:
                made[part] = amounts
        return made


def sizes(pod: Json) -> dict[str, Size]:
    """Of each container, by its name, which no other of the pod has."""
    return {size.container: size for _, size in _sized(pod)}


def resized(old: Json, new: Json) -> tuple[Size, ...]:
    """Of each container that asks for other amounts than before, what it asks for now."""
    before = sizes(old)
    return tuple(size for name, size in sizes(new).items() if before.get(name) != size)


def without_sizes(pod: Json) -> Json:
    """The pod as if no container asked for processor or memory."""
    return _with(pod, {name: Size(name, frozenset()) for name in sizes(pod)})


def with_sealed_sizes(pod: Json, sealed: Mapping[str, Size], let: Collection[Size]) -> Json:
    """The pod as if what was ``let`` had never been: those containers ask for what was sealed."""
    if not let:
        return pod
    there = sizes(pod).items()
    return _with(pod, {n: sealed[n] for n, size in there if n in sealed and size in let})


def _sized(pod: Json) -> Iterator[tuple[Json, Size]]:
    spec = mapping(pod.get("spec"))
    for kind in _KINDS:
        for container in objects(spec.get(kind)):
            yield (
                container,
                Size.of(str(container.get("name")), mapping(container.get("resources"))),
            )


def _with(pod: Json, wanted: Mapping[str, Size]) -> Json:
    if not wanted:
        return pod
    spec = mapping(pod.get("spec"))
    made = {
        kind: [_sized_as(c, wanted) for c in objects(spec[kind])] for kind in _KINDS if kind in spec
    }
    return {**pod, "spec": {**spec, **made}}


def _sized_as(container: Json, wanted: Mapping[str, Size]) -> JsonValue:
    size = wanted.get(str(container.get("name")))
    if size is None:
        return dict(container)
    had, amounts = mapping(container.get("resources")), size.wire()
    resources: dict[str, JsonValue] = {k: v for k, v in had.items() if k not in _PARTS}
    for part in _PARTS:
        others = {k: v for k, v in mapping(had.get(part)).items() if k not in _RESOURCES}
        if merged := {**others, **mapping(amounts.get(part))}:
            resources[part] = merged
    rest = {k: v for k, v in container.items() if k != "resources"}
    return {**rest, "resources": resources}
