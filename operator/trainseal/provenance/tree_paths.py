"""Which names a file of a signed tree may have.

A name stands in a manifest, in a tar and on a disk, and must mean one and the same file in all
three; so anything that one of them could read differently is refused, not cleaned up:

1. relative, parts joined by ``/``; no empty part, ``.`` or ``..``; no backslash;
2. valid Unicode without control, invisible or direction-changing characters;
3. at most ``MAX_PART_BYTES`` UTF-8 bytes a part (NAME_MAX of Linux) and ``MAX_PATH_BYTES`` in all;
4. within one tree no two names that differ only in case or Unicode form, and none that is a file
   and a directory at once: a person reviewing the list would take them for one, and a
   case-insensitive disk does.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from itertools import pairwise

MAX_PATH_BYTES = 1024
MAX_PART_BYTES = 255

#: Names made of these need no look at Unicode's tables; nearly all of them are.
_PLAIN = re.compile(r"[A-Za-z0-9_./,+@=~() \[\]{}#!$%&'^;:-]+")
#: Control, format (zero width, direction), surrogate, line and paragraph separator.
_REFUSED_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


class TreePathError(ValueError):
    """A name, or two names together, that no signed tree may have."""


def shown(path: str) -> str:
    """The name as it may stand in a message: escaped and at most 200 characters."""
    text = path if _PLAIN.fullmatch(path) else ascii(path)
    return text if len(text) <= 200 else f"{text[:197]}…"


def path_key(path: str) -> tuple[str, ...]:
    """Sort key: by parts, as OpenSSF Model Signing orders a manifest (``a/b`` before ``a-b``)."""
    return tuple(path.split("/"))


def check_path(path: str) -> None:
    """Raises TreePathError unless ``path`` keeps rules 1 to 3."""
    problem = _problem(path)
    if problem:
        raise TreePathError(
            f"file name {shown(path)}: {problem}; expected a plain relative path such as"
            " src/train.py; rename the file and sign the tree again"
        )


def check_paths(paths: Iterable[str]) -> None:
    """Raises TreePathError unless each name keeps rules 1 to 3 and all together rule 4."""
    names: dict[str, str] = {}
    for path in paths:
        check_path(path)
        # With NUL for the slash, which no name contains, a directory sorts right before its files.
        folded = _folded(path).replace("/", "\0")
        twin = names.get(folded)
        if twin == path:
            raise TreePathError(f"file name {shown(path)}: listed twice; expected each name once")
        if twin is not None:
            raise TreePathError(
                f"file names {shown(twin)} and {shown(path)} differ only in case or Unicode form;"
                " expected names that nobody can mix up; rename one and sign the tree again"
            )
        names[folded] = path
    for above, below in pairwise(sorted(names)):
        if below.startswith(f"{above}\0"):
            raise TreePathError(
                f"file name {shown(names[above])}: also a directory, of {shown(names[below])};"
                " expected one or the other; rename one and sign the tree again"
            )


def _problem(path: str) -> str | None:
    if not path:
        return "empty"
    if len(path) > MAX_PATH_BYTES:
        return f"longer than {MAX_PATH_BYTES} bytes"
    if path.startswith("/"):
        return "absolute"
    if not _PLAIN.fullmatch(path):
        if "\\" in path:
            return "contains a backslash"
        for character in path:
            if unicodedata.category(character) in _REFUSED_CATEGORIES:
                return f"contains the control or invisible character U+{ord(character):04X}"
        if len(path.encode()) > MAX_PATH_BYTES:
            return f"longer than {MAX_PATH_BYTES} bytes"
    for part in path.split("/"):
        if part in ("", ".", ".."):
            return f"contains the part {part!r}"
        if len(part) > MAX_PART_BYTES or len(part.encode()) > MAX_PART_BYTES:
            return f"contains a part longer than {MAX_PART_BYTES} bytes"
    return None


def _folded(path: str) -> str:
    """Canonical caseless form (Unicode 3.13, D145)."""
    if path.isascii():
        return path.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())
