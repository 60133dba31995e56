"""What people try past the gate is on record with their name.

A pod for a GPU that no seal describes, a change of a sealed pod: the API server's own policies (the
floor) refuse the one before any validating webhook is asked, and the pods' webhook the other,
which writes nothing. So a mutating webhook that changes nothing looks at both first, judges them by
the same rules, and writes an AccessRecord. It is no gate: it lets everything pass, and where it is
away, or a record cannot be written, the refusal comes all the same.

What makes pods (a Deployment, say) is judged by the pods that it would make: those are asked for by
a controller, and who it is that wants them is known here alone. The cluster's own controllers are
not asked about; the chart's match conditions say who that is.

One record a user, object and answer within ten minutes; at most so many a user and namespace.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import Counter

from trainseal.admission.accessrequests import Thing, record_of, slot_of
from trainseal.admission.podmakers import BY_PLURAL, judged
from trainseal.admission.pods import PodRulesContext, decide, seal_of
from trainseal.admission.rates import Buckets
from trainseal.admission.recording import put_on_record
from trainseal.admission.reviews import ALLOWED, Request, Response, meta
from trainseal.api.accessrecord import LABEL_SEAL, Action, ObjectKind
from trainseal.api.model import JsonObject
from trainseal.cluster.api import Kube, KubeError

_log = logging.getLogger(__name__)
_WITNESSED = Counter(
    "trainseal_attempts_total", "Attempts past the gate on record.", ["kind", "allowed"]
)
_FAILED = Counter(
    "trainseal_attempts_unrecorded_total",
    "Attempts that were not recorded: write (the API server took no record), or rate (one user "
    "made too many).",
    ["why"],
)
_CALL_SECONDS = 1.5
_MOST_CALLS = 16
#: Of one user in one namespace, for each replica: a second, and at once.
_RATE, _BURST = 0.5, 30.0


@dataclass(frozen=True, slots=True)
class Attempt:
    """What is to be recorded."""

    kind: ObjectKind
    name: str
    uid: str
    action: Action
    allowed: bool
    message: str
    seal: str = ""


def attempt(request: Request, context: PodRulesContext) -> Attempt | None:
    """What the request is an attempt at; None where nothing is to be recorded. Pure."""
    maker = BY_PLURAL.get(request.resource)
    if maker is None or request.dry_run or request.namespace in context.excluded_namespaces:
        return None
    metadata = meta(request.object)
    name = str(metadata.get("name") or request.name or metadata.get("generateName") or "")
    name, uid = name.rstrip("-.") or "unnamed", str(metadata.get("uid", ""))
    action: Action = "Change" if request.operation == "UPDATE" else "Create"
    if maker.kind == "Pod":
        answer = decide(request, context, final=True)
        sealed = seal_of(request.old, request.namespace, context.find)
        seal = sealed.seal if sealed else ""
        return _attempt(answer, maker.kind, name, uid, action, allowed=answer.allowed, seal=seal)
    templates, before = maker.templates(request.object), maker.templates(request.old)
    if request.operation == "UPDATE" and templates == before:
        return None

    def worst(of: Sequence[JsonObject]) -> Response:
        answers = [judged(maker, t, request.namespace, name, context) for t in of]
        said = [a for a in answers if a.warnings]
        return next((a for a in answers if not a.allowed), next(iter(said), ALLOWED))

    answer = worst(templates)
    # The floor refuses what comes to ask for a GPU; of what asked before, its pods are refused.
    allowed = answer.allowed or (action == "Change" and not worst(before).allowed)
    return _attempt(answer, maker.kind, name, uid, action, allowed=allowed)


def _attempt(
    answer: Response,
    kind: ObjectKind,
    name: str,
    uid: str,
    action: Action,
    *,
    allowed: bool,
    seal: str = "",
) -> Attempt | None:
    message = answer.message or next(iter(answer.warnings), "")
    if answer.allowed and not message:
        return None
    return Attempt(kind, name[:253], uid, action, allowed, message, seal)


def record(request: Request, found: Attempt, now: datetime) -> JsonObject:
    """The AccessRecord; the same within ten minutes for the same user, object and answer."""
    same = (slot_of(now), request.username, request.user_uid, found.message)
    thing = Thing(found.kind, found.name, found.uid)
    spec: JsonObject = {"action": found.action, "allowed": found.allowed, "message": found.message}
    if found.seal:
        spec["sealedRun"] = found.seal
    return record_of(request, thing, request.namespace, spec, {LABEL_SEAL: found.seal}, now, same)


class Witness:
    """Answers what is asked at /witness: always yes."""

    def __init__(
        self,
        kube: Kube,
        context: PodRulesContext,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._context = context
        self._now = now
        self._calls = asyncio.Semaphore(_MOST_CALLS)
        self._buckets = Buckets(_RATE, _BURST, monotonic)

    async def answer(self, request: Request) -> Response:
        """Yes, once it is on record, or cannot be."""
        found = attempt(request, self._context)
        if found is None:
            return ALLOWED
        if not self._buckets.take((request.namespace, request.username)):
            _FAILED.labels("rate").inc()
            return ALLOWED
        made = record(request, found, self._now())
        try:
            new = await put_on_record(self._kube, made, _CALL_SECONDS, self._calls)
        except (KubeError, TimeoutError) as error:
            _FAILED.labels("write").inc()
            _log.warning("an attempt by %.300r is not recorded: %s", request.username, error)
            return ALLOWED
        if new:
            _WITNESSED.labels(found.kind, str(found.allowed).lower()).inc()
        return ALLOWED
