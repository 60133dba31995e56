"""What was mounted over signed names after the container's start. Pure.

No file is written, and the name leads to another all the same. A sealed pod has no right to mount:
it was done on the node, and nobody who was in the pod just then is accused by time.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator

from trainseal.agent.judge import unjudged
from trainseal.agent.mounts import Mount
from trainseal.agent.observed import FOUND_BY, MOUNTED, Observation, WatchedContainer
from trainseal.api.findings import FindingId


class LaterMounts:
    """The mounts of one container that are known: ``first`` are those of its start."""

    def __init__(
        self, container: WatchedContainer, first: Iterable[Mount], signed: Callable[[str], bool]
    ) -> None:
        """``signed``: whether the image, or signed code, has something there or code is loaded
        from there.
        """
        self._container = container
        self._first = frozenset(m.place for m in first)
        self._signed = signed
        self._known = self._first

    def look(self, now: Iterable[Mount]) -> Iterator[Observation]:
        """What is mounted now and was not when this was last asked."""
        mounts = tuple(now)
        for mount in mounts:
            if mount.place in self._known or unjudged(mount.path, self._container):
                continue
            if self._signed(mount.path):
                yield _mounted(mount)
        self._known = self._first | {m.place for m in mounts}


def _mounted(mount: Mount) -> Observation:
    device = f"{os.major(mount.device)}:{os.minor(mount.device)}"
    return Observation(
        FindingId.FILE_RENAMED,
        f"something was mounted over {mount.path}: {mount.root} of a {mount.kind} file system",
        path=mount.path,
        evidence={"mounted": f"{mount.root} of {mount.kind} on {device}", FOUND_BY: MOUNTED},
    )
