"""How long each node's agent has been silent, by our own clock. Pure.

Times of other machines are never compared with ours: what counts is when we last saw the Lease's
``renewTime`` change, as leader election does it. A node seen for the first time starts at zero,
so a controller that just started accuses nobody.

A Lease is heard of in two ways, by a watch and by reading it, and a watch that hangs goes on saying
what it last heard: what a way has said before is no renewal, whatever the other said meanwhile.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

SILENT_SECONDS = 15.0
#: What an agent has once its node is back, which was silent as a whole: the kubelet starts it.
RETURN_SECONDS = 60.0

Way = Literal["watched", "read"]


@dataclass(frozen=True, slots=True)
class Beat:
    """What a Lease last said, and when (monotonic seconds) we saw it say something new."""

    renewed: str
    at: float


class Heartbeats:
    """The Leases of the nodes' agents."""

    def __init__(self) -> None:
        self._beats: dict[str, Beat] = {}
        self._said: dict[tuple[str, Way], str] = {}

    def saw(self, node: str, renewed: str, at: float, way: Way = "watched") -> None:
        """The node's Lease as it stands; empty where there is none."""
        known = self._beats.get(node)
        said, self._said[node, way] = self._said.get((node, way)), renewed
        if known is None or (renewed and renewed not in (said, known.renewed)):
            self._beats[node] = Beat(renewed, at)

    def silent(self, node: str, at: float) -> Beat | None:
        """The last beat of a node that has been silent for too long, else None."""
        beat = self._beats.setdefault(node, Beat("", at))
        return beat if at - beat.at > SILENT_SECONDS else None

    def back(self, node: str, at: float) -> None:
        """A node that was silent as a whole is heard of again; its agent has time to follow."""
        beat = self._beats.get(node, Beat("", at))
        self._beats[node] = Beat(beat.renewed, at + RETURN_SECONDS - SILENT_SECONDS)

    def keep(self, nodes: Collection[str]) -> None:
        """Forgets all other nodes: one that comes back starts anew."""
        self._beats = {n: b for n, b in self._beats.items() if n in nodes}
        self._said = {key: said for key, said in self._said.items() if key[0] in nodes}
