"""Figures as they are reported: median with minimum and maximum, over rounds of one run."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """Values of one thing, measured in several rounds."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The value to quote."""
        return statistics.median(self.values)

    def text(self, digits: int = 2) -> str:
        """``median (minimum to maximum)``."""
        low, high = min(self.values), max(self.values)
        return f"{self.median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def ratio(one: Sequence[float], other: Sequence[float]) -> Figure:
    """Ratios round by round: the machine's speed drifts, two neighbours in time drift alike."""
    return Figure(tuple(a / b for a, b in zip(one, other, strict=True)))
