"""Findings on their way into DriftReports: one report a sealed pod, one task that keeps it.

A pod's first finding goes out at once, later ones together after a pause; mere counts wait longer.
While the API server is away the ledgers hold what is found, within their bounds, and it is tried
again with growing pauses. What an earlier agent wrote is taken over, so that a restart loses no
finding and repeats none. The agent deletes no report.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from prometheus_client import Counter

from trainseal.agent.conditions import Conditions, ConditionType, Status
from trainseal.agent.evidenceasking import Asked, Evidence
from trainseal.agent.ledger import (
    Ledger,
    Person,
    Place,
    executable_of,
    finding_of,
    key_of,
    named,
    places_of,
    shows_who,
)
from trainseal.agent.observed import Observation, Process
from trainseal.agent.profiles import wire_of
from trainseal.api.accessrecord import LABEL_NODE, LABEL_SEAL, node_label
from trainseal.api.driftreport import PLURAL, ContainerProfile, Finding
from trainseal.api.findings import FINDINGS
from trainseal.api.model import API_VERSION, Condition, JsonObject, json_object, json_objects
from trainseal.cluster.api import ConflictError, Kube, KubeError, NotFoundError, path_of
from trainseal.provenance.drift import (
    FREEZING,
    CompiledDrift,
    Seen,
    excepted_by,
    response_to,
)

_log = logging.getLogger(__name__)
_FOUND = Counter("trainseal_agent_findings_total", "New findings.", ["id", "severity"])
_EXCEPTED = Counter("trainseal_agent_excepted_total", "What policies except.", ["id"])
_DROPPED = Counter("trainseal_agent_dropped_total", "Findings beyond a report's bounds.")
_LOST = Counter("trainseal_agent_lost_total", "Findings that could not be written in the end.")

#: Between writes of one report; ten times as long as the last write took where that is more.
PAUSE_SECONDS = 0.3
#: A server that answers slowly is written to more seldom, but what is new waits no longer.
LONGEST_PAUSE_SECONDS = 1.0
#: Counts alone are written so often.
COUNTS_SECONDS = 10.0
#: So often what a pod's peers are compared with, where it changes all the time.
PROFILE_SECONDS = 30.0
#: Whether a finding is an old one of before a restart is waited for so long before it is acted on.
KNOWN_SECONDS = 2.0
_FIRST_RETRY, _LONGEST_RETRY = 0.2, 10.0
#: Of pods that are gone: so long it is tried to write the rest.
_LAST_WORDS_SECONDS = 120.0
_UNREPAIRABLE = frozenset({400, 413, 422})


@dataclass(frozen=True, slots=True)
class Subject:
    """The pod that a report is about."""

    namespace: str
    pod: str
    uid: str
    seal: str

    @property
    def report(self) -> str:
        """Name of the report."""
        return f"{self.pod[:244].rstrip('-.')}-{self.uid[:8]}"


#: Who is behind a finding on a pod: who opened the exec session whose first process is given, or,
#: where no process is known, who can have done it.
Join = Callable[[Subject, Finding, Process | None], Person | None]
#: Told of a pod with a finding that its policies answer with a freeze, or with a quarantine.
Freeze = Callable[[Subject, Finding], None]


@dataclass(slots=True)
class _Report:
    subject: Subject
    ledger: Ledger = field(default_factory=Ledger)
    conditions: Conditions = field(default_factory=Conditions)
    generation: int | None = None
    there: bool = False
    known: bool = False
    news: asyncio.Event = field(default_factory=asyncio.Event)
    counted: bool = False
    profiles: dict[str, ContainerProfile] = field(default_factory=dict)
    unprofiled: bool = False
    profiled: float = float("-inf")
    writing: bool = False
    closed: bool = False
    #: When it was closed, monotonic.
    ended: float = 0.0
    undecided: list[Finding] = field(default_factory=list)
    #: Keys of findings whose evidence is on its way.
    awaited: set[str] = field(default_factory=set)
    task: asyncio.Task[None] | None = None


class Reports:
    """The reports of this node's sealed pods; ``close`` ends the tasks."""

    def __init__(
        self,
        kube: Kube,
        node: str,
        *,
        policies: Callable[[str], Sequence[CompiledDrift]],
        join: Join,
        freeze: Freeze,
        clock: Callable[[], datetime],
        evidence: Evidence | None = None,
    ) -> None:
        """``evidence`` None: none is taken."""
        self._evidence = evidence
        self._kube = kube
        self._node = node
        self._policies = policies
        self._join = join
        self._freeze = freeze
        self._clock = clock
        self._reports: dict[str, _Report] = {}

    def begin(self, subject: Subject) -> None:
        """The watch of a pod begins: its report is made, or taken over."""
        if subject.uid not in self._reports:
            report = _Report(subject)
            report.news.set()
            self._reports[subject.uid] = report
            report.task = asyncio.ensure_future(self._keep(report))

    def see(self, uid: str, container: str | None, seen: Observation) -> None:
        """Takes an observation on a pod whose watch has begun; others are logged."""
        report = self._reports.get(uid)
        if report is None:
            _log.warning("%s of pod %s, which is not watched: %s", seen.finding, uid, seen.message)
            return
        now = self._clock()
        key = report.ledger.key_of_act(
            key_of(container, seen),
            seen,
            now,
            lambda finding, session: self._join(report.subject, finding, session),
            report.conditions.since("Frozen", "False"),
        )
        places = places_of(container, seen)
        if report.ledger.again(key, now, places):
            report.counted = True
            self._ask(report, key, seen, places)
            return
        policies = self._policies(report.subject.namespace)
        what = Seen(seen.finding, seen.path, executable_of(seen))
        if excepted_by(what, policies):
            _EXCEPTED.labels(seen.finding.value).inc()
            return
        severity = FINDINGS[seen.finding].severity
        _FOUND.labels(seen.finding.value, severity).inc()
        session = seen.lineage.session if seen.lineage else None
        if not report.ledger.has_room(severity):
            report.ledger.drop()
            report.counted = True
            _DROPPED.inc()
            return
        finding = finding_of(container, seen, now, key)
        if session is not None or not shows_who(finding):
            person = self._join(report.subject, finding, session)
            finding = finding if person is None else named(finding, person)
        if not report.ledger.add(finding, session):
            _DROPPED.inc()
        _log.warning(
            "%s/%s %s: %s: %s %s",
            *(report.subject.namespace, report.subject.pod, container or "", finding.id),
            *(finding.message, finding.path or ""),
        )
        if response_to(severity, policies) in FREEZING:
            if report.known:
                self._freeze(report.subject, finding)
            else:
                report.undecided.append(finding)
                asyncio.get_running_loop().call_later(KNOWN_SECONDS, self._decide, report)
        report.news.set()
        if self._ask(report, key, seen) == "Refused":
            report.ledger.evidence_dropped += 1

    def _ask(
        self, report: _Report, key: str, seen: Observation, places: Sequence[Place] = ()
    ) -> Asked:
        finding = report.ledger.unasked(key, places) if self._evidence is not None else None
        if self._evidence is None or finding is None:
            return "None"
        asked = self._evidence.ask(report.subject, finding, seen)
        if asked == "Taken":
            report.awaited.add(finding.key)
        return asked

    def evidence_kept(self, uid: str, key: str, name: str) -> None:
        """The EvidenceItem of a finding is written."""
        report = self._reports.get(uid)
        if report is not None:
            report.awaited.discard(key)
            report.ledger.keep(key, name)
            report.news.set()

    def evidence_lost(self, uid: str, key: str) -> None:
        """There will be no EvidenceItem of a finding."""
        report = self._reports.get(uid)
        if report is not None:
            report.awaited.discard(key)
            report.ledger.evidence_dropped += 1
            report.news.set()

    def say(self, uid: str, what: ConditionType, status: Status, reason: str, words: str) -> None:
        """Sets a condition of the pod's report: `Watching` (whether the watch is whole, and if
        not, what it cannot see) or `Frozen`.
        """
        report = self._reports.get(uid)
        if report is not None and self._set(report, what, status, reason, words):
            report.news.set()

    def compare_by(self, uid: str, profile: ContainerProfile) -> None:
        """Says what a container of the pod has beside what was sealed: the controller compares it
        with its peers. Written with what else is written, or with the counts, and not often.
        """
        report = self._reports.get(uid)
        if report is not None and report.profiles.get(profile.container) != profile:
            report.profiles[profile.container] = profile
            report.unprofiled = True

    def is_known(self, uid: str) -> bool:
        """Whether what an earlier agent wrote of the pod was taken over."""
        report = self._reports.get(uid)
        return report is not None and report.there

    def condition(self, uid: str, what: ConditionType) -> Condition | None:
        """As it stands in the pod's report, or will."""
        report = self._reports.get(uid)
        return None if report is None else report.conditions.get(what)

    def people_changed(self, uid: str) -> None:
        """An access to the pod was recorded: findings without a name may have one now."""
        report = self._reports.get(uid)
        if report is None:
            return
        if report.ledger.name_people(
            lambda finding, session: self._join(report.subject, finding, session)
        ):
            report.news.set()

    def end(self, uid: str) -> None:
        """The pod is over: what is left is written, and the report left alone."""
        report = self._reports.get(uid)
        if report is not None and not report.closed:
            report.closed, report.ended = True, time.monotonic()
            self._set(report, "Watching", "False", "PodEnded", "The pod has ended.")
            report.news.set()

    async def close(self, seconds: float = 5.0) -> None:
        """Writes what is unwritten, for so long; then ends."""
        tasks = [r.task for r in self._reports.values() if r.task is not None]
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and any(
            r.news.is_set() or r.counted or r.writing for r in self._reports.values()
        ):
            for report in self._reports.values():
                if report.counted:
                    report.news.set()
            await asyncio.sleep(0.05)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, report: _Report) -> None:
        pause, ended = _FIRST_RETRY, 0.0
        while not _is_over(report):
            if not report.news.is_set():
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(report.news.wait(), COUNTS_SECONDS)
                if not (report.news.is_set() or report.counted or _profile_is_due(report)):
                    continue
            began = time.monotonic()
            report.writing = True
            try:
                await self._write(report)
                took = time.monotonic() - began
                pause = min(max(PAUSE_SECONDS, 10 * took), LONGEST_PAUSE_SECONDS)
            except KubeError as error:
                report.news.set()
                _log.warning("DriftReport of pod %s: %s", report.subject.pod, error)
                if report.closed:
                    ended = ended or began
                    if began - ended > _LAST_WORDS_SECONDS:
                        _LOST.inc(len(report.ledger))
                        break
                pause = min(max(pause, PAUSE_SECONDS) * 2, _LONGEST_RETRY)
            finally:
                report.writing = False
            if not report.closed or report.news.is_set():
                await asyncio.sleep(pause)
        if self._reports.get(report.subject.uid) is report:
            del self._reports[report.subject.uid]
            if self._evidence is not None:
                self._evidence.forget(report.subject.uid)

    async def _write(self, report: _Report) -> None:
        if not report.there:
            await self._make(report)
        report.news.clear()
        report.counted = False
        if report.unprofiled:
            report.unprofiled, report.profiled = False, time.monotonic()
        path = path_of(API_VERSION, PLURAL, report.subject.namespace, report.subject.report)
        try:
            await self._kube.patch(f"{path}/status", {"status": self._status(report)})
        except NotFoundError:
            report.there = False  # somebody took it away: it is made again
            raise
        except KubeError as error:
            if error.status not in _UNREPAIRABLE:
                raise
            _log.error("DriftReport %s is refused as it is: %s", path, error)

    async def _make(self, report: _Report) -> None:
        """Makes the report, or takes over the one that is there."""
        subject = report.subject
        collection = path_of(API_VERSION, PLURAL, subject.namespace)
        spec: JsonObject = {
            "reporter": "Agent",
            "sealedRun": subject.seal,
            "node": self._node,
            "pod": {"name": subject.pod, "uid": subject.uid},
        }
        wanted: JsonObject = {
            "apiVersion": API_VERSION,
            "kind": "DriftReport",
            "metadata": {
                "name": subject.report,
                "namespace": subject.namespace,
                "labels": {LABEL_NODE: node_label(self._node), LABEL_SEAL: subject.seal[:63]},
            },
            "spec": spec,
        }
        same: dict[str, Finding] = {}
        try:
            there = await self._kube.create(collection, wanted)
        except ConflictError:
            there = await self._kube.get(f"{collection}/{subject.report}")
            if json_object(there.get("spec")) != spec:
                _log.error("DriftReport %s is about another pod", subject.report)
            elif not report.known:
                status = json_object(there.get("status"))
                before = len(report.ledger)
                same = report.ledger.take_over(status)
                report.awaited = {same[k].key if k in same else k for k in report.awaited}
                report.conditions.take_over(status)
                report.undecided = [f for f in report.undecided if not _has(status, f.key)]
                _log.info(
                    "DriftReport %s: %d findings taken over, %d new",
                    *(subject.report, len(report.ledger) - before, before),
                )
        generation = json_object(there.get("metadata")).get("generation")
        report.generation = generation if isinstance(generation, int) else None
        report.there = True
        report.known = True
        self._decide(report)
        if self._evidence is not None:
            kept = report.ledger.kept()
            report.awaited -= kept
            self._evidence.known(subject, kept, same)

    def _decide(self, report: _Report) -> None:
        report.known = True
        undecided, report.undecided = report.undecided, []
        for finding in undecided:
            self._freeze(report.subject, finding)

    def _set(
        self, report: _Report, what: ConditionType, status: Status, reason: str, words: str
    ) -> bool:
        return report.conditions.set(what, status, reason, words, self._clock())

    def _status(self, report: _Report) -> JsonObject:
        found: JsonObject = {
            "findings": [f.wire() for f in report.ledger.findings()],
            "conditions": report.conditions.wire(report.generation),
        }
        if report.profiles:
            found["profiles"] = [*wire_of(report.profiles.values())]
        if report.ledger.dropped:
            found["dropped"] = report.ledger.dropped
        if report.ledger.evidence_dropped:
            found["evidenceDropped"] = report.ledger.evidence_dropped
        return found


def _profile_is_due(report: _Report) -> bool:
    return report.unprofiled and time.monotonic() - report.profiled >= PROFILE_SECONDS


def _is_over(report: _Report) -> bool:
    """Whether all is written, or what is awaited was awaited for long enough."""
    if not (report.closed and report.there) or report.news.is_set():
        return False
    return not report.awaited or time.monotonic() - report.ended > _LAST_WORDS_SECONDS


def _has(status: JsonObject, key: str) -> bool:
    return any(f.get("key") == key for f in json_objects(status.get("findings")))
