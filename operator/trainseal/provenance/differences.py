"""Differences between two JSON objects, each with its place, in words for people."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

Json = Mapping[str, JsonValue]

EMPTY: Json = {}
NOTHING: list[JsonValue] = []
_ABSENT = object()


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference: a field path, what was found there, what the seal says."""

    path: str
    found: str
    sealed: str

    def __str__(self) -> str:
        return f"{self.path}: found {self.found}, the seal says {self.sealed}"


def same(found: Json, skipped: frozenset[str], wanted: Json) -> bool:
    """Whether ``found`` less ``skipped`` is ``wanted``; builds nothing."""
    count = 0
    for key, value in found.items():
        if key in skipped:
            continue
        if wanted.get(key, _ABSENT) != value:
            return False
        count += 1
    return count == len(wanted)


def mapping_differences(
    path: str, found: Json, wanted: Json, skipped: frozenset[str]
) -> Iterator[Difference]:
    """Each key, less ``skipped``, whose values differ."""
    for key in sorted((found.keys() | wanted.keys()) - skipped):
        if found.get(key, _ABSENT) != wanted.get(key, _ABSENT):
            yield Difference(f"{path}.{key}", short(found.get(key)), short(wanted.get(key)))


def named_differences(
    path: str, found: Sequence[Json], wanted: Sequence[Json]
) -> Iterator[Difference]:
    """Of two lists that are not equal, each entry that only one holds; else their order."""
    by_name = {str(w.get("name")): w for w in wanted}
    explained = False
    for entry in found:
        name = str(entry.get("name"))
        if entry not in wanted:
            explained = True
            yield Difference(f"{path}[{name}]", short(entry), short(by_name.get(name)))
    for entry in wanted:
        if entry not in found:
            explained = True
            yield Difference(f"{path}[{entry.get('name')}]", "absent or changed", short(entry))
    if not explained:
        yield Difference(path, "another order or number", "the sealed order")


def short(value: JsonValue | Json) -> str:
    """A value for a message."""
    text = repr(value)
    return text if len(text) <= 120 else text[:117] + "…"


def mapping(value: JsonValue | Json) -> Json:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else EMPTY


def objects(value: JsonValue) -> list[Json]:
    """The objects of a list; none if it is no list."""
    return [v for v in value if isinstance(v, dict)] if isinstance(value, list) else []


def strings(value: JsonValue) -> Mapping[str, str]:
    """The entries of an object whose values are text."""
    return {k: v for k, v in value.items() if isinstance(v, str)} if isinstance(value, dict) else {}
