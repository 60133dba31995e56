"""When a finding holds a run, and what lifts the hold. Pure.

1. A proved finding that nobody has let the run go on after, and whose response is `Freeze` or
   stronger, holds the run.
2. A hold gathers findings and grows stronger; it never weakens by itself, whatever becomes of
   policies or reports.
3. A freeze lasts as long as the strictest policy allows; then that policy's next response follows.
4. A quarantine has no end by itself. It is for pods that are there: a run that is suspended has
   lost them, and stays suspended.
5. A hold is lifted by a HoldRelease that names it as it is. Its id changes with its findings, so
   a release lifts what its author saw. `Terminate` is final; and whom a finding names does not
   lift its hold.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from trainseal.api.findings import FindingId
from trainseal.api.holdrelease import HoldRelease
from trainseal.api.sealedrun import MAX_MARKS, Hold
from trainseal.controller.heldtime import began
from trainseal.controller.sightings import Sighting, worst
from trainseal.provenance.drift import STRENGTH, CompiledDrift, response_to

Holding = Literal["Freeze", "Suspend", "Quarantine", "Terminate"]
#: Of an agent and not of the run: whoever has one agent's token could stop any run by it. And what
#: a policy allows who has a BreakGlass: it waits for review, and the run goes on.
_HOLDS_NOTHING = frozenset({FindingId.WATCH_MISREPORTED.value, FindingId.ACCESS_BROKE_GLASS.value})
#: From the weakest to the strongest.
HOLDING: tuple[Holding, ...] = ("Freeze", "Suspend", "Quarantine", "Terminate")


@dataclass(frozen=True, slots=True)
class Lift:
    """A release that lifts the hold, or (then ``refusal`` says so) that does not."""

    release: HoldRelease
    refusal: str = ""


def hold_id(marks: Iterable[str]) -> str:
    """The id of a hold over these findings."""
    return hashlib.sha256("/".join(sorted(set(marks))).encode()).hexdigest()[:16]


def next_hold(
    hold: Hold | None,
    sightings: Sequence[Sighting],
    handled: Collection[str],
    policies: Sequence[CompiledDrift],
    now: datetime,
) -> Hold | None:
    """The hold as it is to be now; None where nothing holds the run."""
    calling: list[Sighting] = []
    responses: list[Holding] = [hold.response] if hold else []
    for sighting in sightings:
        response = _holding(response_to(sighting.finding.severity, policies))
        counts = sighting.proved and sighting.finding.id not in _HOLDS_NOTHING
        if counts and response and sighting.mark not in handled:
            calling.append(sighting)
            responses.append(response)
    if not responses:
        return None
    held = hold.findings if hold else []
    marks = list(dict.fromkeys([*held, *(s.mark for s in calling)]))[:MAX_MARKS]
    since = hold.since if hold else now
    response = max(responses, key=STRENGTH.index)
    if response == "Quarantine" and hold is not None and hold.response == "Suspend":
        response = "Suspend"
    if response == "Freeze" and now >= frozen_until(since, policies):
        response = max((p.then for p in policies), key=STRENGTH.index, default="Suspend")
    if calling:
        first = worst(calling)
        reason, severity, message = first.finding.id, first.finding.severity, first.words()
    else:
        assert hold is not None  # noqa: S101 - there is a response
        reason, severity, message = hold.reason, hold.severity, hold.message
    return Hold(
        id=hold_id(marks),
        response=response,
        since=since,
        response_since=began(hold) if hold and hold.response == response else now,
        findings=marks,
        reason=reason,
        severity=severity,
        message=message,
        waiting=hold.waiting if hold else None,
    )


def frozen_until(since: datetime, policies: Sequence[CompiledDrift]) -> datetime:
    """When a freeze ends: the shortest that any policy allows."""
    seconds = min((p.freeze_seconds for p in policies), default=CompiledDrift().freeze_seconds)
    return since + timedelta(seconds=seconds)


def lift_of(
    hold: Hold, seal: str, releases: Iterable[HoldRelease], sightings: Sequence[Sighting]
) -> Lift | None:
    """The release that lifts the hold, or else one that asks for it in vain; None: nobody asks."""
    asking = [r for r in releases if r.spec.sealed_run == seal and r.spec.hold == hold.id]
    if not asking:
        return None
    if hold.response == "Terminate":
        return Lift(asking[0], "the run was terminated; apply the job again")
    held = set(hold.findings)
    named = {s.finding.user for s in sightings if s.mark in held and s.finding.user}
    for release in sorted(asking, key=lambda r: r.metadata.name):
        if release.spec.user not in named:
            return Lift(release)
    return Lift(
        asking[0],
        f"{asking[0].spec.user} is named by a finding that holds the run; somebody else must "
        "lift it",
    )


def _holding(response: str) -> Holding | None:
    return next((h for h in HOLDING if h == response), None)
