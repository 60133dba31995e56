"""The evidence log: what was recorded, each line chained to the one before by its digest.

A log is lines of canonical JSON (RFC 8785), each an object::

    {"number": 17, "previous": "sha256:…", "time": "2026-11-23T21:43:00Z", "kind": "SealedRun",
     "namespace": "research", "name": "char-lm-1", "uid": "…", "digest": "sha256:…"}

``previous`` is the SHA-256 of the line before, without its newline; of the first line, ``GENESIS``.
``digest`` is that of the canonical object, whose bytes lie beside the log under their digest; it
is absent where the object was deleted. So a line that was changed, removed or put in between
breaks the chain behind it, and a log that was cut short at its end ends before a head that was
kept elsewhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object
from trainseal.provenance import strictjson
from trainseal.provenance.canonical import canonical_bytes

GENESIS = "sha256:" + "0" * 64
#: Bytes of one line: names have at most 253 characters.
MAX_LINE_BYTES = 4096
_TEXTS = ("previous", "time", "kind", "namespace", "name", "uid")


class BrokenChainError(ValueError):
    """The log is not what was once written; the words say at which line."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One record. ``digest`` None: the object was deleted."""

    number: int
    previous: str
    time: str
    kind: str
    namespace: str
    name: str
    uid: str
    digest: str | None

    def line(self) -> bytes:
        """The canonical line, without a newline."""
        value: dict[str, JsonValue] = {f: getattr(self, f) for f in ("number", *_TEXTS)}
        return canonical_bytes(value | ({"digest": self.digest} if self.digest else {}))


@dataclass(frozen=True, slots=True)
class Head:
    """The last line of a log: its number (0: an empty log) and its digest."""

    number: int = 0
    digest: str = GENESIS

    def after(self, line: bytes) -> Head:
        """The head once the line is appended."""
        return Head(self.number + 1, digest_of(line))

    def __str__(self) -> str:
        return f"{self.number}@{self.digest}"

    @classmethod
    def parse(cls, text: str) -> Head:
        """Reads ``17@sha256:…``; raises ValueError."""
        number, at, digest = text.strip().partition("@")
        if not at or not number.isdecimal() or len(number) > 15 or not _is_digest(digest):
            raise ValueError(f"found {text[:100]!r}, expected a head as in 17@sha256:…")
        return cls(int(number), digest)


def digest_of(data: bytes) -> str:
    """``sha256:`` and the hexadecimal SHA-256."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def record(obj: JsonObject) -> bytes:
    """The bytes that are kept of an object: canonical, without the bookkeeping of field owners."""
    metadata = json_object(obj.get("metadata"))
    kept: JsonObject = {k: v for k, v in metadata.items() if k != "managedFields"}
    return canonical_bytes({**obj, "metadata": kept})


def read_line(line: bytes) -> Entry:
    """The entry of one line (without its newline). Raises BrokenChainError."""
    try:
        value = strictjson.parse(line, max_bytes=MAX_LINE_BYTES)
    except strictjson.JSONError as error:
        raise BrokenChainError(f"found a line that is no entry: {error}") from None
    if not isinstance(value, Mapping):
        raise BrokenChainError("found a line that is no JSON object")
    number, digest = value.get("number"), value.get("digest")
    texts = {f: text for f in _TEXTS if isinstance(text := value.get(f), str)}
    if not isinstance(number, int) or isinstance(number, bool) or len(texts) != len(_TEXTS):
        raise BrokenChainError("found a line that lacks a member of an entry")
    if digest is not None and not (isinstance(digest, str) and _is_digest(digest)):
        raise BrokenChainError(f"found {str(digest)[:80]!r} where a digest is expected")
    entry = Entry(number=number, digest=digest, **texts)
    if entry.line() != line:
        raise BrokenChainError("found a line that is not in canonical form")
    return entry


def walk(lines: Iterable[bytes], start: Head | None = None) -> Iterator[tuple[Entry, Head]]:
    """Each entry of a log with the head behind it. Raises BrokenChainError at the first break."""
    head = start or Head()
    for line in lines:
        place = f"line {head.number + 1}"
        try:
            entry = read_line(line)
        except BrokenChainError as error:
            raise BrokenChainError(f"{place}: {error}") from None
        if entry.number != head.number + 1:
            raise BrokenChainError(
                f"{place}: found entry {entry.number}: entries were removed, added or reordered"
            )
        if entry.previous != head.digest:
            raise BrokenChainError(
                f"{place}: found the previous line's digest {entry.previous}, and that line has "
                f"{head.digest}: what stands before it was changed"
            )
        head = head.after(line)
        yield entry, head


def _is_digest(text: str) -> bool:
    return (
        len(text) == 71
        and text.startswith("sha256:")
        and all(c in "0123456789abcdef" for c in text[7:])
    )
