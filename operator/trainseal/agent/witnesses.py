"""Who acted: looked up at the moment of reading, remembered for a moment after.

Many processes end before their last event is read. Each was looked at when it was executed, or at
an earlier act, and that is still true of it.
"""

from __future__ import annotations

from collections.abc import Callable

from trainseal.agent.observed import Lineage

#: Ended processes are remembered so long, in seconds, and so many. A number is not given to another
#: process that soon: Linux goes through all of them first.
_LINGER, _MOST = 10.0, 256


class Witnesses:
    """Asks ``lineage``, and answers from memory where the process is gone."""

    def __init__(
        self, lineage: Callable[[int], Lineage | None], monotonic: Callable[[], float]
    ) -> None:
        self._lineage = lineage
        self._monotonic = monotonic
        self._recent: dict[int, tuple[float, Lineage]] = {}

    def of(self, pid: int) -> Lineage | None:
        """The process and its parents, now or as they were a moment ago."""
        if pid <= 0:
            return None
        found, now = self._lineage(pid), self._monotonic()
        if found is None:
            seen, before = self._recent.get(pid, (now, None))
            return before if now - seen < _LINGER else None
        if len(self._recent) >= _MOST:
            self._recent = {p: r for p, r in self._recent.items() if now - r[0] < _LINGER}
        if len(self._recent) < _MOST:
            self._recent[pid] = now, found
        return found
