"""Writing a tree that is compared with its manifest while it is written.

The tree grows in a directory ``.trainseal-partial`` within the target and its top entries are
renamed into the target only when all of it equals the manifest: so a target never holds a tree
that was not compared as a whole, whoever looks at the volume and however the gate ends. (Renaming
within one volume copies nothing; writing into the target itself would leave refused files there,
and a second volume would need twice the space.)

No path is ever resolved by the kernel: each directory is made and opened relative to the one above
with O_NOFOLLOW, each file with O_EXCL. Files are 0444, or 0555 where the tar says executable;
directories 0755: any trainer user can read, and mounts are read-only for everyone but the gate.
"""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Self

from trainseal.gate.outcomes import RefusedError, UndeterminedError
from trainseal.gate.tar_stream import Member
from trainseal.provenance.manifests import Difference, DifferenceKind, TreeManifest, compare
from trainseal.provenance.tree_paths import shown
from trainseal.registry.tree_files import (
    IgnoreRules,
    TreeFilesError,
    hash_files,
    list_files,
)

PARTIAL = ".trainseal-partial"
MAX_TREE_BYTES = 64 * 1024 * 1024 * 1024

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_RESIGN = "sign and push the code again, or find out who changed it"


@dataclass(frozen=True, slots=True)
class Bounds:
    """The most bytes of one file and of the whole tree; files are bounded by the manifest."""

    file_bytes: int = MAX_TREE_BYTES
    tree_bytes: int = MAX_TREE_BYTES


class TreeWriter:
    """One tree being written into ``target``, which ``already_placed`` found empty.

    Use as a context manager, then ``place``.

    Memory: the manifest, and nothing that grows with file sizes.
    """

    def __init__(self, target: Path, manifest: TreeManifest, bounds: Bounds | None = None) -> None:
        self._target_path = target
        self._manifest = manifest
        self._signed = manifest.digests
        self._bounds = bounds or Bounds()
        self._written: dict[str, str] = {}
        self.bytes_written = 0

    def __enter__(self) -> Self:
        self._target = open_target(self._target_path)
        try:
            os.mkdir(PARTIAL, 0o700, dir_fd=self._target)
            self._root = os.open(PARTIAL, _DIRECTORY, dir_fd=self._target)
        except BaseException:
            os.close(self._target)
            raise
        self._at_path = ""
        self._at = os.dup(self._root)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            os.close(self._at)
            os.close(self._root)
            _remove(self._target, PARTIAL)
        finally:
            os.close(self._target)

    async def write(self, member: Member, content: AsyncIterator[bytes | memoryview]) -> None:
        """Writes one file and compares it. Raises RefusedError naming it."""
        signed = self._signed.get(member.path)
        if signed is None:
            raise refusal(Difference(member.path, DifferenceKind.EXTRA))
        if member.path in self._written:
            raise RefusedError(
                shown(member.path),
                "the layers hold it twice",
                expected="each file once",
                remedy="push the code again with trainseal sign code",
            )
        self.bytes_written += member.size
        if member.size > self._bounds.file_bytes or self.bytes_written > self._bounds.tree_bytes:
            raise RefusedError(
                shown(member.path),
                f"{member.size} bytes, {self.bytes_written} with the files before it",
                expected=f"at most {self._bounds.file_bytes} bytes a file and"
                f" {self._bounds.tree_bytes} in all",
                remedy="keep data out of the code, in a dataset of its own",
            )
        directory, _, name = member.path.rpartition("/")
        descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=self._directory(directory))
        try:
            hasher = sha256()
            async for chunk in content:
                hasher.update(chunk)
                write_all(descriptor, chunk)
            found = hasher.hexdigest()
            if found != signed:
                raise refusal(Difference(member.path, DifferenceKind.CHANGED, signed, found))
            os.fchmod(descriptor, 0o555 if member.executable else 0o444)
        finally:
            os.close(descriptor)
        self._written[member.path] = found

    def place(self) -> None:
        """Moves the tree into the target. Raises RefusedError where a signed file is missing."""
        for difference in compare(self._manifest, self._written):
            raise refusal(difference)
        for name in sorted(_names(self._root)):
            os.rename(name, name, src_dir_fd=self._root, dst_dir_fd=self._target)

    @property
    def files_written(self) -> int:
        """Files written and found as signed."""
        return len(self._written)

    def _directory(self, path: str) -> int:
        """A descriptor of this directory of the tree, made where it is not there yet."""
        if path != self._at_path:
            at = os.dup(self._root)
            try:
                for part in path.split("/") if path else ():
                    below = _make_directory(at, part)
                    os.close(at)
                    at = below
            except BaseException:
                os.close(at)
                raise
            os.close(self._at)
            self._at, self._at_path = at, path
        return self._at


def already_placed(target: Path, manifest: TreeManifest) -> bool:
    """Whether the target holds exactly this tree; False where it is empty.

    A gate may be run again on its own volume (init containers may be). Raises RefusedError where
    anything else is there.
    """
    descriptor = open_target(target)
    try:
        _remove(descriptor, PARTIAL)
        if not _names(descriptor):
            return False
    finally:
        os.close(descriptor)
    try:
        observed = hash_files(target, list_files(target, IgnoreRules(())))
    except TreeFilesError as error:
        raise RefusedError(str(target), f"the volume is not empty: {error}", **_FRESH) from None
    for difference in compare(manifest, observed):
        raise RefusedError(str(target), f"the volume is not empty: {difference}", **_FRESH)
    return True


_FRESH = {
    "expected": "an empty volume, or this very tree",
    "remedy": "let the controller make the pod anew",
}


def refusal(difference: Difference) -> RefusedError:
    """The difference as the gate's refusal."""
    name = shown(difference.path)
    match difference.kind:
        case DifferenceKind.CHANGED:
            return RefusedError(
                name,
                f"changed: found sha256:{difference.found}",
                expected=f"sha256:{difference.signed} as signed",
                remedy=_RESIGN,
            )
        case DifferenceKind.MISSING:
            return RefusedError(
                name,
                "missing: no layer holds it",
                expected="every file that the signed manifest lists",
                remedy=_RESIGN,
            )
        case DifferenceKind.EXTRA:
            return RefusedError(
                name,
                "extra: the signed manifest does not list it",
                expected="signed files only",
                remedy=_RESIGN,
            )


def open_target(target: Path) -> int:
    """A descriptor of a target directory. Raises UndeterminedError where it is none."""
    try:
        return os.open(target, _DIRECTORY)
    except OSError as error:
        raise UndeterminedError(
            str(target),
            f"cannot be opened as a directory ({error.strerror})",
            expected="a volume mounted there",
            remedy="look at the gate container's mounts",
        ) from None


@contextmanager
def new_file(directory: int, name: str) -> Iterator[int]:
    """A descriptor to write ``name`` through; it appears whole and read-only, or not at all."""
    partial = f"{PARTIAL}-{name}"
    _remove(directory, partial)
    descriptor = os.open(partial, _NEW_FILE, 0o600, dir_fd=directory)
    try:
        yield descriptor
        os.fchmod(descriptor, 0o444)
        os.rename(partial, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        _remove(directory, partial)
        raise
    finally:
        os.close(descriptor)


def write_all(descriptor: int, content: bytes | memoryview) -> None:
    """Writes all of it, however little the kernel takes at once."""
    left = memoryview(content)
    while left:
        left = left[os.write(descriptor, left) :]


def _make_directory(above: int, name: str) -> int:
    try:
        os.mkdir(name, 0o700, dir_fd=above)
    except FileExistsError:
        return os.open(name, _DIRECTORY, dir_fd=above)
    below = os.open(name, _DIRECTORY, dir_fd=above)
    os.fchmod(below, 0o755)  # not left to the umask
    return below


def _names(directory: int) -> list[str]:
    with os.scandir(directory) as entries:
        return [entry.name for entry in entries]


def _remove(directory: int, name: str) -> None:
    """Removes our own leftovers, following no link."""
    try:
        mode = os.stat(name, dir_fd=directory, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        os.unlink(name, dir_fd=directory)
        return
    below = os.open(name, _DIRECTORY, dir_fd=directory)
    try:
        for entry in _names(below):
            _remove(below, entry)
    finally:
        os.close(below)
    os.rmdir(name, dir_fd=directory)
