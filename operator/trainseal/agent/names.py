"""The name group of one container: marks on directories, and which directory an event means."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress

from trainseal.agent.fanotify import (
    ATTRIB,
    CLOSE_WRITE,
    CREATE,
    DELETE,
    EVENT_ON_CHILD,
    MARK_INODE,
    MODIFY,
    ONDIR,
    RENAME,
    Group,
    Named,
    directory_key,
)
from trainseal.agent.files import Tree
from trainseal.agent.marks import MAX_DIRECTORIES, NameRoot

_NAMES = CREATE | DELETE | RENAME | ATTRIB | ONDIR | EVENT_ON_CHILD
#: Names that are looked at below one root, at most: a dataset may have millions.
_MOST_LOOKED_AT = 200_000


class NameMarks:
    """Marks directories of ``tree`` in a group of its own. Close it.

    ``uncovered`` has the first few directories for which no mark was left or possible.
    """

    def __init__(self, tree: Tree, limit: int = MAX_DIRECTORIES) -> None:
        """OSError where the kernel has no such groups."""
        self.group = Group(names=True)
        self._tree = tree
        self._limit = limit
        self._paths: dict[bytes, str] = {}
        self._deep: dict[str, NameRoot] = {}
        self.uncovered: list[str] = []
        self.missed = 0

    def close(self) -> None:
        """Twice is fine."""
        self.group.close()

    def __len__(self) -> int:
        return len(self._paths)

    def cover(self, roots: Iterable[NameRoot]) -> list[str]:
        """Marks them, and all below where they say so; the files in those that want it.

        OSError of the first mark of all.
        """
        found: list[str] = []
        for root in roots:
            if root.below:
                self._deep[root.path] = root
            files = self._mark(root.path, below=root.below, writes=root.writes)
            found += [path for path in files if root.listed]
        return found

    def appeared(self, path: str) -> list[str]:
        """Marks a directory that was made or moved here; the files that are in it already."""
        root = next((r for p, r in self._deep.items() if path.startswith(f"{p}/")), None)
        if root is None:
            return []
        return list(self._mark(path, below=True, writes=root.writes))

    def vanished(self, path: str) -> None:
        """Forgets a directory that was removed or moved away, and what is below."""
        below = f"{path}/"
        self._paths = {
            key: at for key, at in self._paths.items() if at != path and not at.startswith(below)
        }

    def path_of(self, named: Named) -> str | None:
        """The path that an event means; None for a directory that is known no longer."""
        directory = self._paths.get(named.directory)
        if directory is None:
            return None
        return directory if named.name in ("", ".") else f"{directory.rstrip('/')}/{named.name}"

    def _mark(self, top: str, *, below: bool, writes: bool) -> Iterator[str]:
        """Marks, then looks: what is made meanwhile is seen one way or the other."""
        pending = [top]
        looked_at = 0
        mask = _NAMES | (MODIFY | CLOSE_WRITE if writes else 0)
        while pending:
            path = pending.pop()
            if len(self._paths) >= self._limit or looked_at > _MOST_LOOKED_AT:
                self._miss(path)
                continue
            try:
                fd = self._tree.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            except OSError:
                continue  # gone meanwhile
            try:
                self._mark_one(path, fd, mask)
                if below:
                    with suppress(OSError), os.scandir(fd) as entries:
                        for entry in entries:
                            looked_at += 1
                            if looked_at > _MOST_LOOKED_AT:
                                break
                            child = f"{path.rstrip('/')}/{entry.name}"
                            if entry.is_dir(follow_symlinks=False):
                                pending.append(child)
                            else:
                                yield child
            finally:
                os.close(fd)

    def _mark_one(self, path: str, fd: int, mask: int) -> None:
        try:
            key = directory_key(fd)
            self.group.mark(MARK_INODE, mask, fd)
        except OSError:
            if not self._paths:
                raise
            self._miss(path)
        else:
            self._paths[key] = path

    def _miss(self, path: str) -> None:
        self.missed += 1
        if len(self.uncovered) < 5:
            self.uncovered.append(path)
