"""Who got into a run's pods by a BreakGlass, and what of it nobody else has reviewed. Pure.

1. Each BreakGlass that was used is a finding; that it is there is none.
2. A use taints the run's checkpoints from the first one on, until a HoldRelease of somebody else
   than who used it names the BreakGlass, made after its last use. Who approved it is somebody else.
3. Used again, it is to be reviewed again.

So the taint of broken glass goes, unlike that of what was found: what somebody did there that was
not to be done is a finding of its own, and taints for good (``taints``).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from trainseal.api.breakglass import BreakGlass
from trainseal.api.findings import FINDINGS, FindingId
from trainseal.api.holdrelease import HoldRelease
from trainseal.api.sealedrun import MAX_BROKEN_GLASS, BrokenGlass, RunTaint
from trainseal.controller.disturbances import Record, timestamp
from trainseal.controller.ownreport import Seen
from trainseal.controller.sightings import Sighting
from trainseal.controller.taints import MAX_USERS

_ID = FindingId.ACCESS_BROKE_GLASS


def uses(glasses: Mapping[str, BreakGlass], records: Iterable[Record]) -> Iterator[Seen]:
    """One for each BreakGlass that a record names; ``glasses`` are those there still, by name."""
    used: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        if record.break_glass:
            used[record.break_glass].append(record)
    for name, of_it in sorted(used.items()):
        of_it.sort(key=lambda r: (r.time, r.name))
        first, last = of_it[0], of_it[-1]
        glass = glasses.get(name)
        approved_by = glass.spec.approved_by if glass else "somebody who is not known any more"
        pods = ", ".join(dict.fromkeys(r.pod for r in of_it[:8]))
        did = "resized" if all(r.action == "Resize" for r in of_it) else "got into"
        yield Seen(
            id=_ID,
            subject=name,
            message=f"{first.user} {did} {pods} by BreakGlass {name}, approved by "
            f"{approved_by}: {glass.spec.reason if glass else 'it is gone'}",
            occasion=last.name,
            evidence={
                "breakGlass": name,
                "approvedBy": approved_by,
                "ways": ", ".join(sorted({r.action for r in of_it})),
                "uses": str(len(of_it)),
                "firstUse": first.time.isoformat(),
                "lastUse": last.time.isoformat(),
            },
            user=first.user,
            access_record=last.name,
            not_before=first.time,
        )


def unreviewed(
    before: Sequence[BrokenGlass],
    sightings: Iterable[Sighting],
    releases: Sequence[HoldRelease],
) -> list[BrokenGlass]:
    """What waits for review, the earliest first; ``before`` is what did.

    Those that find no room wait their turn: the earliest decides since when the run is tainted.
    """
    broken = {glass.name: glass for glass in before}
    for sighting in sightings:
        found = _read(sighting)
        if found is None:
            continue
        known = broken.get(found.name, found)
        broken[found.name] = found.model_copy(
            update={
                "since": min(known.since, found.since),
                "last_use": max(known.last_use, found.last_use),
            }
        )
    waiting = [glass for glass in broken.values() if not _reviewed(glass, releases)]
    return sorted(waiting, key=lambda g: (g.since, g.name))[:MAX_BROKEN_GLASS]


def with_glass(taint: RunTaint | None, broken: Sequence[BrokenGlass]) -> RunTaint | None:
    """The run's taint with that of what waits for review: the earlier one, and all persons."""
    if not broken:
        return taint
    first = broken[0]
    since = first.since.replace(microsecond=0)
    if taint is None or since < taint.since:
        message = f"{first.user} got in by BreakGlass {first.name}, and nobody else has reviewed it"
        taint = RunTaint(
            since=since,
            finding=_ID.value,
            severity=FINDINGS[_ID].severity,
            message=message[:1024],
            users=taint.users if taint else None,
        )
    users = dict.fromkeys([*(taint.users or ()), *(glass.user for glass in broken)])
    return taint.model_copy(update={"users": list(users)[:MAX_USERS]})


def _reviewed(glass: BrokenGlass, releases: Iterable[HoldRelease]) -> bool:
    by_others = (
        r.metadata.creation_timestamp
        for r in releases
        if r.spec.break_glass == glass.name and r.spec.user != glass.user
    )
    return any(made is not None and glass.last_use <= made for made in by_others)


def _read(sighting: Sighting) -> BrokenGlass | None:
    """From the finding's evidence; unproved or unreadable ones are none of ours."""
    found, evidence = sighting.finding, sighting.finding.evidence or {}
    since, last = timestamp(evidence.get("firstUse")), timestamp(evidence.get("lastUse"))
    name = evidence.get("breakGlass")
    if found.id != _ID.value or not sighting.proved or not name or not since or not last:
        return None
    return BrokenGlass(name=name, user=found.user or "", since=since, last_use=last)
