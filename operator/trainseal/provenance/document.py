"""A manifest as read: its JSON tree, and where in which file each field stands.

What reads manifests (yamlreader, jsonreader) makes these; what judges them (the models, the
canonical form, the signer) asks ``where`` for the place to name in an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.api.model import JsonObject

#: From the document down: ``("spec", "roles", 0, "template")``.
FieldPath = tuple[str | int, ...]

#: The largest integer that every JSON reader keeps exactly (RFC 8785 section 3.2.2.3, RFC 7493
#: section 2.2). Beyond it a number is not canonical: two spellings may mean one double.
MAX_SAFE_INTEGER = 2**53 - 1


def format_path(path: Sequence[str | int]) -> str:
    """A path as people write it: ``spec.roles[0].template``; keys that are no words in brackets."""
    text = ""
    for part in path:
        if isinstance(part, int):
            text += f"[{part}]"
        elif part.replace("-", "").replace("_", "").isalnum():
            text += f".{part}"
        else:
            text += f"[{part!r}]"
    return text.removeprefix(".") or "the document"


class ManifestError(ValueError):
    """A manifest that cannot be signed as it stands.

    ``place`` is ``file:line:column`` (both from 1). ``found``, ``expected`` and ``remedy`` are for
    people. Raised where kubectl refuses too, and where kubectl would go on but the result could
    not be relied on; the remedy then says why.
    """

    def __init__(self, place: str, found: str, expected: str, remedy: str) -> None:
        self.place = place
        self.found = found
        self.expected = expected
        self.remedy = remedy
        super().__init__(f"{place}: found {found}; expected {expected}; {remedy}")


class Position:
    """Where a value stands, and where the values in it stand. Lines and columns from 1.

    The position of a mapping's value is that of its key, as an editor would jump to it.
    """

    __slots__ = ("children", "column", "line")

    def __init__(self, line: int, column: int) -> None:
        self.line = line
        self.column = column
        self.children: dict[str, Position] | list[Position] | None = None

    def child(self, part: str | int) -> Position | None:
        """The position of a key's value or of a list's item; None where there is none."""
        if isinstance(self.children, dict):
            return self.children.get(part) if isinstance(part, str) else None
        if isinstance(self.children, list) and isinstance(part, int):
            return self.children[part] if 0 <= part < len(self.children) else None
        return None

    def place(self, source: str) -> str:
        """``file.yaml:12:5``, as editors and compilers write it."""
        return f"{source}:{self.line}:{self.column}"

    def at(self, line: int, column: int) -> Position:
        """The same content, standing elsewhere."""
        moved = Position(line, column)
        moved.children = self.children
        return moved


def value_at(value: JsonValue, path: Sequence[str]) -> tuple[bool, JsonValue]:
    """Whether a value has something at a path of keys, and what that is."""
    for part in path:
        if not isinstance(value, dict) or part not in value:
            return False, None
        value = value[part]
    return True, value


@dataclass(frozen=True, slots=True)
class Document:
    """One object of a manifest: plain dict, list, str, int, float, bool, None.

    ``value`` is what kubectl sends to the API server for it. Whole numbers are int however they
    were spelt (``1.0``, ``1e3``), as the API server stores them.
    """

    value: JsonObject
    source: str
    position: Position

    def where(self, path: Sequence[str | int] = ()) -> str:
        """``file.yaml:12:5`` of a field, or of the innermost one around it that exists."""
        position = self.position
        for part in path:
            inner = position.child(part)
            if inner is None:
                break
            position = inner
        return position.place(self.source)
