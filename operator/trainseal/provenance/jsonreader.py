"""JSON with places: RFC 8259, strictly, one object of a stream at a time.

The standard library's reader keeps no positions and lets duplicate keys, NaN and lone surrogates
through. This one reads what kubectl's (Go's encoding/json, then sigs.k8s.io/json) accepts and
refuses, with the place, what cannot be canonical.
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right

from pydantic import JsonValue

from trainseal.provenance.document import ManifestError, Position
from trainseal.provenance.limits import Budget, safe_number

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*"')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?", re.ASCII)
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
_WORD = re.compile(r"[a-z]+")
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class NotJsonError(ValueError):
    """The text is not JSON from ``offset`` on; kubectl then tries it as YAML."""

    def __init__(self, offset: int, message: str) -> None:
        self.offset = offset
        super().__init__(message)


class JsonReader:
    """Reads values out of ``text``; ``offset`` is where the next one begins."""

    def __init__(self, text: str, source: str, budget: Budget) -> None:
        self._text = text
        self._source = source
        self._budget = budget
        self._lines = [0, *(match.end() for match in re.finditer("\n", text))]
        self.offset = 0

    def place(self, offset: int) -> Position:
        """Line and column of an offset."""
        line = bisect_right(self._lines, offset)
        return Position(line, offset - self._lines[line - 1] + 1)

    def where(self, offset: int) -> str:
        """``file:line:column`` of an offset."""
        return self.place(offset).place(self._source)

    def skip_space(self) -> str:
        """Steps over JSON's white space; the character there, empty at the end."""
        match = _SPACE.match(self._text, self.offset)
        assert match is not None  # noqa: S101  the pattern matches the empty string
        self.offset = match.end()
        return self._text[self.offset : self.offset + 1]

    def value(self, depth: int = 0) -> tuple[JsonValue, Position]:
        """The next value; raises NotJsonError or ManifestError."""
        first = self.skip_space()
        start = self.offset
        position = self.place(start)
        self._budget.node(depth, position, self._source)
        if first == "{":
            return self._object(depth, position), position
        if first == "[":
            return self._array(depth, position), position
        if first == '"':
            return self._string(), position
        if word := _WORD.match(self._text, start):
            if word[0] not in _WORDS:
                raise NotJsonError(start, f"{word[0][:20]!r} is no JSON value")
            self.offset = word.end()
            return _WORDS[word[0]], position
        return self._number(position), position

    def _object(self, depth: int, position: Position) -> dict[str, JsonValue]:
        result: dict[str, JsonValue] = {}
        places: dict[str, Position] = {}
        position.children = places
        self.offset += 1
        if self.skip_space() == "}":
            self.offset += 1
            return result
        while True:
            if self.skip_space() != '"':
                raise NotJsonError(self.offset, "a key in double quotes is missing")
            start = self.offset
            key = self._string()
            if key in places:
                raise ManifestError(
                    self.where(start),
                    f"the key {key!r} twice in one object (first in line {places[key].line})",
                    "each key once",
                    "remove one of them: kubectl would silently take the last",
                )
            if self.skip_space() != ":":
                raise NotJsonError(self.offset, "':' is missing after a key")
            self.offset += 1
            result[key], inner = self.value(depth + 1)
            at = self.place(start)
            places[key] = inner.at(at.line, at.column)
            if not self._more("}"):
                return result

    def _array(self, depth: int, position: Position) -> list[JsonValue]:
        result: list[JsonValue] = []
        places: list[Position] = []
        position.children = places
        self.offset += 1
        if self.skip_space() == "]":
            self.offset += 1
            return result
        while True:
            value, inner = self.value(depth + 1)
            result.append(value)
            places.append(inner)
            if not self._more("]"):
                return result

    def _more(self, end: str) -> bool:
        found = self.skip_space()
        if found not in (",", end) or not found:
            raise NotJsonError(self.offset, f"',' or {end!r} is missing")
        self.offset += 1
        return found == ","

    def _string(self) -> str:
        match = _STRING.match(self._text, self.offset)
        if not match:
            raise NotJsonError(self.offset, "a string is not closed or not escaped as JSON asks")
        value = json.loads(match[0])
        if not isinstance(value, str) or _SURROGATE.search(value):
            raise ManifestError(
                self.where(self.offset),
                "half of a surrogate pair in a string",
                "whole Unicode characters",
                "correct the \\u escape: kubectl would silently put U+FFFD in its place",
            )
        self.offset = match.end()
        return value

    def _number(self, position: Position) -> int | float:
        match = _NUMBER.match(self._text, self.offset)
        if not match:
            raise NotJsonError(self.offset, "no JSON value begins here")
        self.offset = match.end()
        # A long integer is far beyond a double; as a float it is refused just the same.
        whole = not match[1] and not match[2] and len(match[0]) < 100
        number = int(match[0]) if whole else float(match[0])
        if number in (math.inf, -math.inf):
            number = 2**1024  # a number all the same, but refused for its size
        return safe_number(number, match[0], position, self._source)
