"""Pods: admitted if they ask for no GPU, or are what a seal says. Decided in memory.

The rules, in order:

1. A pod is sealed while the object that controls it is bound by a verified seal. It must be created
   by the Job controller, or by the controller of an engine that makes pods itself where the object
   is that engine's, and equal what the seal says.
2. It stays so: neither its content, nor the labels and the owner by which it belongs, nor what a
   runtime acts on may change; an ephemeral container joins, and processor and memory are resized,
   only as policies say (waysin), with nothing else beside; nor does a pod that was made otherwise
   become a sealed one. It gets no label by which others' Services and NetworkPolicies could choose
   it, but for a platform's, named in a policy.
3. A pod that bears our label without a seal is denied; so is one that passes itself off as a
   Job's, or comes to do so later, where a policy names its namespace. Jobs of ours take no pod by
   that: they select by our labels (see docs/decisions/0003). So is one that passes itself off as
   the training operator's, which counts pods by its labels and by their owner.
4. A pod that bears the label of a lane is one that the policies let run there, and stays so; which
   images it runs, and how many there are, is judged beside (lanepods).
5. Any other pod that asks for a GPU, or has a runtime hand it devices, is denied unless every
   policy of its namespace only audits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from typing import Literal, overload

from pydantic import JsonValue

from trainseal.admission.reviews import ALLOWED, TRY_AGAIN, Request, Response, deny, meta
from trainseal.admission.sealindex import SealedPod
from trainseal.admission.waysin import WaysIn
from trainseal.api.model import JsonObject, json_object
from trainseal.provenance.additions import Additions
from trainseal.provenance.containermatch import INDEX
from trainseal.provenance.differences import Difference
from trainseal.provenance.enginemarks import KUBEFLOW, KUBEFLOW_PYTORCHJOBS
from trainseal.provenance.gpuasks import GpuRules, asked
from trainseal.provenance.lanes import (
    Breach,
    Lane,
    breaches,
    lane_of,
    open_lanes,
    owner_breaches,
    scratch_claims,
)
from trainseal.provenance.podmatch import changed_parts, compare_pod
from trainseal.provenance.policies import CompiledPolicy, only_audited
from trainseal.provenance.resizes import without_sizes
from trainseal.verifier.policystore import BrokenPolicy

LABEL_PREFIX = "trainseal.dev/"
LABEL_SEAL = "trainseal.dev/seal"
#: By this label Job controllers select the pods of Jobs that name no selector of their own.
LABEL_JOB_UID = "batch.kubernetes.io/controller-uid"
_MOST_DIFFERENCES = 5
_HELP = "run it as a TrainingJob: `trainseal sign job`, then `kubectl apply`"


@dataclass(frozen=True, slots=True)
class PodRulesContext:
    """What pods are judged against, as of now."""

    gpus: GpuRules
    find: Callable[[str], SealedPod | None]
    policies: Callable[[str], tuple[CompiledPolicy, ...]]
    broken: Callable[[], tuple[BrokenPolicy, ...]]
    pod_creators: frozenset[str]
    excluded_namespaces: frozenset[str]
    ways_in: WaysIn
    #: Names of seals whose runs live and mount a claim, by namespace and claim.
    mounting: Callable[[str, str], Collection[str]] = field(default=lambda *_: ())
    #: Who makes the pods of owners that are no Jobs, by the owners' kind.
    pod_makers: Mapping[str, str] = field(default_factory=dict)

    def creators(self, owner: str) -> frozenset[str]:
        """Who makes the pods of owners of this kind; nobody where its engine is switched off."""
        if owner == "Job":
            return self.pod_creators
        return frozenset({self.pod_makers[owner]} if owner in self.pod_makers else ())

    def lanes(self, namespace: str) -> Mapping[str, Lane]:
        """Lanes that are open there; a policy that cannot be used may be one that opens none."""
        return {} if self.broken() else open_lanes(self.policies(namespace), namespace)


@dataclass(frozen=True, slots=True)
class Unknown:
    """The pod may be one of a seal, or of an epoch of it, that is not in the index yet: worth one
    look, then decide again.
    """

    seal: str


@overload
def decide(request: Request, context: PodRulesContext, *, final: Literal[True]) -> Response: ...


@overload
def decide(
    request: Request, context: PodRulesContext, *, final: Literal[False]
) -> Response | Unknown: ...


def decide(request: Request, context: PodRulesContext, *, final: bool) -> Response | Unknown:
    """The answer, or Unknown while a seal that is not seen yet might be the pod's."""
    if request.namespace in context.excluded_namespaces:
        return ALLOWED
    if request.operation == "UPDATE":
        return _updated(request, context)
    pod = request.object
    sealed = _sealed(pod, request, context)
    if sealed is not None:
        index = json_object(meta(pod).get("annotations")).get(INDEX)
        # Of others' pods nothing is read.
        if not final and request.username in context.pod_creators and sealed.may_join(index):
            return Unknown(sealed.seal)
        return _created(request, sealed, context)
    seal = _labels(pod).get(LABEL_SEAL)
    if isinstance(seal, str) and not final:
        return Unknown(seal)
    if (named := lane_of(pod)) is not None:
        return _in_lane(request, named, context)
    if _labelled(pod):
        return deny(
            f"pod {_name(request)} bears a label of TrainSeal's but belongs to no sealed run: "
            f"found owner {_owner(pod) or 'none'}, expected the object of a SealedRun; {_HELP}"
        )
    return _passed_off(request, {}, context) or _gpu(request, context, {})


def not_bound_yet(request: Request, seal: str) -> Response:
    """A denial of a pod that came too early: its Job controller tries it again by itself."""
    return deny(
        f"pod {_name(request)} is too early: found SealedRun {request.namespace}/{seal} not bound "
        "to its Job yet, expected its binding within a moment. The Job controller tries again by "
        "itself; if it goes on, see that TrainSeal's controller runs",
        TRY_AGAIN,
    )


def _in_lane(request: Request, named: str, context: PodRulesContext) -> Response:
    """A pod that is made with a lane's label, whoever gave it that."""
    lanes = context.lanes(request.namespace)
    lane = lanes.get(named)
    if lane is None:
        return deny(
            f"pod {_name(request)} bears the label of lane {named!r}: found the open lanes "
            f"{', '.join(lanes) or 'none'} in namespace {request.namespace}, expected one that "
            f"every policy opens there; {_HELP}"
        )
    found = [*breaches(request.object, lane, context.gpus)]
    for claim in sorted(scratch_claims(request.object)):
        if seals := sorted(context.mounting(request.namespace, claim)):
            words = f"claim {claim}, which run {seals[0]} mounts"
            found.append(Breach("spec.volumes", words, "one that no run mounts"))
    return _not_in_lane(request, named, found) if found else ALLOWED


def _not_in_lane(request: Request, lane: str, found: Sequence[Breach]) -> Response:
    return deny(
        f"pod {_name(request)} may not run in lane {lane}: {_sentences(found)}. Change it, or "
        "have the platform team widen the lane (spec.lanes of the ProvenancePolicies)"
    )


def _passed_off(request: Request, old: JsonObject, context: PodRulesContext) -> Response | None:
    """A denial of a pod that somebody makes, or makes look, like a Job's.

    Before that Job's seal is known it would be counted as one of its pods all the same. Job
    controllers adopt what they like: what they take must have got its label by somebody's hand.
    """
    maker = context.pod_makers.get("PyTorchJob")
    if maker is not None and request.username != maker and context.policies(request.namespace):
        had, has = _kubeflows(old), _kubeflows(request.object)
        owner = _owner(request.object)
        if has and (has != had or (owner and owner != _owner(old))):
            words = f"bears labels {KUBEFLOW}* of a PyTorchJob's pods"
            return _unsealed(request, words, context)
    uid, owner = _labels(request.object).get(LABEL_JOB_UID), _owner(request.object)
    gained = uid != _labels(old).get(LABEL_JOB_UID) or (owner and owner != _owner(old))
    if (
        uid is None
        or not gained
        or request.username in context.pod_creators
        or not context.policies(request.namespace)
    ):
        return None
    return _unsealed(request, f"bears the label {LABEL_JOB_UID} of a Job's pods", context)


def _kubeflows(pod: JsonObject) -> JsonObject:
    labels = _labels(pod)
    if not KUBEFLOW_PYTORCHJOBS.items() <= labels.items():
        return {}
    return {k: v for k, v in labels.items() if k.startswith(KUBEFLOW)}


def _gpu(request: Request, context: PodRulesContext, old: JsonObject) -> Response:
    what = asked(request.object, context.gpus, old)
    return _unsealed(request, what, context) if what else ALLOWED


def _unsealed(request: Request, what: str, context: PodRulesContext) -> Response:
    policies = context.policies(request.namespace)
    words = (
        f"pod {_name(request)} {what} and is not part of a sealed run: found owner "
        f"{_owner(request.object) or 'none'}, expected a TrainingJob's; {_HELP}"
    )
    if lanes := ", ".join(context.lanes(request.namespace)):
        words += f"; pods of nobody's, of StatefulSets and of Deployments may name a lane: {lanes}"
    if only_audited(policies, broken=bool(context.broken())):
        return Response(True, warnings=(f"would be denied under Enforce: {words}",))
    return deny(words)


def _created(request: Request, sealed: SealedPod, context: PodRulesContext) -> Response:
    creators = context.creators(sealed.owner)
    if request.username not in creators:
        maker = "Job controller" if sealed.owner == "Job" else f"controller of {sealed.owner}s"
        return deny(
            f"pod {_name(request)} claims to belong to SealedRun {sealed.namespace}/{sealed.seal}: "
            f"found creator {request.username!r}, expected the {maker} "
            f"({', '.join(sorted(creators)) or 'switched off'}); {_HELP}"
        )
    binding, audited = _policies(request.namespace, sealed, context)
    found = compare_pod(sealed.expected, request.object, _additions(binding))
    if not found:
        return ALLOWED
    words = (
        f"pod {_name(request)} is not what SealedRun {sealed.namespace}/{sealed.seal} says: "
        f"{_sentences(found)}. Whoever made the difference must not; a platform's own additions "
        "are named in a policy's pods.additions"
    )
    if audited:
        return Response(True, warnings=(f"would be denied under Enforce: {words}",))
    return deny(words)


def _updated(request: Request, context: PodRulesContext) -> Response:
    """An update is compared with what the pod was, which was compared with the seal."""
    pod, old = request.object, request.old
    before = _sealed(old, request, context)
    if before is None and not _labelled(old):
        sealed = _sealed(pod, request, context)
        if sealed is not None or _labelled(pod):
            return deny(
                f"pod {_name(request)} was not made for a sealed run: found an owner or a label "
                "that would make it part of one, expected pods that the Job controller creates "
                f"for it; {_HELP}"
            )
        return _passed_off(request, old, context) or _gpu(request, context, old)
    changed = changed_parts(old, pod, before.expected if before else None)
    if before is None and (lane := lane_of(old)) is not None:
        return _updated_in_lane(request, lane, changed, context)
    if request.subresource == "ephemeralcontainers" and before is not None:
        changed = tuple(part for part in changed if part != "spec.ephemeralContainers")
        if not changed:
            return context.ways_in.judge("EphemeralContainer", request, before.seal)
    if request.subresource == "resize" and before is not None:
        return _resized(request, before, context)
    if request.subresource in ("ephemeralcontainers", "resize"):
        changed = (request.subresource, *changed)
    if not changed:
        return _labels_given(request, before, context) if before else ALLOWED
    seal = f"{before.namespace}/{before.seal}" if before else _labels(old).get(LABEL_SEAL, "?")
    return deny(
        f"pod {_name(request)} is sealed by SealedRun {seal}: found a change of "
        f"{', '.join(changed[:_MOST_DIFFERENCES])}, expected none of what runs or of what ties it "
        "to its run; delete the pod to have it made anew, or sign a new job"
    )


def _resized(request: Request, sealed: SealedPod, context: PodRulesContext) -> Response:
    """Processor and memory of its containers as policies say; with them comes nothing else."""
    parts = (without_sizes(request.old), without_sizes(request.object))
    if changed := changed_parts(*parts, sealed.expected):
        return deny(
            f"pod {_name(request)} is sealed by SealedRun {sealed.namespace}/{sealed.seal}: found "
            f"a resize that changes {', '.join(changed[:_MOST_DIFFERENCES])} beside cpu and "
            "memory, expected one of the cpu and memory of its containers alone; sign a new job"
        )
    given = _labels_given(request, sealed, context)
    if not given.allowed:
        return given
    return context.ways_in.judge("Resize", request, sealed.seal)


def _labels_given(request: Request, sealed: SealedPod, context: PodRulesContext) -> Response:
    """By labels the network and Services of others choose pods, and what they choose of a run is
    judged by the labels of its template (networks, access)."""
    binding, audited = _policies(request.namespace, sealed, context)
    had, has = _labels(request.old), _labels(request.object)
    allowed = _additions(binding).labels
    given = sorted(k for k, v in has.items() if had.get(k) != v and k not in allowed)
    if not given:
        return ALLOWED
    words = (
        f"pod {_name(request)} is sealed by SealedRun {sealed.namespace}/{sealed.seal}: found "
        f"{', '.join(f'label {name}' for name in given[:_MOST_DIFFERENCES])} given by "
        f"{request.username!r:.300}, expected none beyond those of the signed template: by it "
        "others' Services and NetworkPolicies could choose the pod; use an annotation, or have the "
        "label named in a policy's pods.additions"
    )
    if audited:
        return Response(True, warnings=(f"would be denied under Enforce: {words}",))
    return deny(words)


def _policies(
    namespace: str, sealed: SealedPod, context: PodRulesContext
) -> tuple[Sequence[CompiledPolicy], bool]:
    """The run's policies that bind, and whether they only audit."""
    names = frozenset(sealed.policies)
    policies = [p for p in context.policies(namespace) if p.name in names]
    enforcing = [p for p in policies if p.mode == "Enforce"]
    return enforcing or policies, only_audited(policies, broken=bool(context.broken()))


def _updated_in_lane(
    request: Request, lane: str, changed: tuple[str, ...], context: PodRulesContext
) -> Response:
    """It stays what was judged; sets let pods go, and take them on."""
    if request.subresource in ("ephemeralcontainers", "resize"):
        changed = (request.subresource, *changed)
    elif changed == ("metadata.ownerReferences",) and not _sealed(request.object, request, context):
        found = owner_breaches(request.object)
        return _not_in_lane(request, lane, found) if found else ALLOWED
    if not changed:
        return ALLOWED
    return deny(
        f"pod {_name(request)} runs in lane {lane}: found a change of "
        f"{', '.join(changed[:_MOST_DIFFERENCES])}, expected none of what was judged when it was "
        "made; delete the pod to have it made anew"
    )


def _sealed(pod: JsonObject, request: Request, context: PodRulesContext) -> SealedPod | None:
    return seal_of(pod, request.namespace, context.find)


def seal_of(
    pod: JsonObject, namespace: str, find: Callable[[str], SealedPod | None]
) -> SealedPod | None:
    """The seal of the pod's owner, or of the Job whose UID it bears as a label."""
    found = find(_owner(pod)) or find(str(_labels(pod).get(LABEL_JOB_UID, "")))
    return found if found is not None and found.namespace == namespace else None


def _additions(policies: Sequence[CompiledPolicy]) -> Additions:
    """An addition counts only where each policy has it."""
    if not policies:
        return Additions()
    return reduce(Additions.both, (p.additions for p in policies))


def _sentences(found: Sequence[Difference | Breach]) -> str:
    words = "; ".join(str(d) for d in found[:_MOST_DIFFERENCES])
    more = len(found) - _MOST_DIFFERENCES
    return f"{words}; and {more} more" if more > 0 else words


def _labels(pod: Mapping[str, JsonValue]) -> JsonObject:
    return json_object(meta(pod).get("labels"))


def _labelled(pod: Mapping[str, JsonValue]) -> bool:
    return any(k.startswith(LABEL_PREFIX) for k in _labels(pod))


def _owner(pod: Mapping[str, JsonValue]) -> str:
    owners = meta(pod).get("ownerReferences")
    for owner in owners if isinstance(owners, list) else ():
        if isinstance(owner, dict) and owner.get("controller") is True:
            return str(owner.get("uid", ""))
    return ""


def _name(request: Request) -> str:
    name = meta(request.object).get("name") or meta(request.object).get("generateName") or ""
    return f"{request.namespace}/{request.name or name}"
