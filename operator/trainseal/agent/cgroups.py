"""Where the kubelet puts pods among the control groups, and word of new ones as they are made.

A pod's group is a folder named after its UID (``pod<UID>``, or with systemd as driver
``…-pod<UID with underscores>.slice``) in one of the kubelet's groups by quality of service; each of
its containers has a folder of its own in it, named after the container's id. The runtime makes that
folder before the container's first process starts, and inotify tells of it: seconds before the
kubelet says the same in the pod's status.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

_CONTAINER = re.compile(r"(?:^|[-:])([0-9a-f]{64})(?:\.scope)?$")
_POD = re.compile(r"(?:^|-)pod([0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12})(?:\.slice)?$")
_KUBEPODS = re.compile(r"kubepods(\.slice)?$")
_QUALITY = re.compile(r"(kubepods-)?(burstable|besteffort|guaranteed)(\.slice)?$")
#: How deep below the mount the kubelet's group is looked for (its ``cgroupRoot``).
_DEEPEST = 4

_IN_CREATE = 0x00000100
_IN_ISDIR = 0x40000000
_IN_ONLYDIR = 0x01000000
_IN_Q_OVERFLOW = 0x00004000
_EVENT = struct.Struct("iIII")


class CgroupError(RuntimeError):
    """The control groups cannot be read as they must be; the words say what to do."""


def hierarchy(mount: Path) -> Path:
    """The hierarchy that is looked at: the v1 freezer's where there is one, else version 2.

    Raises CgroupError where ``mount`` holds neither.
    """
    for folder in (mount / "freezer", mount, mount / "unified"):
        if (folder / "cgroup.procs").exists():
            return folder
    raise CgroupError(
        f"{mount}: found no control groups, expected the node's /sys/fs/cgroup; mount it there "
        "(the chart does) or name it with --cgroups"
    )


def pod_parents(top: Path) -> list[Path]:
    """The kubelet's folders that pods' groups are made in."""
    found = []
    for folder in _kubepods(top, _DEEPEST):
        found.append(folder)
        found += [f for f in _folders(folder) if _QUALITY.match(f.name)]
    return found


def pod_uid_of(folder: str) -> str | None:
    """The UID of the pod that a folder of this name belongs to."""
    match = _POD.search(folder)
    return match[1].replace("_", "-") if match else None


def container_id_of(folder: str) -> str | None:
    """The id of the container that a folder of this name belongs to."""
    match = _CONTAINER.search(folder)
    # CRI-O's monitor of a container has a group of its own beside it.
    return match[1] if match and "conmon" not in folder else None


def containers_in(pod: Path) -> dict[str, Path]:
    """Ids and folders of the containers in a pod's group; none once it is gone."""
    found = {}
    for folder in _folders(pod):
        name = container_id_of(folder.name)
        if name:
            found[name] = folder
    return found


def processes_in(group: Path) -> list[int]:
    """Pids in a group itself; none once it is gone."""
    try:
        return [int(line) for line in (group / "cgroup.procs").read_text().split()]
    except (OSError, ValueError):
        return []


def _kubepods(folder: Path, depth: int) -> Iterator[Path]:
    for child in _folders(folder):
        if _KUBEPODS.fullmatch(child.name):
            yield child
        elif depth > 1 and not container_id_of(child.name):
            yield from _kubepods(child, depth - 1)


def _folders(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(e.path) for e in entries if e.is_dir(follow_symlinks=False)]
    except OSError:
        return []


class FolderWatch:
    """Tells of folders made in watched folders; readable (``fileno``) when there is news."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            raise _os_error("inotify_init1", "")
        self._folders: dict[int, Path] = {}

    def fileno(self) -> int:
        """For the event loop."""
        return int(self._fd)

    def add(self, folder: Path) -> None:
        """Watches a folder. One that is gone is passed over; raises OSError for all else."""
        number = self._libc.inotify_add_watch(
            self._fd, os.fsencode(folder), ctypes.c_uint32(_IN_CREATE | _IN_ONLYDIR)
        )
        if number >= 0:
            self._folders[number] = folder
            return
        with contextlib.suppress(FileNotFoundError):
            raise _os_error("inotify_add_watch", str(folder))

    def read(self) -> tuple[list[Path], bool]:
        """New folders, and whether some were lost (then everything is to be looked at again)."""
        found, lost = [], False
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return [], False
        offset = 0
        while offset < len(data):
            number, mask, _, length = _EVENT.unpack_from(data, offset)
            offset += _EVENT.size
            name = data[offset : offset + length].rstrip(b"\0")
            offset += length
            if mask & _IN_Q_OVERFLOW:
                lost = True
            elif mask & _IN_CREATE and mask & _IN_ISDIR and number in self._folders:
                found.append(self._folders[number] / os.fsdecode(name))
            elif number in self._folders and not mask & _IN_CREATE:
                del self._folders[number]  # the folder is gone (IN_IGNORED)
        return found, lost

    def close(self) -> None:
        """Ends the watch."""
        os.close(self._fd)


def _os_error(call: str, path: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{call}: {os.strerror(number)}", path)
