"""The findings on one pod: deduplicated, bounded, and with what an earlier agent wrote of them.

Pure. What is the same thing seen again counts up; what goes beyond the bounds is counted as
dropped. A more severe finding takes the place of the last of the least severe ones, so that a
flood of small ones hides nothing.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter as Tally
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from pydantic import ValidationError

from trainseal.agent.masking import shown_command
from trainseal.agent.observed import FOUND_BY, Lineage, Observation, Process
from trainseal.api.driftreport import DriftReportStatus, Finding, ProcessRecord
from trainseal.api.findings import FINDINGS, SEVERITIES, FindingId, Severity
from trainseal.api.model import JsonObject

MOST_FINDINGS = 256
MOST_BYTES = 512 * 1024
_TEXT = 1024
_SHORT = 256
_DIFFERENCE = 8192
_EVIDENCE = 16
_PROCESSES = 8
_WORDS = 16
_NAMED_BY = "named by"
#: A file that was moved or linked to a name is found there as a changed or a new one; one that was
#: written, and is as it was again, or is byte code, by its time alone.
_TRACE_OF: Mapping[str, tuple[FindingId, ...]] = {
    FindingId.FILE_CHANGED: (FindingId.FILE_RENAMED,),
    FindingId.FILE_CREATED: (FindingId.FILE_RENAMED,),
    FindingId.IMPORT_CHANGED: (FindingId.FILE_RENAMED,),
    FindingId.FILE_ATTRIBUTES: (
        FindingId.FILE_CHANGED,
        FindingId.FILE_RENAMED,
        FindingId.BYTECODE_MISMATCH,
        FindingId.BYTECODE_WRITTEN,
    ),
}
#: A process that was stopped amid a write goes on with it so long after it was let go on.
_GOES_ON = timedelta(seconds=10)
#: Of these the processes are whom it was done to, not who did it.
_DONE_TO = frozenset({FindingId.PROCESS_STOPPED.value})


@dataclass(frozen=True, slots=True)
class Person:
    """Who did it, and the record that says so; ``by`` where it is not the process that does."""

    user: str
    record: str
    by: str | None = None


#: Id, container and path of a finding.
Place = tuple[str, str | None, str]


@dataclass(slots=True)
class _Entry:
    finding: Finding
    size: int
    count: int
    last: datetime
    session: Process | None = None
    #: Whether evidence of its own was asked for, whatever came of it.
    asked: bool = False


class Ledger:
    """Findings by key, in the order they were first seen."""

    def __init__(self, most: int = MOST_FINDINGS, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._entries: dict[str, _Entry] = {}
        self._size = 0
        self._full = False
        self._severities: Tally[Severity] = Tally()
        self._places: dict[Place, str] = {}
        self.dropped = 0
        #: Findings for which there was no room for evidence of their own.
        self.evidence_dropped = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, key: str) -> bool:
        return key in self._entries

    def key_of_act(
        self,
        key: str,
        seen: Observation,
        now: datetime,
        opened: Callable[[Finding, Process], Person | None],
        thawed: datetime | None,
    ) -> str:
        """Which finding an act belongs to, where ``key`` (`key_of`) is one that is there already.

        What another person did is another finding, and so is what anybody did once the pod was let
        go on (``thawed``): who agreed to that, agreed to what they saw. ``opened`` says who opened
        a session. One that no record explains counts up: it is a finding itself.
        """
        there = self._entries.get(key)
        if there is None or seen.lineage is None or FOUND_BY in seen.evidence:
            return key
        session = seen.lineage.session
        if session is None:
            # The pod's own process, at what a person began; or one that outlived its session, which
            # a sweep tells of again after a restart.
            whose = there.finding.user if shows_who(there.finding) else None
            return key if whose is None or seen.subject is not None else _key(key)
        person = opened(there.finding, session)
        if person is None:
            return key
        since = thawed if thawed is not None and _is_after(seen, now, thawed) else None
        if since is not None and there.finding.first_time < since:
            return _key(key, person.user, since.isoformat())
        return _key(key, person.user) if _by_another(there, session, person) else key

    def again(self, key: str, now: datetime, places: Sequence[Place] = ()) -> bool:
        """Counts a finding up that is there; False where it is not.

        ``places`` are given where nobody is known to have done it (``places_of``): what a walk
        finds is the trace of an act that was seen as it happened, by whomever.
        """
        entry = self._entry(key, places)
        if entry is None:
            return False
        entry.count += 1
        entry.last = max(entry.last, now)
        return True

    def unasked(self, key: str, places: Sequence[Place] = ()) -> Finding | None:
        """The finding, found as by ``again``, if no evidence was asked for it yet: then it now is.

        Of what an earlier agent found and could not write evidence of, there may be some still.
        """
        entry = self._entry(key, places)
        if entry is None or entry.asked:
            return None
        entry.asked = True
        return entry.finding

    def _entry(self, key: str, places: Sequence[Place]) -> _Entry | None:
        keys = (key, *(self._places.get(place, "") for place in places))
        return next((entry for k in keys if (entry := self._entries.get(k)) is not None), None)

    def keep(self, key: str, item: str) -> None:
        """The finding's evidence is written, under that name."""
        entry = self._entries.get(key)
        if entry is not None:
            entry.finding = entry.finding.model_copy(update={"evidence_item": item})

    def kept(self) -> frozenset[str]:
        """Keys of the findings whose evidence is written."""
        return frozenset(k for k, e in self._entries.items() if e.finding.evidence_item)

    def has_room(self, severity: Severity) -> bool:
        """Whether a new finding of that severity can be taken: asked before one is made."""
        return not self._full or any(
            self._severities[lesser] for lesser in SEVERITIES[: SEVERITIES.index(severity)]
        )

    def drop(self) -> None:
        """Counts one for which there is no room."""
        self.dropped += 1

    def add(self, finding: Finding, session: Process | None = None, *, asked: bool = False) -> bool:
        """Takes a finding that is not there yet; False where it (or another for it) was dropped."""
        size = _size(finding)
        whole = True
        while len(self._entries) >= self._most or self._size + size > self._most_bytes:
            whole = False
            self._full = True
            self.drop()
            victim = self._least_below(finding.severity)
            if victim is None:
                return False
            gone = self._entries.pop(victim)
            self._size -= gone.size
            self._severities[gone.finding.severity] -= 1
            self._places = {p: k for p, k in self._places.items() if k != victim}
        self._entries[finding.key] = _Entry(
            finding, size, finding.count, finding.last_time, session, asked
        )
        self._size += size
        self._severities[finding.severity] += 1
        if finding.path is not None:
            self._places.setdefault((finding.id, finding.container, finding.path), finding.key)
        return whole

    def take_over(self, status: JsonObject) -> dict[str, Finding]:
        """Puts what an earlier agent wrote before what is here; the same finding counts on. Returns
        those that are the same under another key, by the key that they had here.
        """
        try:
            found = DriftReportStatus.model_validate(status)
        except ValidationError:
            return {}  # nobody but an agent writes it; ours is then written over it
        mine, dropped = self._entries, self.dropped
        self._entries, self._size = {}, 0
        self._severities.clear()
        self._places.clear()
        self.dropped = dropped + (found.dropped or 0)
        self.evidence_dropped += found.evidence_dropped or 0
        for finding in found.findings or ():
            self.add(finding, asked=finding.evidence_item is not None)
        same: dict[str, Finding] = {}
        for key, entry in mine.items():
            found_by_nobody = () if entry.finding.processes else _places(entry.finding)
            there = self._entry(key, found_by_nobody)
            if there is None:
                self.add(_as_of(entry), entry.session, asked=entry.asked)
            else:
                if there.finding.key != key:
                    same[key] = there.finding
                there.asked |= entry.asked
                there.count += entry.count
                there.last = max(there.last, entry.last)
                there.session = entry.session
        return same

    def name_people(self, join: Callable[[Finding, Process | None], Person | None]) -> bool:
        """Asks again who is behind findings that nobody is known for; whether one was found."""
        found = False
        for entry in self._entries.values():
            finding = entry.finding
            if finding.user is not None or (entry.session is None and shows_who(finding)):
                continue
            person = join(finding, entry.session)
            if person is not None:
                entry.finding = named(finding, person)
                found = True
        return found

    def findings(self) -> Iterator[Finding]:
        """As of now."""
        return (_as_of(entry) for entry in self._entries.values())

    def _least_below(self, severity: Severity) -> str | None:
        limit = SEVERITIES.index(severity)
        ranked = [
            (SEVERITIES.index(entry.finding.severity), -number, key)
            for number, (key, entry) in enumerate(self._entries.items())
        ]
        least = min(ranked, default=None)
        return least[2] if least is not None and least[0] < limit else None


def key_of(container: str | None, seen: Observation) -> str:
    """Which finding this is: the same thing seen again has the same key."""
    told_apart = [seen.subject] if seen.subject is not None else [seen.path, executable_of(seen)]
    return _key(seen.finding, container, *told_apart)


def _key(*apart: str | None) -> str:
    # JSON escapes what UTF-8 has no bytes for.
    return hashlib.sha256(json.dumps(apart).encode()).hexdigest()[:16]


def _by_another(there: _Entry, session: Process, person: Person) -> bool:
    if there.finding.user is not None:
        return there.finding.user != person.user
    if there.session is not None:
        return (there.session.pid, there.session.started) != (session.pid, session.started)
    # By an earlier agent's word, or the pod's own: of a session that began later it is not.
    return session.started > there.finding.first_time


def _is_after(seen: Observation, now: datetime, thawed: datetime) -> bool:
    """Whether it was done once the pod was let go on, and is not the rest of what was begun.

    What has a subject may be told by a sweep, again and again while it lasts.
    """
    assert seen.lineage is not None  # noqa: S101 - asked of acts alone
    begun = seen.lineage.chain[0].started if seen.lineage.chain else thawed
    return begun > thawed or (seen.subject is None and now > thawed + _GOES_ON)


def places_of(container: str | None, seen: Observation) -> tuple[Place, ...]:
    """Where the act is told of already if it is, where nobody is known to have done it."""
    if seen.lineage is not None or seen.subject is not None or seen.path is None:
        return ()
    path = _cut(seen.path, _TEXT) or ""
    return tuple((id_, container, path) for id_ in _told_as(seen.finding, seen.evidence))


def _places(finding: Finding) -> tuple[Place, ...]:
    if finding.path is None:
        return ()
    ids = _told_as(finding.id, finding.evidence or {})
    return tuple((id_, finding.container, finding.path) for id_ in ids)


def _told_as(id_: str, evidence: Mapping[str, str]) -> tuple[str, ...]:
    """Ids by which an event may have told of what a walk finds the trace of; its own first."""
    if id_ == FindingId.FILE_ATTRIBUTES and evidence.keys() - {FOUND_BY, _NAMED_BY} != {"time"}:
        return (str(id_),)
    return (str(id_), *(other.value for other in _TRACE_OF.get(id_, ())))


def shows_who(finding: Finding) -> bool:
    """Whether the processes of a finding are who did it; else it is asked who was there."""
    return bool(finding.processes) and finding.id not in _DONE_TO


def executable_of(seen: Observation) -> str | None:
    """The program that did it, where known."""
    return seen.lineage.chain[0].executable if seen.lineage and seen.lineage.chain else None


def named(finding: Finding, person: Person) -> Finding:
    """The finding with the person behind it."""
    evidence = dict(list((finding.evidence or {}).items())[: _EVIDENCE - 1])
    if person.by is not None:
        evidence[_NAMED_BY] = person.by
    return finding.model_copy(
        update={
            "user": _cut(person.user, _SHORT),
            "access_record": person.record,
            "evidence": evidence or None,
        }
    )


def finding_of(container: str | None, seen: Observation, now: datetime, key: str) -> Finding:
    """The observation as a report has it, with nobody named yet; what is too long is cut."""
    return Finding(
        id=seen.finding.value,
        key=key,
        severity=FINDINGS[seen.finding].severity,
        first_time=now,
        not_before=None if seen.not_before is None else min(seen.not_before, now),
        last_time=now,
        count=1,
        container=container,
        path=_cut(seen.path, _TEXT),
        message=_cut(seen.message, _TEXT) or "",
        processes=_processes(seen.lineage),
        evidence={
            (_cut(k, 64) or ""): _cut(v, _TEXT) or ""
            for k, v in list(seen.evidence.items())[:_EVIDENCE]
        }
        or None,
        difference=_cut(seen.difference, _DIFFERENCE),
    )


def _processes(lineage: Lineage | None) -> list[ProcessRecord] | None:
    if lineage is None or not lineage.chain:
        return None
    return [
        ProcessRecord(
            pid=p.pid,
            executable=_cut(p.executable, _TEXT) or "",
            command=[_cut(word, _TEXT) or "" for word in shown_command(p.command[:_WORDS])],
            uid=max(p.uid, 0),
        )
        for p in lineage.chain[:_PROCESSES]
    ]


def cut(text: str, length: int) -> str:
    """No longer than ``length``, and writable as UTF-8: names of files are any bytes."""
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= length else text[: length - 1] + "…"


def _cut(text: str | None, length: int) -> str | None:
    return None if text is None else cut(text, length)


def _as_of(entry: _Entry) -> Finding:
    if entry.count == entry.finding.count and entry.last == entry.finding.last_time:
        return entry.finding
    return entry.finding.model_copy(update={"count": entry.count, "last_time": entry.last})


def _size(finding: Finding) -> int:
    # One for the comma, some for a count that grows.
    return len(finding.model_dump_json(by_alias=True, exclude_none=True).encode()) + 24
