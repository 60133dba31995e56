"""Ranks compared by what their agents say of them: files, code that ran, variables.

A rank is compared from five minutes after its container began, when what it does at its start is
done, and told of once it was odd in two looks in the same way: others may come to what it has. What
a look found is kept in memory; after a restart of the controller it takes two looks again.
"""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from pydantic import ValidationError

from trainseal.api.driftreport import MAX_PROFILES, ContainerProfile
from trainseal.api.findings import FindingId
from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.controller.ownreport import Seen
from trainseal.controller.podfindings import Sealed, owner_of, place_of
from trainseal.provenance.rankprofiles import Rank, odd_profiles

_log = logging.getLogger(__name__)
START_UP = timedelta(minutes=5)
#: Between the two looks that a finding takes, at least; seconds.
APART_SECONDS = 45.0
_MOST_EVIDENCE = 8

Key = tuple[str, str]
#: A pod's UID and what is odd about it.
_Odd = tuple[str, str]


class RankWatch:
    """All runs. May be asked about different runs from several threads."""

    def __init__(
        self, clock: Callable[[], datetime], monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock = clock
        self._monotonic = monotonic
        self._since: dict[Key, dict[_Odd, float]] = {}

    def look(
        self, run: Key, pods: Sequence[JsonObject], reports: Sequence[JsonObject], sealed: Sealed
    ) -> list[Seen]:
        """What is to be told of the run's pods at work; ``reports`` are all DriftReports on it."""
        told = _by_pod(reports)
        roles: dict[str, list[JsonObject]] = defaultdict(list)
        for pod in pods:
            if owner_of(pod) in sealed.expected:
                roles[owner_of(pod)].append(pod)
        now, before = self._monotonic(), self._since.get(run, {})
        since: dict[_Odd, float] = {}
        found = []
        for owner, members in roles.items():
            for seen in self._odd(sealed.expected[owner].object_name, members, told):
                odd = (seen.evidence["podUID"], seen.occasion)
                since[odd] = before.get(odd, now)
                if now - since[odd] >= APART_SECONDS:
                    found.append(seen)
        self._since[run] = since
        return found

    def keep(self, runs: Collection[Key]) -> None:
        """Forgets all others."""
        for run in [*self._since]:
            if run not in runs:
                self._since.pop(run, None)

    def _odd(
        self, role: str, pods: Sequence[JsonObject], told: Mapping[str, JsonObject]
    ) -> Iterator[Seen]:
        settled = self._clock() - START_UP
        by_uid = {place_of(pod)["podUID"]: pod for pod in pods}
        ranks = [
            Rank(uid, tuple(_settled(told[uid], pod, settled)))
            for uid, pod in by_uid.items()
            if uid in told
        ]
        for uid, odd in odd_profiles(ranks).items():
            place = place_of(by_uid[uid])
            words = "; ".join(f"{kind}: {what}" for kind, what in odd.items())
            yield Seen(
                id=FindingId.RANK_DIFFERS,
                # The pod's own UID stands for what its object says, see podfindings.
                subject=f"{uid} profile",
                message=f"rank {place['index']} of {role} differs from its peers in {words}",
                occasion=words,
                evidence={**place, **dict(list(odd.items())[:_MOST_EVIDENCE])},
            )


def _by_pod(reports: Sequence[JsonObject]) -> dict[str, JsonObject]:
    """The agents' reports, by the UID of their pod."""
    found = {}
    for report in reports:
        spec = json_object(report.get("spec"))
        if spec.get("reporter") == "Agent":
            found[str(json_object(spec.get("pod")).get("uid"))] = report
    return found


def _settled(report: JsonObject, pod: JsonObject, before: datetime) -> Iterator[ContainerProfile]:
    """The profiles of containers that began before; none of a report from elsewhere."""
    node = json_object(report.get("spec")).get("node")
    if node != json_object(pod.get("spec")).get("nodeName"):
        return
    found = json_objects(json_object(report.get("status")).get("profiles"))
    for item in found[:MAX_PROFILES]:
        try:
            profile = ContainerProfile.model_validate(item)
        except ValidationError as error:
            name = json_object(report.get("metadata")).get("name")
            _log.warning("profile in DriftReport %s: %s", name, error)
            continue
        if profile.started <= before:
            yield profile
