"""The layers of a container's root: what the image has, and what was put on top of it.

A file that the upper layer has was written since the container was made; what a lower layer has is
the image's, and still there to compare with.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from trainseal.agent.files import Tree
from trainseal.agent.mounts import Overlay

Kind = Literal["file", "directory", "link", "removed", "other"]
#: Directories within one another that a walk goes down; each costs a descriptor while it lasts. And
#: what the kernel takes as a path.
MAX_DEPTH, _MAX_PATH = 100, 4096
#: Names after which it is asked, again and again, whether to leave a directory to another walk.
MANY = 1_000
#: Directories that are remembered as missing in a lower layer.
_MOST_LACKING = 10_000


#: Asked of each directory, with 0, and again whenever ``MANY`` more names of it were taken.
PutOff = Callable[[str, int], bool]


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


@dataclass(slots=True)
class _Level:
    """A directory while it is walked."""

    directory: str
    entries: Generator[os.DirEntry[str]]
    names: int = 0


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
        #: A directory that no walk can look into: it is too deep.
        self.too_deep: str | None = None
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
        return any(_has_names(lower, path) for lower in self._lowers)

    def written(self, path: str) -> bool:
        """Whether the upper layer has it."""
        return self.upper.status(path) is not None

    def walk(self, top: str = "/", put_off: PutOff = lambda *_: False) -> Generator[Entry]:
        """Everything in the upper layer below ``top``, however much that is: names are read as they
        are asked for. What is ``put_off`` is left out, or what is left of it.
        """
        levels = [_Level(top, self.upper.entries(top))]
        try:
            while levels:
                level = levels[-1]
                entry = next(level.entries, None)
                level.names += 1
                many = level.names % MANY == 0
                if entry is None or (many and put_off(level.directory, level.names)):
                    levels.pop().entries.close()
                    continue
                path = f"{level.directory.rstrip('/')}/{entry.name}"
                if len(os.fsencode(path)) >= _MAX_PATH:
                    self.too_deep = path
                    continue
                status = self.upper.status(path)
                if status is None:
                    continue
                kind = kind_of(status)
                opaque = kind == "directory" and self.upper.opaque(path)
                yield Entry(path, kind, status, opaque)
                if kind != "directory" or put_off(path, 0):
                    continue
                if len(levels) < MAX_DEPTH:
                    levels.append(_Level(path, self.upper.entries(path)))
                else:
                    self.too_deep = path
        finally:
            for level in levels:
                level.entries.close()


def _has_names(tree: Tree, directory: str) -> bool:
    """Whether it is there and not empty."""
    with closing(tree.entries(directory)) as entries:
        return next(entries, None) is not None


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
