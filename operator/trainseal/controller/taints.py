"""Which checkpoints of a run need a person's word before a job goes on from them. Pure.

1. A proved finding of severity `Warning` or above taints its run, whatever the policies answer:
   what was computed after it is not known to be what was signed for. Findings that say nothing of
   what was computed (a worker was killed, a node cannot see everything) taint nothing.
2. It begins when the thing was surely not so yet, as the finding says (``notBefore``): what looking
   finds was done at any time since an earlier look. Where a finding does not say, with the run.
3. A checkpoint of a tainted run is tainted unless all clocks say that it is older: the agent's, by
   which it was completed, and the API server's, by which its manifest was stored.
4. A checkpoint that somebody but the trainer wrote is tainted in any run.
5. A person signs checkpoints off by name, so that nothing that came later is. Who wrote them, and
   whom a finding on the run names, does not. Until then a taint stays, whatever hold was lifted.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from trainseal.api.checkpoint import Acceptance, CheckpointFile, CheckpointSpec, Taint, Writer
from trainseal.api.driftreport import Finding
from trainseal.api.findings import FindingId
from trainseal.api.holdrelease import HoldRelease
from trainseal.api.sealedrun import RunTaint
from trainseal.controller.sightings import Sighting

MAX_USERS = 32
#: Of these, none tells that something else ran than was sealed: what is in a Secret never is.
#: Broken glass taints until it is reviewed (``brokenglass``), and not for good. An open network
#: says that others could come in, as they can wherever no plugin enforces NetworkPolicies, and not
#: that one did.
TAINT_NOTHING = frozenset(
    {
        FindingId.ACCESS_BROKE_GLASS.value,
        FindingId.NETWORK_OPENED.value,
        FindingId.PROCESS_STOPPED.value,
        FindingId.POD_KILLED.value,
        FindingId.POD_UNRECORDED.value,
        FindingId.POD_DELETED.value,
        FindingId.SECRET_CHANGED.value,
        FindingId.WATCH_BLIND.value,
        FindingId.WATCH_MISREPORTED.value,
    }
)
_BY: Mapping[Writer, str] = {
    "Session": "written by a process that came into the pod, not by the trainer",
    "Outside": "changed by nobody in the pod after it had a manifest",
}


@dataclass(frozen=True, slots=True)
class Ruling:
    """Whether tainted files were signed off; ``refused`` says why a release does not do it."""

    accepted: Acceptance | None = None
    refused: str | None = None


def run_taint(
    before: RunTaint | None, sightings: Sequence[Sighting], now: datetime, began: datetime
) -> RunTaint | None:
    """The run's taint as it is to be now: it starts ever earlier and never goes. The run itself
    ``began`` no earlier.
    """
    taint = before
    users = dict.fromkeys((before.users or ()) if before else ())
    for sighting in sightings:
        if not _taints(sighting):
            continue
        found = sighting.finding
        if found.user and len(users) < MAX_USERS:
            users[found.user] = None
        since = _since(found, now, began)
        if taint is None or since < taint.since:
            taint = RunTaint(
                since=since, finding=found.id, severity=found.severity, message=sighting.words()
            )
    if taint is None:
        return None
    return taint.model_copy(update={"users": list(users) or None})


def taint_of(spec: CheckpointSpec, created: datetime | None, run: RunTaint | None) -> Taint | None:
    """The taint of one checkpoint; ``created`` is when the API server stored its manifest."""
    if run is not None:
        at = max(spec.completed, created or spec.completed)
        if at >= run.since:
            return Taint(finding=run.finding, since=run.since, message=run.message)
    for file in spec.files:
        if (words := _BY.get(file.writer)) is not None:
            message = f"{file.path}: {words}"
            return Taint(finding=FindingId.CHECKPOINT_REPLACED.value, message=message[:1024])
    return None


def ruling(
    name: str,
    files: Iterable[CheckpointFile],
    run: RunTaint | None,
    releases: Iterable[HoldRelease],
) -> Ruling:
    """What the releases on a run say of its checkpoint ``name``."""
    named = {*((run.users or ()) if run else ()), *(f.user for f in files if f.user)}
    asking = [r for r in releases if name in (r.spec.checkpoints or ())]
    for release in sorted(asking, key=lambda r: r.metadata.name):
        if release.spec.user not in named:
            return Ruling(
                Acceptance(
                    release=release.metadata.name,
                    user=release.spec.user,
                    reason=release.spec.reason,
                )
            )
    if asking:
        return Ruling(
            refused=f"{asking[0].spec.user} wrote them, or is named by a finding on the run; "
            "somebody else must sign them off"
        )
    return Ruling()


def _taints(sighting: Sighting) -> bool:
    found = sighting.finding
    return sighting.proved and found.severity != "Info" and found.id not in TAINT_NOTHING


def _since(found: Finding, now: datetime, began: datetime) -> datetime:
    """Whole seconds, as the API server writes when an object was made. An agent's clock that is
    ahead of ours does not make it later.
    """
    since = min(found.first_time, now)
    if found.not_before is not None:
        since -= max(found.first_time - found.not_before, timedelta())
    else:
        since = min(since, began)
    return since.replace(microsecond=0)
