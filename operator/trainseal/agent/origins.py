"""Where a file of a container comes from: the image, a mount with a role, or nobody's signature."""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Sequence
from functools import partial
from typing import Literal, Protocol

from trainseal.agent.files import Tree
from trainseal.agent.layers import Layers
from trainseal.agent.mounts import Mount, holding
from trainseal.agent.observed import WatchedContainer
from trainseal.agent.pathlinks import followed

#: ``platform``: mounted read-only by the runtime (device drivers). ``other``: what else is mounted
#: from the start (/dev/shm, /etc/hosts). ``later``: mounted since. ``unknown``: the layers of the
#: root cannot be read from here.
Origin = Literal[
    "image",
    "upper",
    "mount:code",
    "mount:config",
    "mount:data",
    "mount:checkpoints",
    "mount:scratch",
    "mount:platform",
    "mount:other",
    "mount:later",
    "unknown",
]
#: Code from there is nobody's.
FOREIGN: frozenset[Origin] = frozenset(
    {
        "upper",
        "mount:data",
        "mount:checkpoints",
        "mount:scratch",
        "mount:other",
        "mount:later",
    }
)
#: Of those, what no other pod writes to.
OWN: frozenset[Origin] = frozenset({"upper", "mount:scratch", "mount:other"})
_WORDS: dict[Origin, str] = {
    "upper": "it was written after the container started",
    "mount:data": "it lies in a data mount",
    "mount:checkpoints": "it lies in the checkpoints mount",
    "mount:scratch": "it lies in a scratch mount",
    "mount:other": "it lies in a writable mount of the runtime's",
    "mount:later": "it lies in what was mounted after the container started",
}


class Places(Protocol):
    """What the sweeps ask about paths, which are as the container sees them."""

    def origin(self, path: str) -> Origin:
        """Of a path without symbolic links in it, there or not."""

    def in_image(self, path: str) -> bool:
        """Whether the image has a file of that name."""

    def resolved(self, path: str, pid: int | None = None) -> str:
        """The absolute path with its symbolic links followed within the container's root, those
        below ``/proc/self`` as they are for the process ``pid``.
        """

    def status(self, path: str) -> os.stat_result | None:
        """Of the file that the container has there; None where there is none."""


def why(origin: Origin) -> str:
    """Why code from there is nobody's, for a message."""
    return _WORDS.get(origin, "it is not of the image")


class ContainerPlaces:
    """The places of one container. ``mounts`` are those of its start, without later ones.

    ``layers`` is None where the root's layers cannot be read from here: then what lies in the root
    is ``unknown``. ``root`` is the container's root directory, open.
    """

    def __init__(
        self,
        container: WatchedContainer,
        mounts: Sequence[Mount],
        layers: Layers | None,
        root: Tree,
    ) -> None:
        self._first = frozenset(m.place for m in mounts)
        self._mounts = tuple(mounts)
        self._layers = layers
        self._root = root
        self._roles = {root.real_directory(m.path) or m.path: m.role for m in container.mounts}

    def mounted(self, mounts: Sequence[Mount]) -> None:
        """Takes the mounts as they are now."""
        self._mounts = tuple(mounts)

    def origin(self, path: str) -> Origin:
        """As Places has it."""
        mount = holding(self._mounts, path)
        if mount is not None and mount.place not in self._first:
            return "mount:later"
        if mount is not None and mount.path != "/":
            role = self._roles.get(mount.path)
            if role is not None:
                return _of_role(role)
            return "mount:platform" if self._read_only(mount.path) else "mount:other"
        if self._layers is None:
            return "unknown"
        status = self._layers.upper.status(path)
        if status is None:
            return "image"
        # A directory of the image is in the upper layer too as soon as anything in it is.
        merged = stat.S_ISDIR(status.st_mode) and not self._layers.upper.opaque(path)
        return "image" if merged and (path == "/" or self.in_image(path)) else "upper"

    def in_image(self, path: str) -> bool:
        """As Places has it."""
        return self._layers is not None and self._layers.image_tree(path) is not None

    def resolved(self, path: str, pid: int | None = None) -> str:
        """As Places has it; of a path that is not there, as far as it is."""
        directory = self._root.real_directory(path)
        if directory is not None:
            return directory
        above, _, name = path.rpartition("/")
        parent = self._root.real_directory(above or "/")
        if parent is not None and name not in ("", ".", ".."):
            plain = posixpath.join(parent, name)
            if self._root.link_target(plain) is None:
                return plain
        return followed(path, self._root.link_target, partial(self._of_process, pid))

    def _of_process(self, pid: int | None, other: int | None, name: str) -> str | None:
        """A link of the kernel's; ``other`` is numbered as in the container. Of a process that is
        gone the root was the container's, unless it had changed its own.
        """
        gone = "/" if name == "root" else None
        if other is not None:
            return self._root.link_target(f"/proc/{other}/{name}") or gone
        try:
            return gone if pid is None else os.readlink(f"/proc/{pid}/{name}")  # noqa: PTH115 text
        except OSError:
            return gone

    def status(self, path: str) -> os.stat_result | None:
        """As Places has it."""
        return self._root.status(path)

    def _read_only(self, path: str) -> bool:
        try:
            fd = self._root.open(path, os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            return bool(os.fstatvfs(fd).f_flag & os.ST_RDONLY)
        finally:
            os.close(fd)


def _of_role(role: str) -> Origin:
    match role:
        case "code":
            return "mount:code"
        case "config":
            return "mount:config"
        case "data":
            return "mount:data"
        case "checkpoints":
            return "mount:checkpoints"
        case _:
            return "mount:scratch"
