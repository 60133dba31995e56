"""Whether a ``.pyc`` file is what its source compiles to. Pure.

The header is that of PEP 552. The code after it is never loaded (``marshal`` is not made for
hostile bytes): a reader of our own takes it apart with bounds, and so it does with what the
agent's Python makes of the source; the two are compared as trees of digests. That says something
only where both Pythons have one magic number.
"""

from __future__ import annotations

import _imp
import marshal
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from importlib.util import MAGIC_NUMBER
from struct import Struct

#: Longer sources and byte codes are not compared; bytes.
MAX_SOURCE = 1024 * 1024
MAX_BYTECODE = 4 * 1024 * 1024
_HEADER = 16
_CACHED = re.compile(r"(.*)/__pycache__/([^/]+?)\.[A-Za-z0-9_-]+(?:\.opt-([^./]+))?\.pyc")
_PARTIAL = re.compile(r".*/__pycache__/[^/]+\.pyc\.\d+")
_MAX_DEPTH = 150
_INT = Struct("<i")


@dataclass(frozen=True, slots=True)
class Bytecode:
    """What was found. ``matches`` is None where the code itself still has to be compared."""

    matches: bool | None
    why: str


@dataclass(frozen=True, slots=True)
class Source:
    """The source as it is now; ``modified`` in whole seconds since 1970."""

    data: bytes
    modified: int
    signed: bool


def source_of(path: str) -> str | None:
    """The source that Python takes this cache for; None where ``path`` is no byte code."""
    if found := _CACHED.fullmatch(path):
        return f"{found[1]}/{found[2]}.py"
    return path[:-1] if path.endswith(".pyc") else None


def partial(path: str) -> bool:
    """Whether Python writes byte code under this name before it renames the file."""
    return _PARTIAL.fullmatch(path) is not None


def check_header(data: bytes, source: Source | None) -> Bytecode:
    """What the first bytes say. ``matches`` None: the header fits, the code is not looked at."""
    if source is None:
        return Bytecode(False, "there is no source beside it")
    if len(data) < _HEADER:
        return Bytecode(False, f"{len(data)} bytes, a header has {_HEADER}")
    magic, flags = data[:4], int.from_bytes(data[4:8], "little")
    if magic[2:] != b"\r\n" or flags > 0b11:
        return Bytecode(False, "its header is none of Python's")
    if flags & 1:
        found = _imp.source_hash(int.from_bytes(magic, "little"), source.data)
        if magic != MAGIC_NUMBER:
            return Bytecode(False, "it names its source by a hash that only its Python can check")
        fits = found == data[8:16]
    else:
        modified = int.from_bytes(data[8:12], "little")
        size = int.from_bytes(data[12:16], "little")
        fits = (modified, size) == (source.modified & 0xFFFF_FFFF, len(source.data) & 0xFFFF_FFFF)
    if not fits:
        return Bytecode(False, "its header names another state of the source")
    return Bytecode(None, "the header matches the source")


def check_code(path: str, data: bytes, source: Source) -> Bytecode:
    """What the code says, for a file whose header matches. It compiles the source: slow."""
    if data[:4] != MAGIC_NUMBER:
        return Bytecode(True, "the header matches; the code was not compared (another Python's)")
    if not source.signed:
        return Bytecode(True, "the header matches; the code was not compared (unsigned source)")
    if len(source.data) > MAX_SOURCE or len(data) > MAX_BYTECODE:
        return Bytecode(True, "the header matches; the code was not compared (too large)")
    cached = _CACHED.fullmatch(path)
    level = {"1": 1, "2": 2}.get(cached[3] or "", 0) if cached else 0
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            code = compile(source.data, "", "exec", dont_inherit=True, optimize=level)
        wanted = shape(marshal.dumps(code))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return Bytecode(False, "its source does not compile")
    try:
        found = shape(data[_HEADER:])
    except ValueError as error:
        return Bytecode(False, f"its code cannot be read: {error}")
    if found != wanted:
        return Bytecode(False, "its code is not what the source compiles to")
    return Bytecode(True, "the header and the code match the source")


def shape(data: bytes) -> bytes:
    """A digest of the marshalled value that is the same for equal values, file names left out.

    Raises ValueError for what is no marshalled code, is cut off, nests too deep or has more after
    it.
    """
    reader = _Reader(data)
    found = reader.value(0)
    if reader.at != len(data):
        raise ValueError(f"{len(data) - reader.at} bytes after the code")
    return found


class _Reader:
    """Marshal's format, version 4 (Python/marshal.c). Each value becomes a digest, so that a
    value referred to many times costs nothing more.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.at = 0
        self._known: list[bytes | None] = []

    def value(self, depth: int) -> bytes:
        if depth > _MAX_DEPTH:
            raise ValueError("it nests too deep")
        head = self._take(1)[0]
        kind = chr(head & 0x7F)
        if kind == "r":
            return self._reference()
        place = -1
        if head & 0x80:
            place = len(self._known)
            self._known.append(None)
        found = _digest(*self._parts(kind, depth + 1))
        if place >= 0:
            self._known[place] = found
        return found

    def _reference(self) -> bytes:
        index = self._int()
        found = self._known[index] if 0 <= index < len(self._known) else None
        if found is None:
            raise ValueError("a reference to nothing")
        return found

    def _parts(self, kind: str, depth: int) -> tuple[bytes, ...]:
        if kind in _SIMPLE:
            return (kind.encode(),)
        if kind in _BLOCKS:
            name, size = _BLOCKS[kind]
            block = self._take(size(self))
            if kind in _ASCII and not block.isascii():  # Python would read it as Latin-1
                raise ValueError("a text that is said to be ASCII and is not")
            return (name, block)
        # Code has neither lists nor sets, which could be changed.
        if kind in "()":
            count = self._take(1)[0] if kind == ")" else self._count()
            return (b"(", *(self.value(depth) for _ in range(count)))
        if kind == ">":
            return (b">", *sorted(self.value(depth) for _ in range(self._count())))
        if kind == "c":
            return (b"c", *self._code(depth))
        raise ValueError(f"a value of kind {kind!r}")

    def _code(self, depth: int) -> list[bytes]:
        found = [self._take(4) for _ in range(5)]
        # code, consts, names, local names, local kinds
        found += [self.value(depth) for _ in range(5)]
        self.value(depth)  # the file name
        found += [self.value(depth) for _ in range(2)]  # name, qualified name
        found.append(self._take(4))
        found += [self.value(depth) for _ in range(2)]  # lines, exceptions
        return found

    def _count(self) -> int:
        count = self._int()
        if not 0 <= count <= len(self._data) - self.at:
            raise ValueError(f"{count} values")
        return count

    def _int(self) -> int:
        (found,) = _INT.unpack(self._take(4))
        return int(found)

    def _take(self, count: int) -> bytes:
        if not 0 <= count <= len(self._data) - self.at:
            raise ValueError("it is cut off")
        found = self._data[self.at : self.at + count]
        self.at += count
        return found

    def byte(self) -> int:
        return self._take(1)[0]

    def long(self) -> int:
        return self._int()

    def digits(self) -> int:
        """Bytes of a long integer, its own count of 15-bit digits among them."""
        count = int.from_bytes(self._data[self.at : self.at + 4], "little", signed=True)
        return 4 + 2 * abs(count)


_SIMPLE = "NFTS."
_Size = Callable[[_Reader], int]


def _fixed(count: int) -> _Size:
    return lambda _: count


_ASCII = "aAzZ"
_BLOCKS: dict[str, tuple[bytes, _Size]] = {
    "i": (b"i", _fixed(4)),
    "g": (b"g", _fixed(8)),
    "y": (b"y", _fixed(16)),
    "l": (b"l", _Reader.digits),
    "s": (b"s", _Reader.long),
    **dict.fromkeys("tuaA", (b"u", _Reader.long)),
    **dict.fromkeys("zZ", (b"u", _Reader.byte)),
}


def _digest(*parts: bytes) -> bytes:
    found = sha256()
    for part in parts:
        found.update(len(part).to_bytes(8, "little"))
        found.update(part)
    return found.digest()
