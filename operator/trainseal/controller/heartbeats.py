"""How long each node's agent has been silent, by our own clock. Pure.

Times of other machines are never compared with ours: what counts is when we last saw the Lease's
``renewTime`` change, as leader election does it. A node seen for the first time starts at zero,
so a controller that just started accuses nobody.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

SILENT_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Beat:
    """What a Lease last said, and when (monotonic seconds) we saw it say something new."""

    renewed: str
    at: float


class Heartbeats:
    """The Leases of the nodes' agents."""

    def __init__(self) -> None:
        self._beats: dict[str, Beat] = {}

    def saw(self, node: str, renewed: str, at: float) -> None:
        """The node's Lease as it stands; empty where there is none."""
        known = self._beats.get(node)
        if known is None or (renewed and renewed != known.renewed):
            self._beats[node] = Beat(renewed, at)

    def silent(self, node: str, at: float) -> Beat | None:
        """The last beat of a node that has been silent for too long, else None."""
        beat = self._beats.setdefault(node, Beat("", at))
        return beat if at - beat.at > SILENT_SECONDS else None

    def keep(self, nodes: Collection[str]) -> None:
        """Forgets all other nodes: one that comes back starts anew."""
        self._beats = {n: b for n, b in self._beats.items() if n in nodes}
