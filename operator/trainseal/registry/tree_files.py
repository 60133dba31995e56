"""A work tree on disk: which files belong to it, and their digests.

No link is ever followed: each part of a path is opened relative to the directory above it with
O_NOFOLLOW, so that neither a link in the tree nor one slipped in between listing and reading leads
out of it. What is not a plain file or directory is refused by name rather than left out: a tree
that silently lacks a file is a surprise at run time.

What is left out on purpose: ``DEFAULT_IGNORES`` and the patterns in ``.trainsealignore`` at the
tree's top (itself an ordinary file of the tree). The syntax is the common part of gitignore's:

* one pattern a line; empty lines and lines with ``#`` first mean nothing;
* a pattern with ``/`` at its start or inside is relative to the tree's top, any other matches a
  file or directory of that name at any depth; with ``/`` at its end it matches directories only;
* ``*`` and ``?`` do not cross ``/``; ``**`` as a whole part does;
* ``!`` and ``[`` are refused: better no pattern than one read differently.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from threading import Lock

from trainseal.provenance.tree_paths import TreePathError, check_path, check_paths, path_key, shown

IGNORE_FILE = ".trainsealignore"

#: Caches and environments, and what model_signing never looks at (so that its verifier, which
#: leaves these out of the tree it observes, agrees with our manifests).
DEFAULT_IGNORES = (
    ".git",
    "/.gitattributes",
    "/.github/",
    "/.gitignore",
    "__pycache__/",
    "*.pyc",
    ".venv/",
)

MAX_IGNORE_BYTES = 64 * 1024
MAX_PATTERNS = 1024
READ_BYTES = 1024 * 1024

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# O_NONBLOCK: opening a pipe that took a file's place must fail, not wait.
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


class TreeFilesError(ValueError):
    """The tree cannot be taken as it is; the message names the file and what to do."""


@dataclass(frozen=True, slots=True)
class TreeFile:
    """One file: path within the tree (``/`` between parts), size in bytes, executable by anyone."""

    path: str
    size: int
    executable: bool


class IgnoreRules:
    """Compiled ignore patterns. Raises TreeFilesError for a pattern that is not supported."""

    def __init__(self, patterns: Iterable[str]) -> None:
        wanted = [p for line in patterns if (p := line.strip()) and not p.startswith("#")]
        if len(wanted) > MAX_PATTERNS:
            raise TreeFilesError(
                f"{len(wanted)} ignore patterns; expected at most {MAX_PATTERNS}; use wider ones"
            )
        anything = [_translate(p.rstrip("/")) for p in wanted if not p.endswith("/")]
        directories = [_translate(p.rstrip("/")) for p in wanted]
        self._files = re.compile("|".join(anything) or r"(?!)")
        self._directories = re.compile("|".join(directories) or r"(?!)")

    @classmethod
    def of(cls, directory: Path) -> IgnoreRules:
        """The defaults and what ``directory`` says itself in ``.trainsealignore``."""
        try:
            with open_file(directory, IGNORE_FILE) as (descriptor, _):
                content = os.read(descriptor, MAX_IGNORE_BYTES + 1)
        except FileNotFoundError:
            return cls(DEFAULT_IGNORES)
        if len(content) > MAX_IGNORE_BYTES:
            raise TreeFilesError(f"{IGNORE_FILE}: more than {MAX_IGNORE_BYTES} bytes; use fewer")
        try:
            lines = content.decode().splitlines()
        except UnicodeDecodeError:
            raise TreeFilesError(f"{IGNORE_FILE}: not UTF-8; save it as UTF-8 text") from None
        return cls([*DEFAULT_IGNORES, *lines])

    def ignores(self, path: str, *, is_directory: bool) -> bool:
        """Whether this file, or this directory with all in it, is left out."""
        rules = self._directories if is_directory else self._files
        return rules.fullmatch(path) is not None


def list_files(directory: Path, ignore: IgnoreRules | None = None) -> list[TreeFile]:
    """The tree's files, ordered as manifests are; ``ignore`` None: ``IgnoreRules.of(directory)``.

    Raises TreeFilesError naming the first link, device, pipe or socket, the first name that no
    signed tree may have, or saying that there is no file at all; OSError where it cannot be read.
    """
    rules = IgnoreRules.of(directory) if ignore is None else ignore
    root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        files = sorted(_walk(root, "", rules), key=lambda file: path_key(file.path))
    finally:
        os.close(root)
    try:
        check_paths(file.path for file in files)
    except TreePathError as error:
        raise TreeFilesError(str(error)) from None
    if not files:
        raise TreeFilesError(
            f"{directory}: found no file (ignored ones aside); expected at least one; name the"
            f" directory that holds the code, or look at {IGNORE_FILE}"
        )
    return files


def hash_files(
    directory: Path,
    files: Sequence[TreeFile],
    progress: Callable[[int], None] = lambda _bytes: None,
    *,
    threads: int | None = None,
) -> dict[str, str]:
    """Path to hex SHA-256 for ``files`` of ``directory``, in their order.

    ``progress`` gets the number of bytes just hashed, from several threads but never two at once;
    hashlib lets go of the interpreter lock, so threads (default: one a processor, at most 8) add
    up. Memory: 1 MiB a thread. Raises TreeFilesError where a file is no longer the one listed.
    """
    lock = Lock()

    def report(count: int) -> None:
        with lock:
            progress(count)

    workers = threads or min(8, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:
        jobs = [pool.submit(_hash, directory, file, report) for file in files]
        try:
            return {file.path: job.result() for file, job in zip(files, jobs, strict=True)}
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def open_file(directory: Path, path: str) -> Iterator[tuple[int, os.stat_result]]:
    """A descriptor of the plain file ``path`` within ``directory``, no link followed on the way.

    Only ``directory`` itself may be reached by a link: the caller chose it. Raises TreeFilesError
    for anything but a plain file, OSError where it cannot be opened.
    """
    check_path(path)
    *parents, name = path.split("/")
    at = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for part in parents:
            below = os.open(part, _DIRECTORY, dir_fd=at)
            os.close(at)
            at = below
        if stat.S_ISLNK(os.stat(name, dir_fd=at, follow_symlinks=False).st_mode):
            raise _not_plain(path, "a symbolic link")
        descriptor = os.open(name, _FILE, dir_fd=at)
    finally:
        os.close(at)
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise _not_plain(path, _kind(found.st_mode))
        yield descriptor, found
    finally:
        os.close(descriptor)


def _walk(directory: int, prefix: str, rules: IgnoreRules) -> Iterator[TreeFile]:
    with os.scandir(directory) as entries:
        listed = list(entries)
    for entry in listed:
        path = f"{prefix}{entry.name}"
        mode = (found := entry.stat(follow_symlinks=False)).st_mode
        if rules.ignores(path, is_directory=stat.S_ISDIR(mode)):
            continue
        try:
            check_path(path)
        except TreePathError as error:
            raise TreeFilesError(str(error)) from None
        if stat.S_ISDIR(mode):
            below = os.open(entry.name, _DIRECTORY, dir_fd=directory)
            try:
                yield from _walk(below, f"{path}/", rules)
            finally:
                os.close(below)
        elif stat.S_ISREG(mode):
            yield TreeFile(path, found.st_size, bool(mode & 0o111))
        else:
            raise _not_plain(path, _kind(mode))


def _hash(directory: Path, file: TreeFile, report: Callable[[int], None]) -> str:
    hasher, total = sha256(), 0
    with open_file(directory, file.path) as (descriptor, _):
        while chunk := os.read(descriptor, READ_BYTES):
            hasher.update(chunk)
            total += len(chunk)
            report(len(chunk))
    if total != file.size:
        raise TreeFilesError(
            f"{shown(file.path)}: found {total} bytes, expected the {file.size} listed a moment"
            " ago; the file changed while it was read; run again when nothing writes to the tree"
        )
    return hasher.hexdigest()


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a character device",
        stat.S_IFBLK: "a block device",
        stat.S_IFDIR: "a directory",
    }
    return kinds.get(stat.S_IFMT(mode), "of an unknown kind")


def _not_plain(path: str, kind: str) -> TreeFilesError:
    return TreeFilesError(
        f"{shown(path)}: found {kind}; expected plain files and directories only; replace it by a"
        f" copy of what it stands for, or name it in {IGNORE_FILE}"
    )


def _translate(pattern: str) -> str:
    if pattern.startswith("!") or "[" in pattern or "\\" in pattern:
        raise TreeFilesError(
            f"ignore pattern {shown(pattern)}: '!', '[' and '\\' are not supported; write plain"
            " names with '*', '?' and '**'"
        )
    anchored = "/" in pattern
    parts = pattern.lstrip("/").split("/")
    expression = "" if anchored else "(?:.*/)?"
    for index, part in enumerate(parts):
        last = index == len(parts) - 1
        if part == "**":
            expression += ".+" if last else "(?:.*/)?"
        else:
            expression += _part(part) + ("" if last else "/")
    return f"(?:{expression})"


def _part(part: str) -> str:
    # Runs of '*' are one: a regular expression of many would take exponential time.
    pieces = re.split(r"(\*+|\?)", part)
    return "".join(
        "[^/]*" if p.startswith("*") else "[^/]" if p == "?" else re.escape(p) for p in pieces
    )
