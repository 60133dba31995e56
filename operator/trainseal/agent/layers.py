"""The layers of a container's root: what the image has, and what was put on top of it.

A file that the upper layer has was written since the container was made; what a lower layer has is
the image's, and still there to compare with.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

from trainseal.agent.files import Tree
from trainseal.agent.mounts import Overlay

Kind = Literal["file", "directory", "link", "removed", "other"]
#: The most entries of an upper layer that one walk looks at.
MAX_WALKED = 50_000
#: Directories that are remembered as missing in a lower layer.
_MOST_LACKING = 10_000


class LayersError(Exception):
    """The layers cannot be read from here; the text says which and why."""


@dataclass(frozen=True, slots=True)
class Entry:
    """Something in the upper layer. ``removed`` stands for a lower layer's name that is gone;
    an ``opaque`` directory hides all that lower layers have in it.
    """

    path: str
    kind: Kind
    status: os.stat_result
    opaque: bool = False


def kind_of(status: os.stat_result) -> Kind:
    """What it is; a whiteout (character device 0:0) means that a name was removed."""
    mode = status.st_mode
    if stat.S_ISREG(mode):
        return "file"
    if stat.S_ISDIR(mode):
        return "directory"
    if stat.S_ISLNK(mode):
        return "link"
    return "removed" if stat.S_ISCHR(mode) and status.st_rdev == 0 else "other"


class Layers:
    """The opened layers. Close it."""

    def __init__(self, overlay: Overlay, node: str) -> None:
        """``node`` is where the node's root directory is from here. Raises LayersError."""
        self._trees: list[Tree] = []
        #: Directories that a lower layer does not have, nor hides: it never changes, and many files
        #: that are made in a new directory must cost little.
        self._lacking: set[tuple[int, str]] = set()
        if overlay.upper is None:
            raise LayersError("the container's root is an overlay without an upper layer")
        try:
            for path in (overlay.upper, *overlay.lowers):
                self._trees.append(Tree(f"{node}{path}"))
        except OSError as error:
            self.close()
            raise LayersError(f"a layer cannot be read: {error.strerror}") from None
        self.upper, self._lowers = self._trees[0], self._trees[1:]

    def close(self) -> None:
        """Twice is fine."""
        for tree in self._trees:
            tree.close()

    def image_tree(self, path: str) -> Tree | None:
        """The lower layer whose ``path`` the image shows; None where the image has none."""
        directory = path.rpartition("/")[0] or "/"
        for number, tree in enumerate(self._lowers):
            if (number, directory) in self._lacking:
                continue
            status = tree.status(path)
            if status is not None:
                return None if kind_of(status) == "removed" else tree
            if _hides(tree, path):
                return None
            if len(self._lacking) < _MOST_LACKING and _is_missing(tree, directory):
                self._lacking.add((number, directory))
        return None

    def image_has_in(self, path: str) -> bool:
        """Whether it is a name of the image's, and no directory that is empty there."""
        tree = self.image_tree(path)
        status = tree.status(path) if tree is not None else None
        if status is None or kind_of(status) != "directory":
            return status is not None
        return any(names_in(lower, path) for lower in self._lowers)

    def written(self, path: str) -> bool:
        """Whether the upper layer has it."""
        return self.upper.status(path) is not None

    def walk(self) -> Iterator[Entry]:
        """Everything in the upper layer, at most MAX_WALKED entries."""
        left = MAX_WALKED
        pending = ["/"]
        while pending:
            directory = pending.pop()
            for name in names_in(self.upper, directory):
                if left == 0:
                    return
                left -= 1
                path = f"{directory.rstrip('/')}/{name}"
                status = self.upper.status(path)
                if status is None:
                    continue
                kind = kind_of(status)
                opaque = kind == "directory" and self.upper.opaque(path)
                if kind == "directory":
                    pending.append(path)
                yield Entry(path, kind, status, opaque)


def _is_missing(tree: Tree, directory: str) -> bool:
    """Whether it is not there for sure, and not just unreadable now."""
    try:
        os.close(tree.open(directory, os.O_PATH | os.O_NOFOLLOW))
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return False


def _hides(tree: Tree, path: str) -> bool:
    """Whether this layer keeps lower ones from showing ``path``, which it does not have."""
    parent = path
    while parent not in ("/", ""):
        parent = parent.rpartition("/")[0] or "/"
        status = tree.status(parent)
        if status is not None and (kind_of(status) != "directory" or tree.opaque(parent)):
            return True
    return False


def names_in(tree: Tree, directory: str) -> list[str]:
    """The names in a directory; none where it cannot be read."""
    with suppress(OSError):
        fd = tree.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            return os.listdir(fd)  # noqa: PTH208 of a descriptor
        finally:
            os.close(fd)
    return []
