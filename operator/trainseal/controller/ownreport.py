"""The controller's own DriftReport on a run: what it sees in the API, one report a seal."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from trainseal.api.accessrecord import LABEL_SEAL
from trainseal.api.driftreport import PLURAL, DriftReport, Finding
from trainseal.api.findings import FINDINGS, SEVERITIES, FindingId
from trainseal.api.model import API_VERSION, JsonObject
from trainseal.cluster.api import ConflictError, Kube, NotFoundError, path_of

MAX_FINDINGS = 256


@dataclass(frozen=True, slots=True)
class Seen:
    """One thing the controller sees. ``subject`` tells it from others of its id.

    ``occasion`` is kept in the evidence: seen again on the same occasion (after a restart, say),
    it is not counted again. ``not_before`` as a Finding has it.
    """

    id: FindingId
    subject: str
    message: str
    occasion: str
    evidence: Mapping[str, str] = field(default_factory=dict)
    container: str = ""
    user: str = ""
    access_record: str = ""
    not_before: datetime | None = None

    @property
    def key(self) -> str:
        """Which finding of that id this is."""
        return hashlib.sha256(f"{self.id}/{self.subject}".encode()).hexdigest()[:16]


def merged(
    present: Sequence[Finding], seen: Sequence[Seen], now: datetime
) -> tuple[list[Finding], int] | None:
    """The findings with those seen added or counted up, and how many found no room any more.

    What is more severe takes the room of what is least severe and came last: whoever can cause many
    small findings must not hide a great one behind them. None where nothing is new.
    """
    findings = {f.key: f for f in present}
    dropped, changed = 0, False
    for item in seen:
        known = findings.get(item.key)
        if known is not None and (known.evidence or {}).get("occasion") == item.occasion[:1024]:
            continue
        severity = FINDINGS[item.id].severity
        changed = True
        if known is None and len(findings) >= MAX_FINDINGS:
            dropped += 1
            least = min(reversed(findings.values()), key=lambda f: SEVERITIES.index(f.severity))
            if SEVERITIES.index(least.severity) >= SEVERITIES.index(severity):
                continue
            del findings[least.key]
        findings[item.key] = Finding(
            id=item.id.value,
            key=item.key,
            severity=severity,
            first_time=known.first_time if known else now,
            not_before=known.not_before if known else item.not_before,
            last_time=now,
            count=known.count + 1 if known else 1,
            container=item.container[:256] or None,
            message=item.message[:1024],
            user=item.user[:256] or None,
            access_record=item.access_record or None,
            evidence={k: v[:1024] for k, v in item.evidence.items()}
            | {"occasion": item.occasion[:1024]},
        )
    return (list(findings.values()), dropped) if changed else None


class OwnReports:
    """Writes them, one at a time: a report has several of our tasks behind it and one writer."""

    def __init__(self, kube: Kube, clock: Callable[[], datetime]) -> None:
        self._kube = kube
        self._clock = clock
        self._writing = asyncio.Lock()

    async def record(self, namespace: str, seal: str, seen: Sequence[Seen]) -> None:
        """Adds what was seen to the run's report, which is made if it is missing.

        Raises KubeError, and InvalidObjectError where the report cannot be read.
        """
        if not seen:
            return
        collection = path_of(API_VERSION, PLURAL, namespace)
        path = f"{collection}/{seal}"
        async with self._writing:
            try:
                found = await self._kube.get(path)
            except NotFoundError:
                try:
                    found = await self._kube.create(collection, _empty(namespace, seal))
                except ConflictError:
                    found = await self._kube.get(path)
            status = DriftReport.parse(found).status
            present = (status.findings if status else None) or []
            result = merged(present, seen, self._clock().replace(microsecond=0))
            if result is None:
                return
            findings, dropped = result
            if findings == present and status and status.dropped:
                return  # what found no room before is seen again each time
            change: JsonObject = {"findings": [f.wire() for f in findings]}
            if dropped:
                change["dropped"] = ((status.dropped if status else None) or 0) + dropped
            await self._kube.patch(f"{path}/status", {"status": change})


def _empty(namespace: str, seal: str) -> JsonObject:
    return {
        "apiVersion": API_VERSION,
        "kind": "DriftReport",
        "metadata": {"name": seal, "namespace": namespace, "labels": {LABEL_SEAL: seal[:63]}},
        "spec": {"reporter": "Controller", "sealedRun": seal},
    }
