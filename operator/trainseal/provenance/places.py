"""Where a path leads in a container, as far as its text tells: no file system is asked.

``..`` and the links of ``/proc`` are followed as the kernel follows them, so that
``/proc/self/root/ckpt`` is ``/ckpt``. A pattern of a shell (``/ck?t``) leads wherever it may match.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

_PATTERN = re.compile(r"[*?[]")
_PROCESS = re.compile(r"self|thread-self|[0-9]+")
#: What a program reads from there was opened by another.
_OPEN_FILE = re.compile(r"^/dev/(stdin|fd/[^/]+)$|^/proc/[^/]+(/task/[^/]+)?/fd/[^/]+$")


def resolve(path: str, directory: str = "/") -> str:
    """The absolute path without ``.``, ``..``, doubled slashes and links of ``/proc``.

    ``directory`` is where a relative path starts, and what ``/proc/PID/cwd`` is taken for.
    """
    start = _parts(directory, [])
    parts = _parts(path, [] if path.startswith("/") else start, start)
    return "/" + "/".join(parts)


def _parts(path: str, at: Sequence[str], directory: Sequence[str] = ()) -> list[str]:
    found = list(at)
    for part in path.split("/"):
        if part == "..":
            del found[-1:]
        elif part not in ("", "."):
            found.append(part)
            found = _followed(found, directory)
    return found


def _followed(parts: list[str], directory: Sequence[str]) -> list[str]:
    """The parts, or where they lead if they are a process' root or working directory."""
    if len(parts) not in (3, 5) or not _may_be("proc", parts[0]):
        return parts
    if not (_PROCESS.fullmatch(parts[1]) or _PATTERN.search(parts[1])):
        return parts
    if len(parts) == 5 and not _may_be("task", parts[2]):
        return parts
    if _may_be("root", parts[-1]):
        return []
    return list(directory) if _may_be("cwd", parts[-1]) else parts


def _may_be(name: str, part: str) -> bool:
    if _PATTERN.search(part):
        return fnmatchcase(name, part)
    return name == part


def within(path: str, roots: Sequence[str], directory: str = "/") -> bool:
    """Whether a path lies, or may lie, at or below one of the roots."""
    parts = resolve(path, directory).split("/")
    return any(_below(parts, root.split("/")) for root in roots)


def _below(parts: Sequence[str], root: Sequence[str]) -> bool:
    return len(parts) >= len(root) and all(map(_may_be, root, parts))


def is_open_file(path: str) -> bool:
    """Whether a path is another name for a file that is open already, such as standard input."""
    return bool(_OPEN_FILE.match(posixpath.normpath(path)))
