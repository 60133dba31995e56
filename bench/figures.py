"""Figures as they are reported: median with minimum and maximum, over rounds of one run."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
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


def spread(values: Iterable[float], digits: int = 2) -> str:
    """``median (minimum to maximum)`` of these values."""
    return Figure(tuple(values)).text(digits)


def ratio(one: Sequence[float], other: Sequence[float]) -> Figure:
    """Ratios round by round: the machine's speed drifts, two neighbours in time drift alike."""
    return Figure(tuple(a / b for a, b in zip(one, other, strict=True)))


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that so large a share of all does not exceed (nearest rank)."""
    return sorted(values)[max(math.ceil(share * len(values)), 1) - 1]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean ratio and the bounds between which it lies with 95 % confidence."""

    mean: float
    low: float
    high: float

    def percent(self) -> str:
        """How much more than one, ``+0.12 % (-0.30 to +0.55)``."""
        mean, low, high = (100 * (v - 1) for v in (self.mean, self.low, self.high))
        return f"{mean:+.2f} % ({low:+.2f} to {high:+.2f})"


def ratio_interval(one: Sequence[float], other: Sequence[float]) -> Interval:
    """The geometric mean of ratios pair by pair, with Student's interval of their logarithms.

    Four pairs at least: the quantile is Abramowitz and Stegun's 26.7.5, within 1 % from there on.
    """
    logs = [math.log(a / b) for a, b in zip(one, other, strict=True)]
    middle = statistics.mean(logs)
    half = _student(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Interval(math.exp(middle), math.exp(middle - half), math.exp(middle + half))


def _student(freedom: int) -> float:
    z = statistics.NormalDist().inv_cdf(0.975)
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / freedom + second / freedom**2 + third / freedom**3
