"""Which marks a container gets. Pure.

Descriptor events (writes, executions) come from marks on whole file systems where the file system
is the container's alone, else from marks on its mounts. Name events (made, removed, renamed,
attributes) come from marks on single directories: overlays offer no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from trainseal.agent.fanotify import (
    CLOSE_WRITE,
    MARK_FILESYSTEM,
    MARK_MOUNT,
    MODIFY,
    OPEN_EXEC,
)
from trainseal.agent.loaders import Loaders
from trainseal.agent.mounts import Mount, at_path
from trainseal.agent.observed import WatchedContainer

WRITES = MODIFY | CLOSE_WRITE
#: What holds no programs: the kernel's own, and what is mounted into that.
_KERNELS = ("/proc", "/sys")
_NO_PROGRAMS = frozenset({"devpts", "mqueue"})
#: Directories marked a container, at most; each costs the kernel about 1 KiB.
MAX_DIRECTORIES = 20_000


@dataclass(frozen=True, slots=True)
class FileMark:
    """A mark of the descriptor group on what is mounted at ``path``."""

    path: str
    kind: int
    mask: int


@dataclass(frozen=True, slots=True)
class NameRoot:
    """A directory of the name group. ``below``: and all in it. ``writes``: its files' writes too,
    where no file system mark gives them. ``listed``: the names in it are all signed, and few
    enough to be remembered.
    """

    path: str
    below: bool
    writes: bool = False
    listed: bool = False


def file_marks(container: WatchedContainer, mounts: Sequence[Mount]) -> tuple[FileMark, ...]:
    """In the order in which they are set."""
    found: list[FileMark] = []
    roles = {m.path: m for m in container.mounts}
    root = at_path(mounts, "/")
    alone = root is not None and root.kind == "overlay"
    # Of one that a platform added only who enters it, and the run's own files.
    mask = OPEN_EXEC if container.added else WRITES | OPEN_EXEC
    found.append(FileMark("/", MARK_FILESYSTEM if alone else MARK_MOUNT, mask))
    for path, role in roles.items():
        mount = at_path(mounts, path)
        if mount is not None:
            kind = MARK_FILESYSTEM if _own_memory(mount) else MARK_MOUNT
            mask = WRITES | OPEN_EXEC
            if role.writable:  # what is completed in checkpoints gets a manifest
                mask = CLOSE_WRITE | OPEN_EXEC if role.role == "checkpoints" else OPEN_EXEC
            found.append(FileMark(path, kind, mask))
    found += [
        FileMark(mount.path, MARK_MOUNT, OPEN_EXEC)
        for mount in mounts
        if mount.path not in roles
        and mount.path != "/"
        and not container.added
        and _may_be_given_programs(mount)
    ]
    return tuple(found)


def name_roots(
    container: WatchedContainer, mounts: Sequence[Mount], loaders: Loaders
) -> tuple[NameRoot, ...]:
    """The signed mounts first: where marks run out, they have theirs."""
    found: dict[str, NameRoot] = {}
    for role in sorted(container.mounts, key=lambda m: m.role == "data"):
        mount = at_path(mounts, role.path)
        if not role.writable and mount is not None:
            found[role.path] = NameRoot(
                role.path,
                below=True,
                writes=not _own_memory(mount),
                listed=role.role in ("code", "config"),
            )
    for path in () if container.added else loaders.trees:
        found.setdefault(path, NameRoot(path, below=True))
    for path in () if container.added else loaders.directories:
        found.setdefault(path, NameRoot(path, below=False))
    return tuple(
        root
        for root in found.values()
        if (role_here := container.mount_of(root.path)) is None or not role_here.writable
    )


def _may_be_given_programs(mount: Mount) -> bool:
    """What the runtime mounts to be read, such as a driver's tools, is the node's."""
    if any(mount.path == top or mount.path.startswith(f"{top}/") for top in _KERNELS):
        return False
    return mount.kind == "tmpfs" or not (mount.read_only or mount.kind in _NO_PROGRAMS)


def _own_memory(mount: Mount) -> bool:
    return mount.kind == "tmpfs" and mount.whole
