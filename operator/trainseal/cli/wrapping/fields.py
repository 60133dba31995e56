"""A manifest's fields, each with its origin: what is made of one can say where it stood."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from pydantic import JsonValue

from trainseal.provenance.document import Document, FieldPath

Scalar = str | int | float | bool | None


@dataclass(frozen=True, slots=True)
class Field:
    """One field: its document, its path there, and what it holds.

    A field may hold others of another document: a container of a runtime, with a job's image.
    """

    document: Document
    path: FieldPath
    content: Scalar | Mapping[str, Field] | tuple[Field, ...]

    @property
    def value(self) -> JsonValue:
        """What it holds, as JSON."""
        if isinstance(self.content, Mapping):
            return {key: field.value for key, field in self.content.items()}
        if isinstance(self.content, tuple):
            return [field.value for field in self.content]
        return self.content

    @property
    def place(self) -> str:
        """``file.yaml:12:5``; of an object that no file holds, what it is."""
        document = self.document
        return document.where(self.path) if document.position.line else document.source

    def get(self, name: str) -> Field | None:
        """A field of a mapping; null is none."""
        found = self.content.get(name) if isinstance(self.content, Mapping) else None
        return None if found is None or found.content is None else found

    def at(self, *names: str) -> Field | None:
        """A field some levels down."""
        found: Field | None = self
        for name in names:
            found = found.get(name) if found else None
        return found

    def entries(self) -> Iterator[tuple[str, Field]]:
        """A mapping's fields; null is none."""
        for key, field in self.content.items() if isinstance(self.content, Mapping) else ():
            if field.content is not None:
                yield key, field

    def items(self) -> tuple[Field, ...]:
        """A list's items."""
        return self.content if isinstance(self.content, tuple) else ()

    def text(self, *names: str) -> str:
        """The text of it, or of a field below; empty where there is none."""
        found = self.at(*names)
        return found.content if found and isinstance(found.content, str) else ""

    def number(self, *names: str) -> int | None:
        """The whole number of it, or of a field below."""
        found = self.at(*names)
        value = found.content if found else None
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def true(self, *names: str) -> bool:
        """Whether it, or a field below, is true."""
        found = self.at(*names)
        return bool(found and found.content is True)

    def having(self, name: str, field: Field) -> Field:
        """The same with another field under a name."""
        inner = dict(self.content) if isinstance(self.content, Mapping) else {}
        return replace(self, content={**inner, name: field})

    def listing(self, items: Sequence[Field]) -> Field:
        """The same with other items."""
        return replace(self, content=tuple(items))


def field_of(document: Document) -> Field:
    """The whole document."""
    return _field(document, (), document.value)


def _field(document: Document, path: FieldPath, value: JsonValue) -> Field:
    if isinstance(value, dict):
        inner = {key: _field(document, (*path, key), v) for key, v in value.items()}
        return Field(document, path, inner)
    if isinstance(value, list):
        items = tuple(_field(document, (*path, i), v) for i, v in enumerate(value))
        return Field(document, path, items)
    return Field(document, path, value)
