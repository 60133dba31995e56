"""Reading files whose surroundings an attacker arranges: a container's root, an overlay's layers.

The kernel resolves each path within one tree and refuses symbolic links (openat2, Linux 5.6), so
nothing in a container leads the agent out to the node. Nothing but a regular file is ever opened
for reading: a named pipe would wait, a device would act. All reads are bounded.
"""

from __future__ import annotations

import ctypes
import os
import stat
import struct
from collections.abc import Generator, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from itertools import islice
from typing import Self

#: Files larger than this are not hashed for a finding's evidence; bytes.
MAX_HASHED = 64 * 1024 * 1024
_CHUNK = 1024 * 1024
_OPENAT2 = 437  # the same number on every architecture
_NO_MAGICLINKS = 0x02
_NO_SYMLINKS = 0x04
_BENEATH = 0x08
_IN_ROOT = 0x10
_EAGAIN_TRIES = 4

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.argtypes = [
    ctypes.c_long,
    ctypes.c_int,
    ctypes.c_char_p,
    ctypes.c_char_p,
    ctypes.c_size_t,
]


def open_beneath(directory: int, path: str, flags: int) -> int:
    """Opens ``path`` (``/`` is the directory itself) below ``directory``; OSError.

    A symbolic link anywhere in it is refused with ELOOP.
    """
    relative = path.strip("/") or "."
    return _openat2(directory, relative, flags, _BENEATH | _NO_SYMLINKS | _NO_MAGICLINKS)


def entries_of(directory: int, most: int) -> list[tuple[str, os.stat_result]]:
    """Names in an open directory with their status, links not followed; at most ``most`` are read.

    What goes away meanwhile is left out. OSError where the directory cannot be read.
    """
    found = []
    with os.scandir(directory) as entries:
        for name in [entry.name for entry in islice(entries, most)]:
            with suppress(OSError):
                found.append((name, os.stat(name, dir_fd=directory, follow_symlinks=False)))
    return found


def _openat2(directory: int, path: str, flags: int, resolve: int) -> int:
    how = struct.pack("=QQQ", flags | os.O_CLOEXEC | os.O_NOCTTY, 0, resolve)
    if flags & os.O_PATH:
        how = struct.pack("=QQQ", flags | os.O_CLOEXEC, 0, resolve)
    name = os.fsencode(path)
    number = 0
    for _ in range(_EAGAIN_TRIES):
        fd: int = _syscall(_OPENAT2, directory, name, how, len(how))
        if fd >= 0:
            return fd
        number = ctypes.get_errno()
        if number != 11:  # EAGAIN: somebody renames while the kernel resolves
            break
    raise OSError(number, os.strerror(number), path)


@dataclass(frozen=True, slots=True)
class Content:
    """A regular file as it was read once from end to end.

    ``digest`` is as that of ``digest_of``, ``head`` the file's beginning; ``steady`` says that
    nobody wrote to it meanwhile.
    """

    digest: str
    size: int
    mode: int
    head: bytes
    steady: bool

    @property
    def whole(self) -> bool:
        """Whether ``head`` is all of it."""
        return len(self.head) == self.size


class Tree:
    """A directory tree, held open. Paths are absolute within it. Use ``close`` or ``with``."""

    def __init__(self, directory: str) -> None:
        """OSError where ``directory`` cannot be opened."""
        self._fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def open(self, path: str, flags: int) -> int:
        """A new descriptor, which the caller closes. OSError; ELOOP for any symbolic link."""
        return open_beneath(self._fd, path, flags)

    def status(self, path: str) -> os.stat_result | None:
        """Of the path itself, links not followed; None where it is not there as a plain path."""
        try:
            fd = self.open(path, os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def entries(self, directory: str) -> Generator[os.DirEntry[str]]:
        """What is in a directory, read as it is asked for; nothing where it cannot be read. Close
        it: it holds two descriptors.
        """
        with suppress(OSError):
            fd = self.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                with os.scandir(fd) as entries:
                    yield from entries
            finally:
                os.close(fd)

    def opaque(self, path: str) -> bool:
        """Whether an overlay shows nothing of lower layers in this directory."""
        try:
            fd = self.open(path, os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            return False
        try:
            value = os.getxattr(f"/proc/self/fd/{fd}", "trusted.overlay.opaque")
        except OSError:
            return False
        finally:
            os.close(fd)
        return value in (b"y", b"x")

    def link_target(self, path: str) -> str | None:
        """Where the symbolic link leads, None where it is none."""
        try:
            fd = self.open(path, os.O_PATH | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            return os.readlink("", dir_fd=fd)
        except OSError:
            return None
        finally:
            os.close(fd)

    def real_directory(self, path: str) -> str | None:
        """The directory's path with all symbolic links followed within the tree."""
        flags = os.O_PATH | os.O_DIRECTORY
        try:
            fd = _openat2(self._fd, path, flags, _IN_ROOT | _NO_MAGICLINKS)
        except OSError:
            return None
        try:
            found = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 text only
            own = os.readlink(f"/proc/self/fd/{self._fd}").rstrip("/")  # noqa: PTH115
        finally:
            os.close(fd)
        if found == own:
            return "/"
        return found[len(own) :] if found.startswith(f"{own}/") else None

    @contextmanager
    def regular(self, path: str) -> Iterator[int]:
        """The regular file, open for reading. OSError where it is not there or no such file."""
        at = self.open(path, os.O_PATH | os.O_NOFOLLOW)
        try:
            if not stat.S_ISREG(os.fstat(at).st_mode):
                raise OSError(22, "not a regular file", path)
            fd = os.open(f"/proc/self/fd/{at}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        finally:
            os.close(at)
        try:
            yield fd
        finally:
            os.close(fd)

    def read(self, path: str, most: int) -> bytes | None:
        """The file's content; None where it cannot be read or has more than ``most`` bytes."""
        try:
            with self.regular(path) as fd:
                return read_all(fd, most)
        except OSError:
            return None

    def content(self, path: str, most: int) -> Content | None:
        """As ``content_of``; None where the file cannot be read."""
        try:
            with self.regular(path) as fd:
                return content_of(fd, most)
        except OSError:
            return None

    def digest(self, path: str) -> str | None:
        """As ``digest_of``; None where the file cannot be read."""
        try:
            with self.regular(path) as fd:
                return digest_of(fd)
        except OSError:
            return None


def read_all(fd: int, most: int) -> bytes | None:
    """The file from its start; None where it has more than ``most`` bytes. OSError."""
    parts: list[bytes] = []
    at = 0
    while at <= most:
        part = os.pread(fd, min(_CHUNK, most + 1 - at), at)
        if not part:
            return b"".join(parts)
        parts.append(part)
        at += len(part)
    return None


def digest_of(fd: int) -> str:
    """``sha256:…`` of a regular file, or ``too large`` with its size. OSError."""
    return content_of(fd, 0).digest


def content_of(fd: int, most: int) -> Content:
    """The digest and the first ``most`` bytes of a regular file, of one reading. OSError."""
    before = os.fstat(fd)
    hashed = sha256()
    head = bytearray()
    at = 0
    while part := os.pread(fd, _CHUNK, at):
        at += len(part)
        if len(head) < most:
            head += part[: most - len(head)]
        if at > MAX_HASHED:
            break
        hashed.update(part)
    after = os.fstat(fd)
    large = at > MAX_HASHED
    return Content(
        digest=f"too large: more than {MAX_HASHED} bytes"
        if large
        else f"sha256:{hashed.hexdigest()}",
        size=after.st_size if large else at,
        mode=before.st_mode & 0o7777,
        head=bytes(head),
        steady=(before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
        and (large or at == after.st_size),
    )
