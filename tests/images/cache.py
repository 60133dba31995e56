"""What was built once is kept by the hash of what it was built from.

`<cache>/images/<kind>-<hash>/` holds one finished product. It appears by one rename, so that it
is whole whenever it is there; one build of a kind runs at a time, others wait for it and then
find its product. A killed build leaves a `.tmp-` folder, which the next build of its kind removes.
"""

from __future__ import annotations

import ast
import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.images.errors import ImageError

KEEP = 4
"""Products kept of each kind: the newest used; older ones go when a new one is built."""

_SKIPPED_DIRS = frozenset({"__pycache__"})
_SKIPPED_SUFFIXES = frozenset({".pyc"})


def images_dir() -> Path:
    """`$TRAINSEAL_CACHE/images`, else `$XDG_CACHE_HOME/trainseal/images`, else in `~/.cache`."""
    own = os.environ.get("TRAINSEAL_CACHE")
    if own:
        return Path(own).absolute() / "images"
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "trainseal" / "images"


@dataclass(frozen=True, slots=True)
class Inputs:
    """Everything that decides what a build makes: named texts, files and trees."""

    parts: tuple[tuple[str, bytes], ...] = ()

    def text(self, name: str, value: str) -> Inputs:
        """These inputs and one more text."""
        return Inputs((*self.parts, (name, value.encode())))

    def file(self, name: str, path: Path) -> Inputs:
        """These inputs and the content of one file."""
        return Inputs((*self.parts, (name, path.read_bytes())))

    def code(self, path: Path) -> Inputs:
        """These inputs and what a Python module does: comments and layout do not count."""
        return self.text(path.name, ast.dump(ast.parse(path.read_bytes())))

    def tree(self, name: str, root: Path) -> Inputs:
        """These inputs and every file below `root`, by relative path and content.

        Byte code is left out: running the code must not change what it is.
        """
        found = [
            (f"{name}/{path.relative_to(root).as_posix()}", path.read_bytes())
            for path in sorted(root.rglob("*"))
            if path.is_file()
            and path.suffix not in _SKIPPED_SUFFIXES
            and not _SKIPPED_DIRS.intersection(path.relative_to(root).parts)
        ]
        return Inputs((*self.parts, *found))

    @property
    def digest(self) -> str:
        """20 hex digits; different parts, names or order give another digest."""
        whole = hashlib.sha256()
        for name, value in self.parts:
            # Lengths in front keep ("ab", "c") and ("a", "bc") apart.
            whole.update(f"{len(name.encode())}:{len(value)}:".encode())
            whole.update(name.encode())
            whole.update(value)
        return whole.hexdigest()[:20]


def product(kind: str, inputs: Inputs, build: Callable[[Path], None]) -> Path:
    """The folder that `build` filled from these inputs; built now unless it is there already."""
    root = images_dir()
    final = root / f"{kind}-{inputs.digest}"
    if final.is_dir():
        _mark_used(final)
        return final
    with locked(root / f".{kind}.lock"):
        if final.is_dir():
            return final
        for stale in root.glob(f".tmp-{kind}-*"):
            discard(stale)
        work = Path(tempfile.mkdtemp(prefix=f".tmp-{kind}-", dir=root))
        # mkdtemp gives 0700; the root of a root filesystem made here must be readable.
        work.chmod(0o755)
        try:
            build(work)
        except BaseException:
            # What cannot be removed now goes with the next build; the first error matters.
            with contextlib.suppress(OSError, ImageError):
                discard(work)
            raise
        work.rename(final)
        _mark_used(final)
        _prune(root, kind)
    return final


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`, waiting for it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def discard(folder: Path) -> None:
    """Remove a folder that a build left; raises ImageError where something is mounted in it."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    # Removing through a mount would remove what is not ours.
    if held := sorted(path for path in mounts if f"{path}/".startswith(f"{folder}/")):
        raise ImageError(
            f"cannot clear up {folder}: something is mounted in it",
            expected="no mount below it",
            action=f"umount {' '.join(reversed(held))}",
        )
    shutil.rmtree(folder)


def _mark_used(folder: Path) -> None:
    os.utime(folder)


def _prune(root: Path, kind: str) -> None:
    """Remove all but the KEEP last used products of a kind; its lock is held."""
    products = sorted(
        root.glob(f"{kind}-*"), key=lambda folder: folder.stat().st_mtime_ns, reverse=True
    )
    for old in products[KEEP:]:
        shutil.rmtree(old, ignore_errors=True)
