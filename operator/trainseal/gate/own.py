"""The run's own checkpoints, when a worker is tried again or a suspended run goes on.

A checkpoint is a directory right below the mount that holds the job's marker somewhere: only such
a one is whole, and the job says by its marker that it takes no other. Each of its files is as the
list says that the controller signed (``provenance.signedfiles``):

1. Of the size and with the ctime of its manifest, which no program can set: it is not read again.
2. Else it is read, and its digest is the manifest's.
3. One that no manifest lists, or lists otherwise, may have been written a moment ago by a worker
   that trains: its manifest is waited for. Where none comes that is *undetermined*: the pod ends,
   and another is tried later.
4. One of which the watch has found that no trainer wrote it is *refuted*, and so is a link.

Nothing whole is there at a run's first start, and then nothing is asked for.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path, PurePosixPath

from trainseal.api.gateplan import PlannedOwn
from trainseal.gate.outcomes import GateError, RefusedError, UndeterminedError
from trainseal.provenance.keyrings import KeyringEntry, UntrustedError, read_time
from trainseal.provenance.keys import load_public_key
from trainseal.provenance.signedfiles import MAX_TEXT, SignedFile, read
from trainseal.provenance.tree_paths import shown

#: Seconds in which the kubelet brings a list that the controller has signed just now.
PATIENCE, PAUSE = 180.0, 5.0
_CHUNK = 1024 * 1024
_MOST_NAMES = 20_000
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DO = "take the checkpoint's directory away to go on from an earlier one, or start anew"
_EARLY = "1970-01-01T00:00:00Z"

Sleep = Callable[[float], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class _Found:
    """A file of a checkpoint: its name in the mount, and what it is."""

    path: str
    status: os.stat_result


@dataclass(slots=True)
class OwnFiles:
    """Looks at them, again and again; what was read once and has not changed is not read again."""

    plan: PlannedOwn
    #: By path: size and ctime, and the digest.
    _read: dict[str, tuple[int, int, str]] = field(default_factory=dict)

    async def check(self, sleep: Sleep) -> int:
        """The number of files that were compared. Raises RefusedError, UndeterminedError."""
        left = PATIENCE
        while True:
            try:
                return self._look()
            except UndeterminedError as error:
                if left <= 0:
                    raise
                if left == PATIENCE:
                    sys.stderr.write(f"trainseal gate: waiting: {error}\n")
            left -= PAUSE
            await sleep(PAUSE)

    def _look(self) -> int:
        try:
            whole = list(_whole(self.plan))
            if not whole:
                return 0
            signed = self._list()
            for found in whole:
                self._compared(found, signed.get(found.path))
        except OSError as error:
            raise UndeterminedError(
                f"checkpoint {shown(str(error.filename or self.plan.source))}",
                f"cannot be read ({error.strerror or type(error).__name__})",
                expected="files that user 65532 may read, on a volume that answers",
                remedy="look at the files' modes (the trainer's umask) and at the volume",
            ) from None
        return len(whole)

    def _list(self) -> dict[str, SignedFile]:
        key = load_public_key(self.plan.key)
        ring = {key.id: KeyringEntry(key, read_time(_EARLY))}
        try:
            with Path(self.plan.signed).open("rb") as file:
                text = file.read(MAX_TEXT + 1).decode("ascii", "replace")
            return read(ring, self.plan.namespace, self.plan.run, text)
        except FileNotFoundError:
            return {}
        except UntrustedError as error:
            raise UndeterminedError(
                "the list of the run's checkpoints",
                str(error),
                expected="the operator's signature over what this run has written",
                remedy="find out who changed the ConfigMap; the controller writes it anew",
            ) from None

    def _compared(self, found: _Found, signed: SignedFile | None) -> None:
        """Raises where it is not as the list says."""
        name, status = f"checkpoint file {shown(found.path)}", found.status
        if signed is None:
            raise UndeterminedError(
                name, "no signed manifest lists it", expected="one, within minutes", remedy=_DO
            )
        if signed.barred:
            raise RefusedError(
                name,
                "written by somebody who is not the trainer, as the watch has found",
                expected="what the trainer wrote",
                remedy=f"see `trainseal drift`; {_DO}",
            )
        if (status.st_size, status.st_ctime_ns // 1000) == (signed.size, signed.changed):
            return
        if signed.digest is None:
            raise UndeterminedError(
                name,
                "changed since its manifest, which has no digest",
                expected=f"{signed.size} bytes, as the trainer left them",
                remedy=_DO,
            )
        digest = self._digest(found)
        if digest != signed.digest:
            raise UndeterminedError(
                name,
                f"changed: found {digest}",
                expected=f"{signed.digest} as its manifest says, or a newer manifest",
                remedy=_DO,
            )

    def _digest(self, found: _Found) -> str:
        stamp = found.status.st_size, found.status.st_ctime_ns
        known = self._read.get(found.path)
        if known is not None and known[:2] == stamp:
            return known[2]
        hasher = sha256()
        top = os.open(self.plan.source, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            # No part of the name is a link: the walk went through none.
            descriptor = os.open(found.path, _FILE, dir_fd=top)
        finally:
            os.close(top)
        with os.fdopen(descriptor, "rb", buffering=0) as file:
            while chunk := file.read(_CHUNK):
                hasher.update(chunk)
        digest = f"sha256:{hasher.hexdigest()}"
        self._read[found.path] = (*stamp, digest)
        return digest


def _whole(plan: PlannedOwn) -> Iterator[_Found]:
    """The files of each directory that holds the marker. Raises GateError, OSError."""
    names = 0
    with os.scandir(plan.source) as entries:
        tops = sorted(entries, key=lambda entry: entry.name)
    for top in tops:
        if top.is_symlink():
            _check_link(plan, top.name)
        if not top.is_dir(follow_symlinks=False):
            continue
        files: list[_Found] = []
        links: list[str] = []
        for folder, folders, plain, at in os.fwalk(top.path, onerror=_raise, follow_symlinks=False):
            below = os.path.relpath(folder, plan.source)
            for name in [*plain, *folders]:
                status = os.lstat(name, dir_fd=at)
                if stat.S_ISDIR(status.st_mode):
                    continue
                names += 1
                path = f"{below}/{name}"
                if names > _MOST_NAMES:
                    raise UndeterminedError(
                        "checkpoints", f"more than {_MOST_NAMES} files", expected="fewer"
                    )
                if stat.S_ISREG(status.st_mode):
                    files.append(_Found(path, status))
                else:
                    links.append(path)
        if not any(file.path.rpartition("/")[2] == plan.marker for file in files):
            continue
        if links:
            raise _no_file(links[0])
        yield from files


def _check_link(plan: PlannedOwn, name: str) -> None:
    """A link beside the checkpoints (`latest`) leads to something in the mount, by no other link
    that is not looked at here itself.
    """
    target = os.readlink(f"{plan.source}/{name}")  # noqa: PTH115 text only
    parts = PurePosixPath(target.removeprefix(f"{plan.mount_path.rstrip('/')}/")).parts
    leads = [f"{plan.source}/{'/'.join(parts[:n])}" for n in range(2, len(parts) + 1)]
    if not parts or parts[0] == "/" or ".." in parts or any(map(os.path.islink, leads)):
        raise _no_file(name)


def _no_file(path: str) -> GateError:
    return RefusedError(
        f"checkpoint file {shown(path)}",
        "a link, or no plain file",
        expected="a file in the checkpoint itself",
        remedy=_DO,
    )


def _raise(error: OSError) -> None:
    raise error
