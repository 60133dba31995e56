"""Every place in an object, so that a law can be tried at each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

Path = tuple[str | int, ...]


def leaves(value: Any, path: Path = ()) -> Iterator[Path]:
    """Where a value, an empty list or an empty object stands."""
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    if not items and path:
        yield path
    for key, item in items:
        yield from leaves(item, (*path, key))


def place(value: Any, path: Path) -> Any:
    """What holds the leaf at the path's end."""
    for part in path[:-1]:
        value = value[part]
    return value
