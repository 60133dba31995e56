"""Who changes what is enforced is on record with their name: policies and trust roots.

Neither belongs to a namespace, so the record stands in the release's. It is written before the
change is let in, and a change that cannot be recorded is refused: whoever could keep the record
away could weaken a policy unseen. A deletion passes all the same, since a policy that cannot be
used denies every job and must go also while nothing can be written.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from prometheus_client import Counter

from trainseal.admission.accessrequests import Thing, record_of
from trainseal.admission.recording import place_of, put_on_record
from trainseal.admission.reviews import ALLOWED, TRY_AGAIN, Request, Response, deny, meta
from trainseal.api.accessrecord import (
    LABEL_WEAKENS,
    Action,
    ObjectKind,
)
from trainseal.api.model import InvalidObjectError, JsonObject
from trainseal.api.policy import ProvenancePolicy
from trainseal.cluster.api import Kube, KubeError
from trainseal.provenance.policychanges import weakenings

_log = logging.getLogger(__name__)
_FAILED = Counter(
    "trainseal_policy_changes_unrecorded_total",
    "Changes of policies and trust roots that could not be recorded: refused, but for deletions.",
)
_CALL_SECONDS = 2.0
_KINDS: dict[str, ObjectKind] = {
    "provenancepolicies": "ProvenancePolicy",
    "trustroots": "TrustRoot",
}


@dataclass(frozen=True, slots=True)
class PolicyChange:
    """What is to be recorded; ``weakens``: it lets through what it did not before."""

    kind: ObjectKind
    name: str
    uid: str
    action: Action
    message: str
    weakens: bool = False


def policy_change(request: Request) -> PolicyChange | None:
    """What the request changes of what is enforced; None: nothing. Pure."""
    kind = _KINDS.get(request.resource)
    if kind is None or request.dry_run:
        return None
    live = request.old if request.operation == "DELETE" else request.object
    name, uid = str(meta(live).get("name") or request.name), str(meta(live).get("uid", ""))
    match request.operation:
        case "CREATE":
            return PolicyChange(kind, name, uid, "Create", "it is new")
        case "DELETE" if kind == "ProvenancePolicy":
            message = "what it demanded is demanded no more"
            return PolicyChange(kind, name, uid, "DeleteObject", message, weakens=True)
        case "DELETE":
            message = "signatures that need it are undetermined from now on"
            return PolicyChange(kind, name, uid, "DeleteObject", message)
    if request.object.get("spec") == request.old.get("spec"):
        return None
    if kind == "TrustRoot":
        return PolicyChange(kind, name, uid, "Change", "it trusts other roots", weakens=True)
    try:
        old = ProvenancePolicy.parse(request.old).spec
        new = ProvenancePolicy.parse(request.object).spec
    except InvalidObjectError:
        message = "it could not be used before, and every job was denied"
        return PolicyChange(kind, name, uid, "Change", message)
    found = "; ".join(weakenings(old, new))
    message = found or "it demands no less than before"
    return PolicyChange(kind, name, uid, "Change", message, weakens=bool(found))


def record(request: Request, change: PolicyChange, home: str, now: datetime) -> JsonObject:
    """The AccessRecord, in the release's namespace; the same for the same request."""
    thing = Thing(change.kind, change.name, change.uid)
    spec: JsonObject = {"action": change.action, "allowed": True, "message": change.message}
    labels = {LABEL_WEAKENS: "true" if change.weakens else ""}
    return record_of(request, thing, home, spec, labels, now, (request.uid, request.username))


class PolicyRecords:
    """Adds to what was decided of a change that it is on record; ``home`` is our namespace."""

    def __init__(self, kube: Kube, home: str, now: Callable[[], datetime]) -> None:
        self._kube = kube
        self._home = home
        self._now = now

    async def answer(self, request: Request, decided: Response) -> Response:
        """``decided``, once what it lets in is on record; a weakening is told to who makes it."""
        change = policy_change(request) if decided.allowed else None
        if change is None:
            return decided
        made = record(request, change, self._home, self._now())
        try:
            await put_on_record(self._kube, made, _CALL_SECONDS)
        except (KubeError, TimeoutError) as error:
            _FAILED.inc()
            what = f"{change.action} of {change.kind} {change.name} by {request.username!r:.300}"
            why = str(error) or "no answer in time"
            _log.error("%s could not be recorded: %s", what, why)
            if request.operation == "DELETE":
                return ALLOWED
            return deny(
                f"{what} is denied because it could not be recorded: {why:.500}; try again. If it "
                f"lasts, look whether namespace {self._home} is being deleted, or the webhook's "
                "ClusterRole has lost create on accessrecords",
                TRY_AGAIN,
            )
        if not change.weakens:
            return decided
        where = place_of(made)
        told = f"{change.kind} {change.name} is weaker: {change.message:.600}; on record as {where}"
        return dataclasses.replace(decided, warnings=[*decided.warnings, told])
