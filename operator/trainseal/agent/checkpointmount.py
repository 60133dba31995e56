"""Reading a pod's checkpoints mount: looking, walking, hashing; in small steps, holding nothing.

Nothing is held open between two steps. A volume that the kubelet takes off the node must not stay
mounted by us: a block device would be detached before its file system has written what it holds.

While a container runs the mount is read through its own root. Most trainers write their last
checkpoint and end, and the container's view ends with its first process; the node's own mount of
the same volume stays for a second or two longer, and is read then. Both are known by the device
and inode of the mount's top, so that no other directory is ever taken for it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING

from trainseal.agent.checkpointvalues import Stamp
from trainseal.agent.files import Tree, entries_of, open_beneath
from trainseal.agent.mounts import MAX_MOUNTINFO, Mount, MountInfoError, holding, parse
from trainseal.provenance.bytesources import Meter
from trainseal.provenance.fileforms import MOST, Judged, judge

if TYPE_CHECKING:
    from hashlib import _Hash

_CHUNK = 1024 * 1024
#: Names of one directory beyond this are passed over.
_MOST_NAMES = 20_000
_DEEPEST = 32
#: Ways of the node to one volume that are remembered.
_MOST_WAYS = 64
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


class GoneError(OSError):
    """No way leads to the volume any more."""


def stamp_of(status: os.stat_result) -> Stamp:
    """Of a file's status."""
    return Stamp(status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns)


class CheckpointMount:
    """The checkpoints mount of a container. ``ended``: the container's own view is gone."""

    def __init__(self, pid: int, path: str, node: str) -> None:
        """``pid`` is the container's first process, ``path`` where it has the mount; ``node`` is
        where the node's root directory is. OSError where the container is gone.
        """
        self._root = f"/proc/{pid}/root"
        self._node = node
        self.ended = False
        with Tree(self._root) as root:
            self._path = root.real_directory(path) or path
            fd = root.open(self._path, _DIRECTORY)
            try:
                self._top = _identity(fd)
            finally:
                os.close(fd)
        self._ways = ways_to(pid, self._path, node)

    @contextmanager
    def open(self) -> Iterator[int]:
        """The mount's top, for a moment. GoneError."""
        fd = self._opened()
        try:
            yield fd
        finally:
            os.close(fd)

    def _opened(self) -> int:
        if not self.ended:
            fd = self._try(self._root, self._path)
            if fd is not None:
                return fd
            self.ended = True
        for way in self._ways:
            fd = self._try(self._node, way)
            if fd is not None:
                return fd
        raise GoneError(2, "the volume is not mounted any more", self._path)

    def _try(self, root: str, path: str) -> int | None:
        try:
            with Tree(root) as tree:
                fd = tree.open(path, _DIRECTORY)
        except OSError:
            return None
        if _identity(fd) == self._top:
            return fd
        os.close(fd)
        return None

    def look(self, path: str) -> Stamp | None:
        """The regular file of that name; None where there is none. GoneError."""
        with self.open() as top:
            try:
                fd = open_beneath(top, path, os.O_PATH | os.O_NOFOLLOW)
            except OSError:
                return None
            try:
                status = os.fstat(fd)
            finally:
                os.close(fd)
        return stamp_of(status) if stat.S_ISREG(status.st_mode) else None

    def walk(self) -> Generator[tuple[str, Stamp] | None, None, bool]:
        """All regular files; None for whatever else is passed by. GoneError.

        What is mounted in the mount is not looked into. Returns whether it saw everything.
        """
        pending, whole = [("", 0)], True
        while pending:
            directory, depth = pending.pop()
            entries = self._entries(directory)
            whole &= len(entries) < _MOST_NAMES
            for name, status in entries:
                path = f"{directory}/{name}" if directory else name
                if stat.S_ISDIR(status.st_mode) and status.st_dev == self._top[0]:
                    whole &= depth < _DEEPEST
                    if depth < _DEEPEST:
                        pending.append((path, depth + 1))
                    yield None
                elif stat.S_ISREG(status.st_mode):
                    yield path, stamp_of(status)
                else:
                    yield None
        return whole

    def _entries(self, directory: str) -> list[tuple[str, os.stat_result]]:
        with self.open() as top:
            try:
                fd = open_beneath(top, directory, _DIRECTORY)
            except OSError:
                return []  # gone, or replaced by something else
            try:
                return entries_of(fd, _MOST_NAMES)
            finally:
                os.close(fd)


@dataclass(slots=True)
class Hashing:
    """One file on its way to a digest, a part at a time."""

    path: str
    stamp: Stamp
    digest: str | None = None
    judged: Judged | None = None
    changed: bool = False
    _hash: _Hash = field(default_factory=sha256)
    _at: int = 0
    _judging: _Judging | None = None

    @property
    def done(self) -> bool:
        """Whether there is nothing more to read: it has a ``digest``, or was ``changed``."""
        return self.changed or self.digest is not None

    def step(self, mount: CheckpointMount, budget: int) -> int:
        """Reads on, about ``budget`` bytes; returns how many it were. Once it is hashed, what it
        is gets judged in the same way. GoneError.
        """
        spent = 0
        with mount.open() as top:
            try:
                fd = self._open(top)
            except OSError:
                self.changed = True
                return 0
            try:
                while spent < budget and self._judging is None:
                    part = os.pread(fd, _CHUNK, self._at)
                    if not part:
                        self._judging = _Judging(self.stamp.size)
                        break
                    self._hash.update(part)
                    self._at += len(part)
                    spent += len(part)
                if self._judging is not None and spent < budget:
                    spent += self._judging.step(fd, budget - spent)
                    if self._judging.found is not None:
                        self._end(fd, self._judging.found)
            except OSError:
                self.changed = True
            finally:
                os.close(fd)
        return spent

    def _open(self, top: int) -> int:
        """The file with the stamp, and nothing else: to open a device would be an act. OSError."""
        at = open_beneath(top, self.path, os.O_PATH | os.O_NOFOLLOW)
        try:
            status = os.fstat(at)
            if not stat.S_ISREG(status.st_mode) or stamp_of(status) != self.stamp:
                raise OSError(2, "it is another file by now", self.path)
            return os.open(f"/proc/self/fd/{at}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.close(at)

    def _end(self, fd: int, judged: Judged) -> None:
        if stamp_of(os.fstat(fd)) == self.stamp:
            self.digest, self.judged = f"sha256:{self._hash.hexdigest()}", judged
        else:
            self.changed = True


class _Judging:
    """What the file is, found a part at a time; a source that is open during a part alone."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.found: Judged | None = None
        self._fd = -1
        self._meter = Meter(MOST)
        self._steps = judge(self, self._meter)

    def read(self, at: int, length: int) -> bytes:
        """As of any Source."""
        return os.pread(self._fd, length, at)

    def step(self, fd: int, budget: int) -> int:
        """Goes on, about ``budget`` bytes or what costs as much; returns how many. OSError."""
        self._fd, begin = fd, self._meter.spent
        try:
            while self._meter.spent - begin < budget:
                next(self._steps)
        except StopIteration as end:
            self.found = end.value
        return self._meter.spent - begin


def open_for_writing(pid: int, key: tuple[int, int], proc: Path = Path("/proc")) -> bool:
    """Whether a process with the mount namespace of ``pid`` can still write to a file: has it open
    so, or mapped. Looks at every process of the node: for the rare file that is in doubt.
    """
    namespace = _inode(proc / str(pid) / "ns" / "mnt")
    return namespace is not None and any(
        _inode(process / "ns" / "mnt") == namespace
        and (_has_open(process, key) or _has_mapped(process, key[1]))
        for process in proc.iterdir()
        if process.name.isdecimal()
    )


def _has_open(process: Path, key: tuple[int, int]) -> bool:
    with suppress(OSError):
        for fd in (process / "fd").iterdir():
            with suppress(OSError, ValueError):
                status = os.stat(fd)  # noqa: PTH116 of what it is open on
                if (status.st_dev, status.st_ino) != key:
                    continue
                info = (process / "fdinfo" / fd.name).read_text()
                flags = info.partition("flags:")[2].split()[:1]
                if flags and int(flags[0], 8) & os.O_ACCMODE != os.O_RDONLY:
                    return True
    return False


def _has_mapped(process: Path, inode: int) -> bool:
    with suppress(OSError, ValueError), (process / "maps").open("rb") as maps:
        for line in maps:
            fields = line.split(None, 5)
            shared = len(fields) > 4 and fields[1][1:2] == b"w" and fields[1][3:4] == b"s"
            if shared and int(fields[4]) == inode:
                return True
    return False


def _inode(path: Path) -> int | None:
    try:
        return os.stat(path).st_ino  # noqa: PTH116 of a link's target
    except OSError:
        return None


def ways_to(pid: int, path: str, node: str) -> tuple[str, ...]:
    """Where the node itself has what the container has at ``path``."""
    try:
        mount = holding(_mounts(f"/proc/{pid}/mountinfo"), path)
        mounts = _mounts(f"{node.removesuffix('/root')}/mountinfo")
    except (OSError, MountInfoError):
        return ()
    if mount is None:
        return ()
    within = f"{mount.root.rstrip('/')}{path[len(mount.path.rstrip('/')) :]}"
    found = [
        f"{other.path.rstrip('/')}{inside}" or "/"
        for other in mounts
        if other.device == mount.device and (inside := _inside(within, other.root)) is not None
    ]
    return tuple(dict.fromkeys(found))[:_MOST_WAYS]


def _inside(path: str, root: str) -> str | None:
    """What is left of a file system's ``path`` below ``root``; None where it does not lie there."""
    if root == "/":
        return path.rstrip("/")
    if path == root or path.startswith(f"{root}/"):
        return path[len(root) :]
    return None


def _mounts(path: str) -> tuple[Mount, ...]:
    with Path(path).open("rb") as file:
        return parse(os.fsdecode(file.read(MAX_MOUNTINFO)))


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino
