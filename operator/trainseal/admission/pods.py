"""Pods: admitted if they ask for no GPU, or are what a seal says. Decided in memory.

The rules, in order:

1. A pod that asks for no GPU, bears no label of ours and belongs to no sealed object passes.
2. A pod whose controlling owner is bound by a verified seal must be created by the Job
   controller and equal what the seal says; it stays so: neither its content, nor the labels and
   owner by which it belongs, nor what a runtime acts on may change; no ephemeral container joins.
3. Any other pod that bears our label is denied; one that asks for a GPU is denied unless every
   policy of its namespace only audits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.admission.reviews import ALLOWED, Request, Response, deny, meta
from trainseal.admission.sealindex import SealedPod
from trainseal.api.model import JsonObject
from trainseal.provenance.podmatch import Additions, Difference, changed_annotations, compare_pod
from trainseal.provenance.policies import CompiledPolicy

LABEL_PREFIX = "trainseal.dev/"
_MOST_DIFFERENCES = 5
_HELP = "run it as a TrainingJob: `trainseal sign job`, then `kubectl apply`"


@dataclass(frozen=True, slots=True)
class PodRulesContext:
    """What pods are judged against, as of now."""

    is_gpu: Callable[[str], bool]
    find: Callable[[str], SealedPod | None]
    policies: Callable[[str], tuple[CompiledPolicy, ...]]
    pod_creators: frozenset[str]
    excluded_namespaces: frozenset[str]


@dataclass(frozen=True, slots=True)
class Unknown:
    """The pod's owner is not in the index: worth one look at the API server, then decide again."""

    owner: str


def decide(request: Request, context: PodRulesContext, *, final: bool) -> Response | Unknown:
    """The answer, or Unknown while a seal that is not seen yet might be the pod's."""
    if request.namespace in context.excluded_namespaces:
        return ALLOWED
    pod, old = request.object, request.old
    owner = _owner(pod)
    sealed = context.find(owner) if owner else None
    before = context.find(_owner(old)) if old else None
    if before is not None and before.namespace == request.namespace:
        return _changed(request, before, sealed, context)
    if sealed is not None and sealed.namespace == request.namespace:
        return _created(request, sealed, context)
    labelled = _labelled(pod) or _labelled(old)
    resources = sorted({r for r in _resources(pod) if context.is_gpu(r)})
    claims = bool(_object(pod.get("spec")).get("resourceClaims"))
    if not labelled and not resources and not claims:
        return ALLOWED
    if request.operation == "UPDATE" and not _gains(request, context):
        return ALLOWED
    if owner and not final:
        return Unknown(owner)
    if labelled:
        return deny(
            f"pod {_name(request)} bears a label of TrainSeal's but belongs to no sealed run: "
            f"found owner {owner or 'none'}, expected the object of a SealedRun; {_HELP}"
        )
    what = f"asks for {', '.join(resources)}" if resources else "claims a device"
    return _unsealed(request, what, owner, context)


def _unsealed(request: Request, what: str, owner: str, context: PodRulesContext) -> Response:
    policies = context.policies(request.namespace)
    words = (
        f"pod {_name(request)} {what} and is not part of a sealed run: found owner "
        f"{owner or 'none'}, expected a TrainingJob's; {_HELP}"
    )
    if policies and all(p.mode == "Audit" for p in policies):
        return Response(True, warnings=(f"would be denied under Enforce: {words}",))
    return deny(words)


def _created(request: Request, sealed: SealedPod, context: PodRulesContext) -> Response:
    if request.operation == "CREATE" and request.username not in context.pod_creators:
        return deny(
            f"pod {_name(request)} claims to belong to SealedRun {sealed.namespace}/{sealed.seal}: "
            f"found creator {request.username!r}, expected the Job controller "
            f"({', '.join(sorted(context.pod_creators))}); {_HELP}"
        )
    return _compared(request, sealed, context, created=request.operation == "CREATE")


def _changed(
    request: Request, before: SealedPod, sealed: SealedPod | None, context: PodRulesContext
) -> Response:
    if request.subresource in ("ephemeralcontainers", "resize"):
        return deny(
            f"pod {_name(request)} is sealed by {before.namespace}/{before.seal}: found a change "
            f"of {request.subresource}, expected none while it runs"
        )
    if sealed is not before:
        return deny(
            f"pod {_name(request)} is sealed by {before.namespace}/{before.seal}: found another "
            "owner, expected the one it was created with"
        )
    changed = changed_annotations(request.old, request.object)
    if changed:
        return deny(
            f"pod {_name(request)} is sealed by {before.namespace}/{before.seal}: found a change "
            f"of {', '.join(changed)}, which a container runtime acts on; expected none"
        )
    return _compared(request, before, context, created=False)


def _compared(
    request: Request, sealed: SealedPod, context: PodRulesContext, *, created: bool
) -> Response:
    names = frozenset(sealed.policies)
    policies = [p for p in context.policies(request.namespace) if p.name in names]
    found = compare_pod(sealed.expected, request.object, _additions(policies), created=created)
    if not found:
        return ALLOWED
    return deny(
        f"pod {_name(request)} is not what SealedRun {sealed.namespace}/{sealed.seal} says: "
        f"{_sentences(found)}. Whoever made the difference must not; a platform's own additions "
        "are named in a policy's pods.additions"
    )


def _additions(policies: list[CompiledPolicy]) -> Additions:
    """What all policies of the seal name: an addition counts only where each one has it."""
    if not policies:
        return Additions()
    if len(policies) == 1:
        return policies[0].additions
    first, *rest = (p.additions for p in policies)
    env = {
        k: max((v, *(r.env[k] for r in rest)), key=len)
        for k, v in first.env.items()
        if all(k in r.env for r in rest)
    }
    return Additions(
        env=env,
        labels=first.labels.intersection(*(r.labels for r in rest)),
        annotations=first.annotations.intersection(*(r.annotations for r in rest)),
    )


def _sentences(found: tuple[Difference, ...]) -> str:
    words = "; ".join(str(d) for d in found[:_MOST_DIFFERENCES])
    more = len(found) - _MOST_DIFFERENCES
    return f"{words}; and {more} more" if more > 0 else words


def _gains(request: Request, context: PodRulesContext) -> bool:
    """Whether an update gives a pod a GPU, or our label, that it did not have."""
    had = set(_resources(request.old))
    gained = {r for r in _resources(request.object) if context.is_gpu(r)} - had
    label = _labelled(request.object) and not _labelled(request.old)
    return bool(gained) or label


def _labelled(pod: Mapping[str, JsonValue]) -> bool:
    labels = meta(pod).get("labels")
    return isinstance(labels, dict) and any(k.startswith(LABEL_PREFIX) for k in labels)


def _owner(pod: Mapping[str, JsonValue]) -> str:
    owners = meta(pod).get("ownerReferences")
    for owner in owners if isinstance(owners, list) else ():
        if isinstance(owner, dict) and owner.get("controller") is True:
            return str(owner.get("uid", ""))
    return ""


def _resources(pod: Mapping[str, JsonValue]) -> Iterator[str]:
    """Names of every resource in any container's, or the pod's own, requests and limits."""
    spec = _object(pod.get("spec"))
    holders: list[JsonValue] = [spec]
    for kind in ("containers", "initContainers", "ephemeralContainers"):
        containers = spec.get(kind)
        holders.extend(containers if isinstance(containers, list) else ())
    for holder in holders:
        resources = _object(holder).get("resources")
        for part in ("limits", "requests"):
            yield from _object(_object(resources).get(part))


def _name(request: Request) -> str:
    name = meta(request.object).get("name") or meta(request.object).get("generateName") or ""
    return f"{request.namespace}/{request.name or name}"


def _object(value: JsonValue) -> JsonObject:
    return value if isinstance(value, dict) else {}
