"""fanotify(7) by ctypes: groups, marks, and what the kernel writes when a group is read.

``decode`` is pure: bytes in, values out. Event descriptors belong to who reads: ``Group.taken``
closes them when its block ends. Constants are those of include/uapi/linux/fanotify.h.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from trainseal.agent.files import open_beneath

MODIFY = 0x2
ATTRIB = 0x4
CLOSE_WRITE = 0x8
CREATE = 0x100
DELETE = 0x200
OPEN_EXEC = 0x1000
Q_OVERFLOW = 0x4000
EVENT_ON_CHILD = 0x0800_0000
RENAME = 0x1000_0000
ONDIR = 0x4000_0000

_MARK_ADD = 0x1
_MARK_IGNORED_MASK = 0x20
_MARK_IGNORED_SURV_MODIFY = 0x40
MARK_INODE = 0x0
MARK_MOUNT = 0x10
MARK_FILESYSTEM = 0x100

_CLOEXEC = 0x1
_NONBLOCK = 0x2
_UNLIMITED_MARKS = 0x20
_REPORT_FID = 0x200
_REPORT_DFID_NAME = 0xC00
_AT_EMPTY_PATH = 0x1000
_AT_HANDLE_FID = 0x200
_MAX_HANDLE = 128

_HEAD = struct.Struct("=IBBHQii")  # event_len, version, reserved, metadata_len, mask, fd, pid
_INFO = struct.Struct("=BBH")  # info_type, pad, len
_HANDLE = struct.Struct("=8sIi")  # fsid, handle_bytes, handle_type
_VERSION = 3
_NAMED = 2
_NAMED_OLD = 10
_NAMED_NEW = 12
#: One read takes at most this many bytes: it bounds the descriptors that are open at a time.
READ_BYTES = 6144

_libc = ctypes.CDLL(None, use_errno=True)
_libc.fanotify_init.argtypes = [ctypes.c_uint, ctypes.c_uint]
_libc.fanotify_mark.argtypes = [
    ctypes.c_int,
    ctypes.c_uint,
    ctypes.c_uint64,
    ctypes.c_int,
    ctypes.c_char_p,
]


class DecodeError(ValueError):
    """Bytes that no kernel of this interface version writes. ``events`` came before them."""

    def __init__(self, message: str, events: list[Event]) -> None:
        super().__init__(message)
        self.events = events


@dataclass(frozen=True, slots=True)
class Named:
    """A name in a directory; the directory as ``directory_key`` gives it."""

    directory: bytes
    name: str


@dataclass(frozen=True, slots=True)
class Event:
    """One event. ``fd`` is negative where the group reports names instead of descriptors.

    ``old`` and ``new`` are set for RENAME, as far as their directories are marked.
    """

    mask: int
    fd: int
    pid: int
    named: Named | None = None
    old: Named | None = None
    new: Named | None = None


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What this kernel gives the agent; ``lacking`` says in words what it does not."""

    files: bool
    names: bool
    safe_open: bool
    lacking: tuple[str, ...] = ()


def decode(data: bytes) -> list[Event]:
    """The events in what one read gave. Raises DecodeError."""
    events: list[Event] = []
    at = 0
    while at < len(data):
        if len(data) - at < _HEAD.size:
            raise DecodeError(f"{len(data) - at} bytes left, an event has {_HEAD.size}", events)
        size, version, _, head, mask, fd, pid = _HEAD.unpack_from(data, at)
        if version != _VERSION:
            raise DecodeError(f"interface version {version}, expected {_VERSION}", events)
        if not _HEAD.size <= head <= size <= len(data) - at:
            raise DecodeError(f"an event of {size} bytes with a head of {head}", events)
        if size == head:
            events.append(Event(mask, fd, pid))
        else:
            try:
                found = _records(data[at + head : at + size])
            except ValueError as error:
                if fd >= 0:
                    events.append(Event(mask, fd, pid))
                raise DecodeError(str(error), events) from None
            events.append(
                Event(
                    mask, fd, pid, found.get(_NAMED), found.get(_NAMED_OLD), found.get(_NAMED_NEW)
                )
            )
        at += size
    return events


def _records(data: bytes) -> dict[int, Named]:
    found: dict[int, Named] = {}
    at = 0
    while at < len(data):
        if len(data) - at < _INFO.size:
            raise ValueError("an information record is cut off")
        kind, _, size = _INFO.unpack_from(data, at)
        if not _INFO.size <= size <= len(data) - at:
            raise ValueError(f"an information record of {size} bytes")
        if kind in (_NAMED, _NAMED_OLD, _NAMED_NEW):
            found[kind] = _named(data[at + _INFO.size : at + size])
        at += size
    return found


def _named(data: bytes) -> Named:
    if len(data) < _HANDLE.size:
        raise ValueError("a file handle is cut off")
    fsid, size, kind = _HANDLE.unpack_from(data)
    end = _HANDLE.size + size
    if size > _MAX_HANDLE or end > len(data):
        raise ValueError(f"a file handle of {size} bytes")
    name, _, _ = data[end:].partition(b"\0")
    return Named(_key(fsid, kind, data[_HANDLE.size : end]), os.fsdecode(name))


def _key(fsid: bytes, kind: int, handle: bytes) -> bytes:
    return fsid + struct.pack("=i", kind) + handle


def directory_key(fd: int) -> bytes:
    """What a directory is called in events: file system id, handle type and handle.

    Handles for identification only (AT_HANDLE_FID, Linux 6.5): overlays give no others. OSError.
    """
    handle = ctypes.create_string_buffer(8 + _MAX_HANDLE)
    struct.pack_into("=I", handle, 0, _MAX_HANDLE)
    mount = ctypes.c_int()
    flags = _AT_EMPTY_PATH | _AT_HANDLE_FID
    if _libc.name_to_handle_at(fd, b"", handle, ctypes.byref(mount), flags) < 0:
        raise _failure("name_to_handle_at")
    size, kind = struct.unpack_from("=Ii", handle)
    return _key(_fsid(fd), kind, handle.raw[8 : 8 + size])


def _fsid(fd: int) -> bytes:
    # struct statfs, 64 bits: f_fsid follows seven words.
    answer = ctypes.create_string_buffer(256)
    if _libc.fstatfs(fd, answer) < 0:
        raise _failure("fstatfs")
    return answer.raw[56:64]


def _failure(call: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}")


class Group:
    """A fanotify group: marks, and one queue of events. Non-blocking, closed on exec."""

    def __init__(self, *, names: bool) -> None:
        """``names``: report directory handles and names instead of descriptors. OSError."""
        flags = _CLOEXEC | _NONBLOCK | _UNLIMITED_MARKS
        if names:
            flags |= _REPORT_FID | _REPORT_DFID_NAME
        opening = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
        self._fd: int = _libc.fanotify_init(flags, opening | getattr(os, "O_LARGEFILE", 0))
        if self._fd < 0:
            raise _failure("fanotify_init")

    def fileno(self) -> int:
        """For select, poll and event loops."""
        return self._fd

    def mark(self, kind: int, mask: int, fd: int) -> None:
        """Marks what ``fd`` is open on; ``kind`` is MARK_INODE, _MOUNT or _FILESYSTEM. OSError."""
        if _libc.fanotify_mark(self._fd, _MARK_ADD | kind, mask, fd, None) < 0:
            raise _failure("fanotify_mark")

    def ignore(self, mask: int, fd: int) -> None:
        """No longer reports these events of the one file ``fd`` is open on. OSError."""
        flags = _MARK_ADD | _MARK_IGNORED_MASK | _MARK_IGNORED_SURV_MODIFY
        if _libc.fanotify_mark(self._fd, flags, mask, fd, None) < 0:
            raise _failure("fanotify_mark")

    @contextmanager
    def taken(self) -> Iterator[list[Event]]:
        """The next events, none where the queue is empty; their descriptors end with the block.

        OSError where the kernel could not open an event's file: that event is lost. DecodeError.
        """
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            data = b""
        events: list[Event] = []
        try:
            try:
                events = decode(data)
            except DecodeError as error:
                events = error.events
                raise
            yield events
        finally:
            for event in events:
                if event.fd >= 0:
                    with suppress(OSError):
                        os.close(event.fd)

    def close(self) -> None:
        """Ends the group with all its marks. Twice is fine."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def probe() -> Capabilities:
    """Tries what the agent wants of the kernel, once at its start."""
    lacking: list[str] = []
    files = _works(lacking, _try_files, "writes and executions are not seen as they happen")
    names = _works(lacking, _try_names, "names made, moved or removed are found by walking only")
    return Capabilities(
        files=files,
        names=names,
        safe_open=_works(lacking, _try_open, "files of containers are not read for evidence"),
        lacking=tuple(lacking),
    )


def _works(lacking: list[str], attempt: Callable[[], None], without: str) -> bool:
    try:
        attempt()
    except OSError as error:
        lacking.append(f"{without}: {_why(error)}")
        return False
    return True


def _why(error: OSError) -> str:
    if error.errno == errno.EPERM:
        return f"{error.strerror} (the agent needs CAP_SYS_ADMIN)"
    if error.errno in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
        return f"{error.strerror} (kernel {os.uname().release} is too old)"
    return str(error.strerror)


def _try_files() -> None:
    with _root() as root:
        _tried(root, names=False, kind=MARK_FILESYSTEM, mask=MODIFY | CLOSE_WRITE | OPEN_EXEC)


def _try_names() -> None:
    with _root() as root:
        directory_key(root)
        mask = CREATE | DELETE | RENAME | ATTRIB | ONDIR | EVENT_ON_CHILD
        _tried(root, names=True, kind=MARK_INODE, mask=mask)


def _try_open() -> None:
    with _root() as root:
        os.close(open_beneath(root, ".", os.O_PATH))


def _tried(root: int, *, names: bool, kind: int, mask: int) -> None:
    group = Group(names=names)
    try:
        group.mark(kind, mask, root)
    finally:
        group.close()


@contextmanager
def _root() -> Iterator[int]:
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
