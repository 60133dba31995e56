"""Status as Kubernetes does it: a condition's time moves only when its status does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from trainseal.api.model import JsonObject
from trainseal.provenance.keyrings import rfc3339

MAX_MESSAGE = 4096


@dataclass(frozen=True, slots=True)
class Wanted:
    """A condition as it should be now."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""


def merge(
    present: JsonValue, wanted: Sequence[Wanted], generation: int, now: datetime
) -> list[JsonValue]:
    """The conditions with ``wanted`` laid over them; a time moves only where a status does."""
    by_type: dict[str, JsonObject] = {}
    for item in present if isinstance(present, list) else ():
        if isinstance(item, dict):
            by_type[str(item.get("type"))] = dict(item)
    for want in wanted:
        before = by_type.get(want.type)
        moved = before.get("lastTransitionTime") if before else None
        same = before is not None and before.get("status") == want.status
        by_type[want.type] = {
            "type": want.type,
            "status": want.status,
            "reason": want.reason,
            "message": want.message[:MAX_MESSAGE],
            "lastTransitionTime": moved if same and moved else rfc3339(now),
            "observedGeneration": generation,
        }
    return list(by_type.values())


def status_of(obj: Mapping[str, JsonValue]) -> JsonObject:
    """An object's status, or an empty one."""
    status = obj.get("status")
    return dict(status) if isinstance(status, dict) else {}
