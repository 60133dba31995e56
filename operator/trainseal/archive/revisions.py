"""Which revisions of a DriftReport are kept: what is new at once, mere counts once a minute. Pure.

A process that writes in a loop changes its finding's count and time for as long as it runs; each
revision whole would fill the volume, and then nothing is recorded any more. Every other kind
changes by our own hand alone and is kept at each change.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

from trainseal.api.model import JsonObject, json_object, json_objects

APART = timedelta(minutes=1)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What was last recorded of an object: when, and a digest of what it says."""

    time: datetime
    says: bytes


def says(obj: JsonObject) -> bytes | None:
    """Digest of a report's findings, without their counts, and its conditions, without their
    words; None for kinds of which each revision counts.
    """
    if obj.get("kind") != "DriftReport":
        return None
    status = json_object(obj.get("status"))
    keys = {("finding", str(f.get("key"))) for f in json_objects(status.get("findings"))}
    conditions = {
        (str(c.get("type")), str(c.get("status"))) for c in json_objects(status.get("conditions"))
    }
    return hashlib.sha256(repr((sorted(keys), sorted(conditions))).encode()).digest()


def is_due(last: Recorded | None, new: bytes | None, now: datetime) -> bool:
    """Whether a revision that says ``new`` is recorded now, and not when the minute is over."""
    return last is None or new is None or last.says != new or now - last.time >= APART
