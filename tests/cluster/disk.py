"""Room on disk, asked for before what fills it is begun."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError

GIB = 1024**3


@dataclass(frozen=True)
class Need:
    """So many bytes more, below `place` (which need not exist yet)."""

    what: str
    place: Path
    size: int


@dataclass(frozen=True)
class Space:
    """A filesystem, known by its device, and what it has left for us, in bytes."""

    device: int
    free: int


def space_at(place: Path) -> Space:
    """The filesystem on which `place` is or would be."""
    while not place.exists():
        place = place.parent
    found = os.statvfs(place)
    return Space(place.stat().st_dev, found.f_bavail * found.f_frsize)


def require_space(needs: Iterable[Need], space: Callable[[Path], Space] = space_at) -> None:
    """ClusterError unless each filesystem has room for all that goes there."""
    on: dict[int, list[Need]] = {}
    free: dict[int, int] = {}
    for need in needs:
        found = space(need.place)
        on.setdefault(found.device, []).append(need)
        free[found.device] = found.free
    short = [device for device in on if sum(n.size for n in on[device]) > free[device]]
    if not short:
        return
    raise ClusterError(
        "too little room on disk: "
        + "; ".join(f"{_gib(free[d])} GiB free for {_places(on[d])}" for d in short),
        expected="; ".join(
            f"{_gib(sum(n.size for n in on[d]))} GiB ("
            + ", ".join(f"{n.what} {_gib(n.size)}" for n in on[d])
            + ")"
            for d in short
        ),
        action="free some; or put things elsewhere: GOCACHE and GOMODCACHE are Go's, "
        "TRAINSEAL_CACHE is for tools and images, TRAINSEAL_STATE for clusters",
    )


def _places(needs: list[Need]) -> str:
    return ", ".join(dict.fromkeys(str(n.place) for n in needs))


def _gib(size: int) -> str:
    return f"{size / GIB:.1f}"
