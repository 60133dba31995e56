"""The conditions of a pod's report, each with the time since which it holds. Pure."""

from __future__ import annotations

import contextlib
from datetime import datetime
from typing import Literal

from pydantic import JsonValue, ValidationError

from trainseal.api.model import Condition, JsonObject, json_objects

Status = Literal["True", "False", "Unknown"]
ConditionType = Literal["Watching", "Frozen"]
_LONGEST_MESSAGE = 4096


class Conditions:
    """One of each type."""

    def __init__(self) -> None:
        self._all: dict[str, Condition] = {}

    def get(self, what: ConditionType) -> Condition | None:
        """As it stands, or None."""
        return self._all.get(what)

    def since(self, what: ConditionType, status: Status) -> datetime | None:
        """Since when it has that status; None where it has not."""
        found = self._all.get(what)
        return found.last_transition_time if found and found.status == status else None

    def set(
        self, what: ConditionType, status: Status, reason: str, words: str, now: datetime
    ) -> bool:
        """Whether anything is otherwise now. It holds since ``now`` if its status is another."""
        before = self._all.get(what)
        unchanged = before is not None and before.status == status
        found = Condition(
            type=what,
            status=status,
            reason=reason,
            message=words[:_LONGEST_MESSAGE],
            last_transition_time=before.last_transition_time
            if before is not None and unchanged
            else now.replace(microsecond=0),
        )
        self._all[what] = found
        return found != before

    def take_over(self, status: JsonObject) -> None:
        """Those that hold since before a restart keep their time."""
        for item in json_objects(status.get("conditions")):
            with contextlib.suppress(ValidationError):
                there = Condition.model_validate(item)
                ours = self._all.get(there.type)
                if ours is None:
                    self._all[there.type] = there
                elif ours.status == there.status:
                    time = there.last_transition_time
                    self._all[there.type] = ours.model_copy(update={"last_transition_time": time})

    def wire(self, generation: int | None) -> list[JsonValue]:
        """For the status of the report of this generation: a condition may be known before the
        report is there.
        """
        about = {"observed_generation": generation}
        return [c.model_copy(update=about).wire() for c in self._all.values()]
