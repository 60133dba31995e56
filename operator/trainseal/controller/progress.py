"""What one reconciliation found, written into status once at its end."""

from __future__ import annotations

from dataclasses import dataclass, field

from trainseal.api.model import JsonObject
from trainseal.api.trainingjob import Phase
from trainseal.controller.conditions import Wanted


@dataclass(slots=True)
class Progress:
    """Phase and message for people, conditions and fields for machines, and when to look again.

    ``whole``: what the run leans on was found as it was sealed.
    """

    phase: Phase
    message: str = ""
    conditions: list[Wanted] = field(default_factory=list)
    fields: JsonObject = field(default_factory=dict)
    again: float | None = None
    whole: bool = False

    def wants(self, type_: str, ok: bool | None, reason: str, message: str = "") -> None:
        """Sets a condition: True, False, or Unknown for None."""
        self.conditions.append(
            Wanted(type_, "Unknown" if ok is None else "True" if ok else "False", reason, message)
        )
