"""How often somebody may do something: a token bucket for each key. Pure; the clock is injected."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Buckets:
    """``burst`` at once, then ``rate`` a second; ``clock`` gives seconds."""

    rate: float
    burst: float
    clock: Callable[[], float]
    _left: dict[Hashable, tuple[float, float]] = field(default_factory=dict)

    def take(self, key: Hashable) -> bool:
        """Takes one; False where there is none."""
        now = self.clock()
        left, since = self._left.pop(key, (self.burst, now))
        left = min(self.burst, left + (now - since) * self.rate)
        # Who was silent for this long has a full bucket again. The oldest come first.
        while self._left and now - next(iter(self._left.values()))[1] > self.burst / self.rate:
            del self._left[next(iter(self._left))]
        self._left[key] = (left - 1 if left >= 1 else left, now)
        return left >= 1
