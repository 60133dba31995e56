"""A checkpoint that the run goes on from: each file compared with its digest, nothing copied.

It is tens of gigabytes on a volume that others may write to, so it is read where it lies. What is
changed there after the gate has read it is for the watch to find.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from hashlib import sha256

from trainseal.api.gateplan import PlannedResume
from trainseal.gate.outcomes import RefusedError, UndeterminedError
from trainseal.provenance.tree_paths import shown

#: Never waits for a writer, should somebody have put a pipe there.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK = 1024 * 1024
#: Names that are looked at for what does not belong there.
_MOST_NAMES = 20_000
_WHO = "find out who changed it, and go on from another checkpoint, or start anew"


def check_resumed(plan: PlannedResume) -> int:
    """The number of bytes that were compared. Raises RefusedError, UndeterminedError."""
    wanted = {file.path: file.digest for file in plan.files}
    try:
        found = dict(_walk(plan, wanted))
    except OSError as error:
        raise _unreadable(plan.source, error) from None
    missing = sorted(wanted.keys() - found.keys())
    if missing:
        raise RefusedError(
            f"checkpoint file {shown(missing[0])}",
            f"missing ({len(missing)} of {len(wanted)} are)",
            expected=f"{wanted[missing[0]]} as its manifest says",
            remedy=_WHO,
        )
    return sum(found.values())


def _walk(plan: PlannedResume, wanted: dict[str, str]) -> Iterator[tuple[str, int]]:
    """Path and size of each file that is wanted and is as it should be."""
    names, source = 0, plan.source
    for folder, folders, files, at in os.fwalk(source, onerror=_raise, follow_symlinks=False):
        below = os.path.relpath(folder, source)
        for name in [*files, *(f for f in folders if _is_link(f, at))]:
            names += 1
            if names > _MOST_NAMES:
                raise UndeterminedError(
                    "checkpoint",
                    f"more than {_MOST_NAMES} files",
                    expected="a directory of its own",
                )
            path = name if below == "." else f"{below}/{name}"
            if path in wanted:
                yield path, _compared(path, name, at, wanted[path])
            elif plan.whole:
                raise RefusedError(
                    f"checkpoint file {shown(path)}",
                    "no manifest lists it",
                    expected="what the run wrote, and nothing beside it",
                    remedy=_WHO,
                )


def _compared(path: str, name: str, at: int, wanted: str) -> int:
    try:
        descriptor = os.open(name, _FILE, dir_fd=at)
    except OSError as error:
        if _is_link(name, at):
            raise RefusedError(
                f"checkpoint file {shown(path)}", "a link", expected="a file", remedy=_WHO
            ) from None
        raise _unreadable(path, error) from None
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise RefusedError(
                f"checkpoint file {shown(path)}", "no plain file", expected="a file", remedy=_WHO
            )
        hasher, size = sha256(), 0
        try:
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
                size += len(chunk)
        except OSError as error:
            raise _unreadable(path, error) from None
    found = f"sha256:{hasher.hexdigest()}"
    if found != wanted:
        raise RefusedError(
            f"checkpoint file {shown(path)}",
            f"changed: found {found}",
            expected=f"{wanted} as its manifest says",
            remedy=_WHO,
        )
    return size


def _is_link(name: str, at: int) -> bool:
    return stat.S_ISLNK(os.lstat(name, dir_fd=at).st_mode)


def _raise(error: OSError) -> None:
    raise error


def _unreadable(path: str, error: OSError) -> UndeterminedError:
    return UndeterminedError(
        f"checkpoint {shown(path)}",
        f"cannot be read ({error.strerror or type(error).__name__})",
        expected="files that user 65532 may read, on a volume that answers",
        remedy="look at the files' modes (the trainer's umask) and at the volume",
    )
