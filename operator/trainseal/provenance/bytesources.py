"""Bytes of which nobody said that they are well-formed, read at random and within a bound.

Parsers of them are generators: they pause often, so that whoever drives one can hold a file open
for a moment only, and do something else in between.
"""

from __future__ import annotations

from collections.abc import Generator
from typing import Protocol, TypeVar

_T = TypeVar("_T")
#: A parser: it pauses by yielding None, and ends with what it found.
Steps = Generator[None, None, _T]


class TooMuchError(ValueError):
    """The bound was met; what was not looked at is undetermined."""


class Source(Protocol):
    """A file, say."""

    @property
    def size(self) -> int:
        """Bytes."""

    def read(self, at: int, length: int) -> bytes:
        """So many bytes from there, fewer only at the end. Raises OSError."""


class MemorySource:
    """Bytes that are in memory already."""

    def __init__(self, content: bytes) -> None:
        self._content = content

    @property
    def size(self) -> int:
        """Bytes."""
        return len(self._content)

    def read(self, at: int, length: int) -> bytes:
        """As of any Source."""
        return self._content[at : at + length]


class Meter:
    """What may still be spent on one file: in bytes read, or what costs as much."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.spent = 0

    def spend(self, cost: int) -> None:
        """Raises TooMuchError where it is too much."""
        self.spent += cost
        if self.spent > self._most:
            raise TooMuchError("it is too long to be judged")


class Metered:
    """A source whose reads are counted."""

    def __init__(self, source: Source, meter: Meter) -> None:
        self._source = source
        self._meter = meter

    @property
    def size(self) -> int:
        """Bytes."""
        return self._source.size

    def read(self, at: int, length: int) -> bytes:
        """As of any Source; raises TooMuchError too."""
        self._meter.spend(max(0, min(length, self.size - at)))
        return self._source.read(at, length)
