"""The findings on one run, taken together: counts, times, the worst of them, in words. Pure."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from trainseal.api.driftreport import Finding
from trainseal.api.findings import FINDINGS, SEVERITIES, FindingId, Severity
from trainseal.api.trainingjob import DriftSummary


@dataclass(frozen=True, slots=True)
class Sighting:
    """A finding in its report. ``proved`` is false where the pod could not be looked at."""

    report: str
    pod: str
    finding: Finding
    proved: bool = True

    @property
    def mark(self) -> str:
        """Tells it from all others of the run: a new pod has a report of its own."""
        return hashlib.sha256(f"{self.report}/{self.finding.key}".encode()).hexdigest()[:16]

    def words(self) -> str:
        """``trainer-0: a signed file was changed: /usr/…/adam.py, by mallory``."""
        found = self.finding
        kind = next((FINDINGS[i] for i in FindingId if i == found.id), None)
        text = f"{self.pod}: " if self.pod else ""
        text += kind.title if kind else found.id
        if found.path:
            text += f": {found.path}"
        if found.user:
            text += f", by {found.user}"
        if not self.proved:
            text += " (unproved: the pod was gone before it could be looked at)"
        return text[:1024]


def rank(severity: Severity) -> int:
    """From the least to the most severe."""
    return SEVERITIES.index(severity)


def worst(sightings: Sequence[Sighting]) -> Sighting:
    """The most severe, and of those the first. Raises ValueError where there is none."""
    return min(
        sightings,
        key=lambda s: (-rank(s.finding.severity), s.finding.first_time, s.report, s.finding.key),
    )


def summary(sightings: Sequence[Sighting], before: DriftSummary | None) -> DriftSummary | None:
    """Counts by severity. They never fall: a report that is gone was there. None: nothing yet."""
    if not sightings:
        return before
    counts = {
        severity: sum(s.finding.severity == severity for s in sightings) for severity in SEVERITIES
    }
    old = before or DriftSummary()
    times = [(s.finding.first_time, s.finding.last_time) for s in sightings]
    return DriftSummary(
        critical=max(counts["Critical"], old.critical),
        warning=max(counts["Warning"], old.warning),
        info=max(counts["Info"], old.info),
        first_time=min([t for t, _ in times] + ([old.first_time] if old.first_time else [])),
        last_time=max([t for _, t in times] + ([old.last_time] if old.last_time else [])),
    )


def in_short(drift: DriftSummary) -> str:
    """``1 critical, 2 warnings``."""
    parts = []
    if drift.critical:
        parts.append(f"{drift.critical} critical")
    if drift.warning:
        parts.append(f"{drift.warning} warning{'s' if drift.warning > 1 else ''}")
    if drift.info:
        parts.append(f"{drift.info} info")
    return ", ".join(parts)


def reason_of(finding: str) -> str:
    """A finding's id as a condition's reason: ``FileChanged`` for ``file.changed``."""
    return "".join(part.capitalize() for part in finding.replace("-", ".").split("."))
