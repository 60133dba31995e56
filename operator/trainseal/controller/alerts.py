"""Tells an Alertmanager of findings: its API v2, ``POST /api/v2/alerts``.

Source: https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml, postableAlerts.
Nothing waits for it: what is offered stands in a bounded queue, is sent in batches, and is tried
again until the Alertmanager takes it. Whoever offers asks later whether it was delivered, and
offers again what was not; so a full queue and a restart lose nothing. Sent twice, it is one alert:
its labels are the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import aiohttp
from prometheus_client import Counter

from trainseal.api.driftreport import Finding
from trainseal.api.findings import FINDINGS, FindingId
from trainseal.api.model import JsonObject
from trainseal.provenance.keyrings import rfc3339

_log = logging.getLogger(__name__)
_SENT = Counter("trainseal_alerts_total", "Alerts by what became of them.", ["result"])
for _result in ("delivered", "failed", "refused", "queue_full"):
    _SENT.labels(_result)

MAX_WAITING = 1024
MAX_BATCH = 64
MAX_TOKEN_BYTES = 16 * 1024
#: No finding ends by itself; without an end the Alertmanager would call it resolved in minutes.
FIRING = timedelta(hours=24)
#: How the id of an alert about no run begins.
ENFORCEMENT = "enforcement:"
_FIRST_PAUSE = 1.0
_LONGEST_PAUSE = 60.0
_SECONDS = 10.0
#: Answers after which the same bytes would be refused again.
_REFUSED = frozenset({400, 413, 422})


class AlertsUnavailableError(Exception):
    """The Alertmanager could not be told; the words hold no secret."""


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert; ``id`` is who offered's own word for it."""

    id: str
    body: JsonObject


def alert(
    id_: str, *, namespace: str, job: str, pod: str, finding: Finding, now: datetime
) -> Alert:
    """The alert about a finding. Its labels identify it and never change."""
    kind = next((FINDINGS[i] for i in FindingId if i == finding.id), None)
    labels: JsonObject = {
        "alertname": "TrainSealFinding",
        "severity": finding.severity.lower(),
        "namespace": namespace,
        "job": job,
        "finding": finding.id,
        "key": finding.key,
    }
    if pod:
        labels["pod"] = pod
    if finding.container:
        labels["container"] = finding.container
    where = f" in {finding.path}" if finding.path else ""
    who = f" User: {finding.user}." if finding.user else ""
    remedy = f" {kind.remedy}" if kind else ""
    return Alert(
        id_,
        {
            "labels": labels,
            "annotations": {
                "summary": f"{namespace}/{job}: {kind.title if kind else finding.id}{where}"[:1024],
                "description": f"{finding.message}{who}{remedy}"[:4096],
            },
            "startsAt": rfc3339(finding.first_time),
            "endsAt": rfc3339(now + FIRING),
        },
    )


def enforcement_alert(
    kind: str, name: str, summary: str, description: str, *, record: str, since: datetime,
    until: datetime,
) -> Alert:  # fmt: skip
    """The alert that less is enforced than was; ``record`` is the name of who did it on record,
    empty where nobody is.
    """
    labels: JsonObject = {
        "alertname": "TrainSealEnforcement",
        "severity": "critical",
        "kind": kind,
        "name": name,
    }
    if record:
        labels["record"] = record
    return Alert(
        f"{ENFORCEMENT}{kind}/{name}/{record}",
        {
            "labels": labels,
            "annotations": {"summary": summary[:1024], "description": description[:4096]},
            "startsAt": rfc3339(since),
            "endsAt": rfc3339(until),
        },
    )


class Alerts:
    """The queue, and who empties it. ``delivered`` is called with an alert's id."""

    def __init__(self, url: str, token_file: Path | None, delivered: Callable[[str], None]) -> None:
        self._url = f"{url.rstrip('/')}/api/v2/alerts"
        self._host = urlsplit(url).hostname or "?"
        self._token_file = token_file
        self._delivered = delivered
        self._waiting: OrderedDict[str, Alert] = OrderedDict()
        self._offered = asyncio.Event()

    def offer(self, item: Alert) -> bool:
        """Wants it sent; False where the queue is full. The same one twice is one."""
        if item.id in self._waiting:
            return True
        if len(self._waiting) >= MAX_WAITING:
            _SENT.labels("queue_full").inc()
            return False
        self._waiting[item.id] = item
        self._offered.set()
        return True

    async def run(self) -> None:
        """Sends for ever."""
        pause = _FIRST_PAUSE
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_SECONDS)) as session:
            while True:
                await self._offered.wait()
                try:
                    await self._send_all(session)
                    pause = _FIRST_PAUSE
                except AlertsUnavailableError as error:
                    _SENT.labels("failed").inc()
                    _log.warning(
                        "Alertmanager at %s: %s; %d alerts wait; again in %.0f s",
                        self._host, error, len(self._waiting), pause,
                    )  # fmt: skip
                    await asyncio.sleep(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE)

    async def _send_all(self, session: aiohttp.ClientSession) -> None:
        while self._waiting:
            batch = [
                item for item, _ in zip(self._waiting.values(), range(MAX_BATCH), strict=False)
            ]
            if await self._send(session, batch):
                self._done(batch, "delivered")
                continue
            for item in batch:  # one of them is at fault
                taken = await self._send(session, [item])
                if not taken:
                    _log.error(
                        "the Alertmanager refuses an alert for good: %s", item.body["labels"]
                    )
                self._done([item], "delivered" if taken else "refused")
        self._offered.clear()

    async def _send(self, session: aiohttp.ClientSession, batch: Sequence[Alert]) -> bool:
        """Whether it was taken; False: refused for good. Raises AlertsUnavailableError."""
        try:
            async with session.post(
                self._url,
                json=[item.body for item in batch],
                headers=self._headers(),
                allow_redirects=False,  # the token is for this host alone
            ) as response:
                status = response.status
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            # Not its words: they may hold the URL, and that a password.
            raise AlertsUnavailableError(type(error).__name__) from None
        if status in _REFUSED:
            return False
        if not 200 <= status < 300:
            raise AlertsUnavailableError(f"found HTTP status {status}, expected 200")
        return True

    def _headers(self) -> dict[str, str]:
        if self._token_file is None:
            return {}
        try:
            with self._token_file.open("rb") as file:  # read anew: a mounted Secret changes
                token = file.read(MAX_TOKEN_BYTES).decode("ascii").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise AlertsUnavailableError(
                f"its token file {self._token_file} cannot be read: {type(error).__name__}"
            ) from None
        if not token or not token.isprintable():
            raise AlertsUnavailableError(f"its token file {self._token_file} holds no token")
        return {"Authorization": f"Bearer {token}"}

    def _done(self, batch: Sequence[Alert], result: str) -> None:
        for item in batch:
            self._waiting.pop(item.id, None)
            _SENT.labels(result).inc()
            self._delivered(item.id)
