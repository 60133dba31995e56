"""What a TrainingJob shows of the findings on its run: taken from the seal's status. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue, ValidationError

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.api.sealedrun import Hold
from trainseal.api.trainingjob import DriftSummary
from trainseal.controller.conditions import Wanted
from trainseal.controller.sightings import in_short, reason_of

Json = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class DriftStatus:
    """Fields and conditions; both are empty for a run on which nothing was found."""

    fields: JsonObject
    conditions: tuple[Wanted, ...]


def hold_of(seal: Json) -> Hold | None:
    """What holds the run.

    A hold that cannot be read, after a downgrade say, holds all the same.
    """
    hold = json_object(seal.get("status")).get("hold")
    if not hold:
        return None
    try:
        return Hold.model_validate(hold)
    except ValidationError:
        return _UNREADABLE


def drift_status(seal: Json) -> DriftStatus:
    """What to show of a seal's findings."""
    status = json_object(seal.get("status"))
    drift = json_object(status.get("drift"))
    if not drift:
        return DriftStatus({}, ())
    conditions = [
        Wanted("Drifted", "True", str(c.get("reason")), str(c.get("message", "")))
        for c in json_objects(status.get("conditions"))
        if c.get("type") == "Drifted" and c.get("status") == "True"
    ]
    hold = hold_of(seal)
    if hold is not None:
        conditions.append(Wanted("Held", "True", reason_of(hold.reason), held_words(hold)))
    elif lifted := json_object(status.get("lifted")):
        words = f"lifted by {lifted.get('user')}: {lifted.get('reason')}"
        conditions.append(Wanted("Held", "False", "Lifted", words))
    try:
        short = in_short(DriftSummary.model_validate(drift))
    except ValidationError:
        short = "unreadable"
    return DriftStatus({"drift": dict(drift), "drifted": short}, tuple(conditions))


def held_words(hold: Hold) -> str:
    """Why the run does not go on, and what to do."""
    words = _WORDS[hold.response]
    text = f"{words} after a finding: {hold.message}; `trainseal drift` shows it"
    if hold.response != "Terminate":
        text += ", `trainseal thaw` lifts the hold"
    if hold.waiting:
        text += f". Not lifted: {hold.waiting}"
    return text


_WORDS = {
    "Freeze": "frozen",
    "Suspend": "held",
    "Quarantine": "quarantined",
    "Terminate": "terminated",
}
_UNREADABLE = Hold.model_validate(
    {
        "id": "0" * 16,
        "response": "Suspend",
        "since": "1970-01-01T00:00:00Z",
        "findings": ["0" * 16],
        "reason": "watch.blind",
        "severity": "Critical",
        "message": "the seal's status.hold cannot be read by this version; upgrade the controller",
    }
)
