"""What of a pod asks for a GPU, or has a runtime give it one. Pure: one answer for all who ask.

The rules, in order; the chart's expressions (trainseal.cel.asksForGPU, takesDevices) say the same:

1. An extended resource that is a GPU, in a request or a limit of any container or of the pod.
2. Any claim of Dynamic Resource Allocation: what it gives is not read.
3. An annotation by which a runtime with CDI hands out devices.
4. A RuntimeClass that the chart names.
5. A variable by which NVIDIA's container runtime hands out devices, with a value that does so, or
   one from elsewhere. One of the image's own, or of ``envFrom``, is not seen here.

Source of 5: NVIDIA container toolkit, internal/config/image (`void`, `none` and nothing give none).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.provenance.differences import Json, mapping, objects, strings

#: By annotations that begin so, a runtime with CDI gives containers devices they did not ask for.
CDI_PREFIX = "cdi.k8s.io/"
VARIABLE = "NVIDIA_VISIBLE_DEVICES"
_GIVES_NONE = frozenset({"", "none", "void"})
_WHOLE = re.compile(r"[0-9]{1,9}")
_KINDS = ("containers", "initContainers", "ephemeralContainers")


@dataclass(frozen=True, slots=True)
class GpuRules:
    """What counts. ``is_gpu`` is asked of names of extended resources."""

    is_gpu: Callable[[str], bool]
    runtime_classes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class _Way:
    """One way to ask, in words, by what, and with which value."""

    words: str
    name: str = ""
    value: str = ""


def asked(pod: Json, rules: GpuRules, before: Json | None = None) -> str:
    """By what a pod, or a template of one, asks, in words; nothing where it does not.

    What it had ``before`` does not count.
    """
    had = frozenset(_ways(before or {}, rules))
    new = [way for way in _ways(pod, rules) if way not in had]
    if not new:
        return ""
    words = new[0].words
    names = sorted({way.name for way in new if way.words == words})
    return f"{words} {', '.join(names)}".rstrip()


def held(pod: Json, rules: GpuRules) -> int:
    """How many GPUs a pod, or a template of one, holds, as a scheduler counts them.

    A claim counts as one: what it gives is not read. So does a pod that asks in another way.
    """
    spec = mapping(pod.get("spec"))
    first, later = 0, 0
    for container in objects(spec.get("initContainers")):
        if container.get("restartPolicy") == "Always":
            later += _amount(container, rules)
        else:
            first = max(first, later + _amount(container, rules))
    later += sum(_amount(container, rules) for container in objects(spec.get("containers")))
    claims = len(objects(spec.get("resourceClaims")))
    counted = max(first, later, _amount(spec, rules)) + claims
    if counted or any(map(rules.is_gpu, resources_of(spec))):
        return counted
    return int(bool(asked(pod, rules)))


def _amount(holder: Json, rules: GpuRules) -> int:
    """Of one container, or of a pod's own resources. An amount that is no number counts as one."""
    resources = mapping(holder.get("resources"))
    amounts = {**mapping(resources.get("requests")), **mapping(resources.get("limits"))}
    return sum(
        int(str(amount)) if _WHOLE.fullmatch(str(amount)) else 1
        for name, amount in amounts.items()
        if rules.is_gpu(name)
    )


def resources_of(spec: Json) -> Iterator[str]:
    """Names of every resource in any container's, or the pod's own, requests and limits."""
    for holder in (spec, *_containers(spec)):
        resources = mapping(holder.get("resources"))
        for part in ("limits", "requests"):
            yield from mapping(resources.get(part))


def _ways(pod: Json, rules: GpuRules) -> Iterator[_Way]:
    spec = mapping(pod.get("spec"))
    for name in resources_of(spec):
        if rules.is_gpu(name):
            yield _Way("asks for", name)
    if spec.get("resourceClaims"):
        yield _Way("claims a device")
    for name, value in strings(mapping(pod.get("metadata")).get("annotations")).items():
        if name.startswith(CDI_PREFIX):
            yield _Way("asks for devices by the annotation", name, value)
    runtime = spec.get("runtimeClassName")
    if isinstance(runtime, str) and runtime in rules.runtime_classes:
        yield _Way("gets devices by RuntimeClass", runtime)
    for container in _containers(spec):
        for variable in objects(container.get("env")):
            if variable.get("name") == VARIABLE and _gives(variable):
                yield _Way("asks for devices by the variable", VARIABLE, str(container.get("name")))


def _gives(variable: Json) -> bool:
    value: JsonValue = variable.get("value") or ""
    return bool(variable.get("valueFrom")) or value not in _GIVES_NONE


def _containers(spec: Json) -> Iterator[Json]:
    for kind in _KINDS:
        yield from objects(spec.get(kind))
