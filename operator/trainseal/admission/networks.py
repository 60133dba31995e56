"""Nobody opens the network of a sealed run: NetworkPolicies and Services of others.

The rendezvous of a run is unauthenticated, and NetworkPolicies add up: one more that selects a
run's pods lets in what the run's own does not. The rules, in order:

1. What allows nothing passes: it takes nothing away from a run's own policy.
2. A NetworkPolicy that lets something in to pods of a run that lives is refused, unless every
   policy of the namespace only audits; of a run in quarantine also one that lets something out.
3. Any other that lets something in passes and is on record, where a policy names the namespace: a
   run that starts later is found to be open (``network.opened``), and by whom.
4. A Service that chooses pods of a run passes and is on record: the run's own policy stands before
   them all the same, and whoever goes there by the API server's proxy is judged as going in.

Which pods it chooses is told by the labels of the signed templates: nobody gives a sealed pod
another (``pods``). The refusal stands also where it cannot be recorded; what is let through then
passes, as the controller finds it anyway.
"""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import Counter

from trainseal.admission.accessrequests import Thing, record_of, slot_of
from trainseal.admission.rates import Buckets
from trainseal.admission.recording import place_of, put_on_record
from trainseal.admission.reviews import ALLOWED, Request, Response, deny, meta
from trainseal.admission.sealindex import LiveSeal
from trainseal.api.accessrecord import LABEL_OBJECT, LABEL_SEAL, Action, ObjectKind
from trainseal.api.model import JsonObject, json_object
from trainseal.cluster.api import Kube, KubeError
from trainseal.provenance.networks import opening
from trainseal.provenance.policies import CompiledPolicy, only_audited
from trainseal.provenance.selectors import Selector, equal_to
from trainseal.verifier.policystore import BrokenPolicy

_log = logging.getLogger(__name__)
_RECORDED = Counter(
    "trainseal_networks_recorded_total",
    "NetworkPolicies and Services on record: those that open a run, or let something in.",
    ["kind", "allowed"],
)
_FAILED = Counter(
    "trainseal_networks_unrecorded_total",
    "NetworkPolicies and Services that were not recorded: write (the API server took no record), "
    "or rate (one user made too many).",
    ["why"],
)
_CALL_SECONDS = 2.0
_MOST_CALLS = 16
#: Of one user in one namespace, for each replica: a second, and at once.
_RATE, _BURST = 0.5, 30.0
#: Runs named in one answer.
_MOST_NAMED = 3
_NO_SEALED_PODS = "{key: trainseal.dev/seal, operator: DoesNotExist}"


@dataclass(frozen=True, slots=True)
class NetworkContext:
    """What is known, as of now. ``reached_by`` gives the seals of runs that live and whose pods a
    selector may choose, ``live`` what is kept of one."""

    policies: Callable[[str], tuple[CompiledPolicy, ...]]
    broken: Callable[[], tuple[BrokenPolicy, ...]]
    reached_by: Callable[[str, Selector], Sequence[str]]
    live: Callable[[str, str], LiveSeal | None]
    excluded_namespaces: frozenset[str]
    now: Callable[[], datetime]


@dataclass(frozen=True, slots=True)
class Judged:
    """The answer, and what is to be recorded of it: words, and the run; no words: nothing."""

    answer: Response
    words: str = ""
    seal: str = ""


_NOTHING = Judged(ALLOWED)


def judge(request: Request, context: NetworkContext) -> Judged:
    """Pure. What becomes of the request."""
    if request.namespace in context.excluded_namespaces:
        return _NOTHING
    if request.object.get("spec") == request.old.get("spec"):
        return _NOTHING
    spec = json_object(request.object.get("spec"))
    if request.resource == "services":
        return _service(request, spec, context)
    return _network_policy(request, spec, context)


def _network_policy(request: Request, spec: JsonObject, context: NetworkContext) -> Judged:
    opened = opening(spec)
    if opened is None:
        return _NOTHING
    found = [
        (name, rules)
        for name in context.reached_by(request.namespace, opened.selector)
        if (live := context.live(request.namespace, name)) is not None
        and (rules := opened.opens(isolated=live.isolated))
    ]
    policies = context.policies(request.namespace)
    if not found:
        if not policies or not opened.inward:
            return _NOTHING
        words = f"it lets in what no run's own does: {opened.inward}; no run's pods are chosen now"
        return Judged(ALLOWED, words)
    seal, rules = found[0]
    named = ", ".join(f"{request.namespace}/{name}" for name, _ in found[:_MOST_NAMED])
    words = (
        f"NetworkPolicy {_name(request)} by {request.username!r:.300} opens the network of pods "
        f"that are sealed by SealedRun {named}: found {rules:.300}, expected none beside the run's "
        f"own, as nobody has to prove who they are there; let it choose other pods alone: add "
        f"{_NO_SEALED_PODS} to spec.podSelector.matchExpressions"
    )
    if only_audited(policies, broken=bool(context.broken())):
        told = f"would be denied under Enforce: {words}"
        return Judged(Response(True, warnings=(told,)), told, seal)
    return Judged(deny(words), words, seal)


def _service(request: Request, spec: JsonObject, context: NetworkContext) -> Judged:
    selector = json_object(spec.get("selector"))
    if not selector or spec.get("type") == "ExternalName":
        return _NOTHING
    found = context.reached_by(request.namespace, equal_to(selector))
    if not found:
        return _NOTHING
    words = (
        f"it chooses pods of SealedRun {request.namespace}/{found[0]}: a name for them, and a way "
        "to them by the API server's proxy, which is judged as access.proxy"
    )
    return Judged(ALLOWED, words, found[0])


def record(request: Request, judged: Judged, now: datetime) -> JsonObject:
    """The AccessRecord; the same within ten minutes for the same user, object and words."""
    uid = str(meta(request.object).get("uid", ""))
    thing = Thing(_kind(request), _called(request), uid)
    action: Action = "Change" if request.operation == "UPDATE" else "Create"
    spec: JsonObject = {
        "action": action,
        "allowed": judged.answer.allowed,
        "message": judged.words,
        **({"sealedRun": judged.seal} if judged.seal else {}),
    }
    labels = {LABEL_SEAL: judged.seal, LABEL_OBJECT: uid}
    same = (slot_of(now), request.username, request.user_uid, uid, judged.words)
    return record_of(request, thing, request.namespace, spec, labels, now, same)


class Networks:
    """Answers what is asked at /validate-network."""

    def __init__(
        self,
        kube: Kube,
        context: NetworkContext,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._context = context
        self._calls = asyncio.Semaphore(_MOST_CALLS)
        self._buckets = Buckets(_RATE, _BURST, monotonic)

    async def answer(self, request: Request) -> Response:
        """Yes or no, once it is on record, or cannot be."""
        judged = judge(request, self._context)
        if not judged.words or request.dry_run:
            return judged.answer
        if not self._buckets.take((request.namespace, request.username)):
            _FAILED.labels("rate").inc()
            return judged.answer
        made = record(request, judged, self._context.now())
        try:
            new = await put_on_record(self._kube, made, _CALL_SECONDS, self._calls)
        except (KubeError, TimeoutError) as error:
            _FAILED.labels("write").inc()
            what = f"{_kind(request)} {_name(request)} by {request.username!r:.300}"
            _log.warning("%s is not recorded: %s", what, error)
            return judged.answer
        if new:
            _RECORDED.labels(_kind(request), str(judged.answer.allowed).lower()).inc()
        return dataclasses.replace(judged.answer, audit={"access-record": place_of(made)})


def _kind(request: Request) -> ObjectKind:
    return "Service" if request.resource == "services" else "NetworkPolicy"


def _called(request: Request) -> str:
    return str(request.name or meta(request.object).get("name") or "unnamed")[:253]


def _name(request: Request) -> str:
    return f"{request.namespace}/{_called(request)}"
