"""Writes into a container's checkpoints mount, taken out of its file events.

What the trainer writes there is no difference (``judge``), so it goes to who keeps manifests.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Protocol

from trainseal.agent.checkpointvalues import Written
from trainseal.agent.files import Tree
from trainseal.agent.observed import Lineage, WatchedContainer
from trainseal.api.checkpoint import Writer

_DELETED = " (deleted)"


class WriteListener(Protocol):
    """Who is told, in the event loop."""

    def wrote(self, container: WatchedContainer, written: Written) -> None:
        """A file of the checkpoints mount was closed that was open for writing."""

    def lost(self, container: WatchedContainer) -> None:
        """Events of the container were lost."""


class CheckpointWrites:
    """Of one container. Takes nothing before ``begin``."""

    def __init__(self, container: WatchedContainer, listener: WriteListener | None) -> None:
        self._container = container
        self._listener = listener
        self._path = ""
        self._device: int | None = None
        self._mixed = False

    def begin(self, root: Tree) -> None:
        """Looks where the mount lies; ``root`` is the container's. A network's may take long."""
        container = self._container
        mount = next((m for m in container.mounts if m.role == "checkpoints"), None)
        status = root.status(mount.path) if mount is not None else None
        self._path = mount.path if mount is not None else ""
        self._device = status.st_dev if status is not None else None
        #: Mounts that are judged and lie on the same device: there the path must tell.
        self._mixed = any(
            not m.writable
            and (found := root.status(m.path)) is not None
            and found.st_dev == self._device
            for m in container.mounts
        )

    def take(self, fd: int, who: Callable[[], Lineage | None]) -> bool:
        """Whether the file that was closed lies there; then it was told of. OSError."""
        if self._listener is None or self._device is None:
            return False
        status = os.fstat(fd)
        if status.st_dev != self._device:
            return False
        seen = os.readlink(f"/proc/self/fd/{fd}").removesuffix(_DELETED)  # noqa: PTH115 text only
        inside = seen.startswith(f"{self._path}/")
        if self._mixed and not inside:
            return False
        if status.st_nlink:
            path = seen.removeprefix(f"{self._path}/") if inside else ""
            lineage = who()
            writer = self._writer(lineage)
            written = Written((status.st_dev, status.st_ino), path, writer, lineage)
            self._listener.wrote(self._container, written)
        return True

    def _writer(self, lineage: Lineage | None) -> Writer:
        if lineage is None:
            return "Container"  # it is gone; the mark was on the container's own mount
        if lineage.session is not None:
            return "Session"
        inside = lineage.chain[0].container_id == self._container.container_id
        return "Trainer" if inside else "Outside"

    def lost(self) -> None:
        """Events were lost."""
        if self._listener is not None and self._device is not None:
            self._listener.lost(self._container)
