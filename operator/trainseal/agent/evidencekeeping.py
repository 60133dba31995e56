"""Evidence on its way into EvidenceItems: one for each finding that deserves it, within bounds.

A finding is told first; then what it was made from is taken in a thread, the most severe first, and
written by one task for the node. What is over the bounds, or refused, is counted in the pod's
report. While the API server is away items wait in memory. Names follow from the findings, so that a
restart writes nothing twice, and what was not written before one is taken when the thing is seen
again. The agent changes and deletes no item.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

from prometheus_client import Counter
from pydantic import ValidationError

from trainseal.agent.evidenceasking import Asked
from trainseal.agent.evidencebounds import (
    POD_BYTES,
    POD_ITEMS,
    Allowance,
    Share,
    of_a_node,
    of_a_pod,
)
from trainseal.agent.evidenceitems import About, Taken, item, renamed, wanted
from trainseal.agent.observed import Observation
from trainseal.agent.reports import Subject
from trainseal.api.driftreport import Finding
from trainseal.api.evidenceitem import PLURAL
from trainseal.api.findings import SEVERITIES
from trainseal.api.model import API_VERSION, JsonObject, json_object
from trainseal.cluster.api import ConflictError, Kube, KubeError, path_of

_log = logging.getLogger(__name__)
_ITEMS = Counter("trainseal_agent_evidence_total", "Evidence of findings.", ["outcome"])

_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
#: A refusal may pass (a quota, a webhook that starts); it is tried again so often.
_TRIES = 5
_UNREPAIRABLE = frozenset({400, 413, 422})

#: Takes what there is for an observation on a container of a pod, by its UID. Runs in a thread.
Take = Callable[[str, str | None, Observation], Taken]


class Told(Protocol):
    """Who is told what came of it."""

    def evidence_kept(self, uid: str, key: str, name: str) -> None:
        """It is written, under that name."""

    def evidence_lost(self, uid: str, key: str) -> None:
        """It is not, and will not be."""


@dataclass(eq=False, slots=True)
class _Job:
    about: About
    shares: tuple[tuple[Allowance, Share], ...]
    number: int
    begun: bool = False
    body: JsonObject | None = None
    tries: int = 0


@dataclass(slots=True)
class _Pod:
    allowance: Allowance = field(default_factory=of_a_pod)
    #: Keys of findings whose evidence an earlier agent wrote; None until that is known.
    before: frozenset[str] | None = None


class EvidenceKeeper:
    """The evidence of one node; ``run`` until cancelled."""

    def __init__(self, kube: Kube, node: str, take: Take, clock: Callable[[], datetime]) -> None:
        self._kube = kube
        self._node = node
        self._take = take
        self._clock = clock
        self._told: Told | None = None
        self._room = of_a_node()
        self._pods: dict[str, _Pod] = {}
        self._jobs: list[_Job] = []
        self._number = 0
        self._to_take = asyncio.Event()
        self._to_write = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "evidence")

    def connect(self, told: Told) -> None:
        """Who is told what came of it."""
        self._told = told

    def ask(self, subject: Subject, finding: Finding, seen: Observation) -> Asked:
        """Asks for evidence of a finding that was told just now; returns at once."""
        if not wanted(seen):
            return "None"
        now, severity = self._clock(), finding.severity
        allowances = (self._pod(subject.uid).allowance, self._room)
        if not all(allowance.admits(severity, now) for allowance in allowances):
            _ITEMS.labels("dropped").inc()
            return "Refused"
        about = About(
            node=self._node,
            namespace=subject.namespace,
            pod=subject.pod,
            uid=subject.uid,
            seal=subject.seal,
            finding=finding,
            seen=seen,
        )
        self._number += 1
        shares = tuple((allowance, allowance.take(now)) for allowance in allowances)
        self._jobs.append(_Job(about, shares, self._number))
        self._to_take.set()
        return "Taken"

    def known(self, subject: Subject, kept: AbstractSet[str], same: Mapping[str, Finding]) -> None:
        """What an earlier agent wrote of the pod is known: keys of findings with evidence, and
        findings that are the same as one of ours, by our key.
        """
        pod, now = self._pod(subject.uid), self._clock()
        if pod.before is None:
            pod.before = frozenset(kept)
            for _ in kept:
                pod.allowance.take(now, POD_BYTES // POD_ITEMS)
        for job in self._of(subject.uid):
            there = same.get(job.about.finding.key)
            if there is not None:
                job.about = replace(job.about, finding=there)
            if job.about.finding.key in pod.before:
                self._give_up(job)
        for job in sorted(self._of(subject.uid), key=_rank, reverse=True):
            if pod.allowance.exceeded(now):
                self._lose(job, "dropped")
        self._to_write.set()

    def forget(self, uid: str) -> None:
        """The pod's report is no longer kept."""
        for job in self._of(uid):
            self._lose(job, "lost")
        self._pods.pop(uid, None)

    async def run(self) -> None:
        """Takes and writes."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._taking())
                group.create_task(self._writing())
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def close(self, seconds: float = 5.0) -> None:
        """Waits until all is written, for so long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                while self._jobs:  # noqa: ASYNC110 as long as there are any, whatever came of each
                    await asyncio.sleep(0.05)

    # Taking ---------------------------------------------------------------------------------------

    async def _taking(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            job = min((j for j in self._jobs if not j.begun), key=_rank, default=None)
            if job is None:
                self._to_take.clear()
                await self._to_take.wait()
                continue
            job.begun = True
            try:
                made = await loop.run_in_executor(
                    self._thread, self._make, job.about, _room_of(job, self._clock())
                )
            except (OSError, ValidationError) as error:
                _log.error("evidence of %s on %s: %s", job.about.finding.id, job.about.pod, error)
                self._lose(job, "lost")
                continue
            job.body, size = made
            for _, share in job.shares:
                share.size = size
            self._to_write.set()

    def _make(self, about: About, room: int) -> tuple[JsonObject, int]:
        """In its thread."""
        return item(about, self._take(about.uid, about.finding.container, about.seen), room)

    # Writing --------------------------------------------------------------------------------------

    async def _writing(self) -> None:
        pause = _FIRST_PAUSE
        while True:
            job = min((j for j in self._jobs if self._is_due(j)), key=_rank, default=None)
            if job is None:
                self._to_write.clear()
                await self._to_write.wait()
                continue
            try:
                await self._write(job)
                pause = _FIRST_PAUSE
            except KubeError as error:
                _log.warning("EvidenceItem %s/%s: %s", job.about.namespace, job.about.name, error)
                job.tries += 1
                if _is_final(error, job.tries):
                    self._lose(job, "lost")
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)

    async def _write(self, job: _Job) -> None:
        about = job.about
        collection = path_of(API_VERSION, PLURAL, about.namespace)
        try:
            await self._kube.create(collection, renamed(job.body or {}, about))
        except ConflictError:
            # Ours of before a restart: nobody else can have made it but another node's agent.
            there = json_object((await self._kube.get(f"{collection}/{about.name}")).get("spec"))
            if there.get("node") != self._node:
                _log.error("EvidenceItem %s is of node %s", about.name, there.get("node"))
                self._lose(job, "lost")
                return
        if job in self._jobs:
            self._jobs.remove(job)
            _ITEMS.labels("kept").inc()
            if self._told is not None:
                self._told.evidence_kept(about.uid, about.finding.key, about.name)

    # Jobs -----------------------------------------------------------------------------------------

    def _is_due(self, job: _Job) -> bool:
        return job.body is not None and self._pod(job.about.uid).before is not None

    def _pod(self, uid: str) -> _Pod:
        return self._pods.setdefault(uid, _Pod())

    def _of(self, uid: str) -> list[_Job]:
        return [job for job in self._jobs if job.about.uid == uid]

    def _give_up(self, job: _Job) -> None:
        if job in self._jobs:
            self._jobs.remove(job)
            for allowance, share in job.shares:
                allowance.give_back(share)

    def _lose(self, job: _Job, outcome: str) -> None:
        if job not in self._jobs:
            return  # it was told already
        self._give_up(job)
        _ITEMS.labels(outcome).inc()
        if self._told is not None:
            self._told.evidence_lost(job.about.uid, job.about.finding.key)


def _rank(job: _Job) -> tuple[int, int]:
    """The most severe first, then the oldest."""
    return -SEVERITIES.index(job.about.finding.severity), job.number


def _room_of(job: _Job, now: datetime) -> int:
    severity = job.about.finding.severity
    return min(allowance.room(severity, now) for allowance, _ in job.shares)


def _is_final(error: KubeError, tries: int) -> bool:
    """Whether trying again is of no use. A server that is away is waited for."""
    if error.status == 0 or error.status == 429 or error.status >= 500:
        return False
    return error.status in _UNREPAIRABLE or tries >= _TRIES
