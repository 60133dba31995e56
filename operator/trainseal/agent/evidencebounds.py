"""How much evidence is taken: of one pod, and on a node within an hour. Pure.

Nothing is ever deleted to make room, so room is kept for what may still come: findings below
Critical get half of it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import datetime, timedelta

from trainseal.api.findings import Severity

#: Of one pod for as long as it lives; bytes as JSON.
POD_ITEMS, POD_BYTES = 16, 2 * 1024 * 1024
#: Of all pods of a node, within an hour.
NODE_ITEMS, NODE_BYTES = 64, 8 * 1024 * 1024
NODE_WINDOW = timedelta(hours=1)
#: Less room than this is none: an item without its file or its processes is of little use.
LEAST_BYTES = 24 * 1024


@dataclass(slots=True)
class Share:
    """What one item takes of an allowance; ``size`` is known once the item is made."""

    time: datetime
    size: int = 0


class Allowance:
    """So many items and bytes; with ``window``, within that time."""

    def __init__(self, items: int, size: int, window: timedelta | None = None) -> None:
        self._items = items
        self._size = size
        self._window = window
        self._shares: deque[Share] = deque()

    def admits(self, severity: Severity, now: datetime) -> bool:
        """Whether there is room for one more of that severity."""
        items = self._items if severity == "Critical" else self._items // 2
        return len(self._live(now)) < items and self.room(severity, now) >= LEAST_BYTES

    def room(self, severity: Severity, now: datetime) -> int:
        """Bytes that one more of that severity may have."""
        size = self._size if severity == "Critical" else self._size // 2
        return max(0, size - sum(share.size for share in self._live(now)))

    def take(self, now: datetime, size: int = 0) -> Share:
        """One more item."""
        share = Share(now, size)
        self._shares.append(share)
        return share

    def give_back(self, share: Share) -> None:
        """The item was not made after all."""
        self._shares = deque(s for s in self._shares if s is not share)

    def exceeded(self, now: datetime) -> bool:
        """Whether more was taken than there is: by an agent that did not know yet what an earlier
        one had taken.
        """
        return len(self._live(now)) > self._items

    def _live(self, now: datetime) -> deque[Share]:
        if self._window is not None:
            while self._shares and now - self._shares[0].time >= self._window:
                self._shares.popleft()
        return self._shares


def of_a_pod() -> Allowance:
    """A pod's."""
    return Allowance(POD_ITEMS, POD_BYTES)


def of_a_node() -> Allowance:
    """A node's."""
    return Allowance(NODE_ITEMS, NODE_BYTES, NODE_WINDOW)
