"""The steps of a job as Events: what a change of its status has to tell. Pure.

Each step is told once, in the order in which it happened; to be verified and sealed at once is one.
Events are told before the status is written, and their names follow from what the status was:
whoever is stopped in between tells them again under the same names.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.api.model import json_object, json_objects

Json = Mapping[str, JsonValue]
#: Reasons of the condition Verified that are no verdict on an artifact, and told by their own name.
_OWN_REASONS = frozenset(
    {
        "InvalidJob",
        "InvalidTemplate",
        "NoTicket",
        "TaintedCheckpoint",
        "SignaturesMissing",
        "PendingTooLong",
    }
)
#: Nothing is wrong yet.
_AWAITED = "SignaturesMissing"
#: Of the condition Placed: pass by themselves.
_PASSING = frozenset({"PodsEnd", "NextEpoch"})


@dataclass(frozen=True, slots=True)
class Announcement:
    """One Event."""

    reason: str
    message: str
    warning: bool = False


def announcements(before: Json, after: Json) -> Iterator[Announcement]:
    """What there is to tell once the status ``before`` has become ``after``."""
    seal = after.get("sealedRun")
    sealed = bool(seal) and before.get("sealedRun") != seal
    verified = f"every artifact carries what the policy wants; signed by {_signers(after)}"
    newly = _changed("Verified", before, after)
    if newly:
        found = _condition("Verified", after)
        if found.get("status") == "True":
            if not sealed:
                yield Announcement("Verified", verified)
        else:
            reason, message = str(found.get("reason")), str(found.get("message"))
            told = reason if reason in _OWN_REASONS else "NotVerified"
            yield Announcement(told, message.partition("\n")[0], warning=reason != _AWAITED)
    if sealed:
        words = f"SealedRun {seal}: run {after.get('run')} of {after.get('jobDigest')}"
        words += f", asked for by {after.get('requester')}"
        yield Announcement("Sealed", f"{words}; {verified}" if newly else words)
    phase, was = after.get("phase"), before.get("phase")
    if phase != was and phase not in ("Pending", "Refused", "Sealed" if sealed else ""):
        reason = _ending(after) if phase == "Failed" else _step(was, phase)
        yield Announcement(reason, str(after.get("message")), warning=phase == "Failed")
    placed = _condition("Placed", after)
    if (
        placed.get("status") == "False"
        and placed.get("reason") not in _PASSING
        and placed.get("message") != _condition("Placed", before).get("message")
    ):
        yield Announcement(str(placed.get("reason")), str(placed.get("message")))


def _signers(after: Json) -> str:
    return str(after.get("signers") or "nobody")


def occasion(before: Json) -> str:
    """What tells a step from the same one taken earlier: changes with each status that matters."""
    times = [str(c.get("lastTransitionTime")) for c in json_objects(before.get("conditions"))]
    parts = [before.get("phase"), before.get("observedGeneration"), *sorted(times)]
    return hashlib.sha256("/".join(map(str, parts)).encode()).hexdigest()


def _step(was: JsonValue, phase: JsonValue) -> str:
    if phase != "Sealed":
        return str(phase)
    if was == "Suspended":
        return "Resumed"
    return "Waiting" if was == "Running" else "Bound"


def _ending(status: Json) -> str:
    """`Failed`, or what made it fail beside the workers themselves."""
    return str(_condition("Complete", status).get("reason", "Failed"))


def _changed(type_: str, before: Json, after: Json) -> bool:
    one, other = _condition(type_, before), _condition(type_, after)
    return any(one.get(f) != other.get(f) for f in ("status", "reason", "message"))


def _condition(type_: str, status: Json) -> Json:
    found = (json_object(c) for c in json_objects(status.get("conditions")))
    return next((c for c in found if c.get("type") == type_), {})
