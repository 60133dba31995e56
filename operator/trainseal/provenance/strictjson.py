"""JSON from strangers: read once, with bounds, so that everyone reads the same document.

Two readers that differ on one document are an attack (one judges, the other acts). What readers
are known to differ on is refused rather than interpreted: duplicate keys (RFC 8259, section 4),
NaN and infinities, lone surrogates, bytes that are not UTF-8, and nesting that overflows a stack.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NoReturn, TypeAlias

JSONValue: TypeAlias = (
    "dict[str, JSONValue] | list[JSONValue] | str | int | float | bool | None"  # recursive
)
JSONObject: TypeAlias = "dict[str, JSONValue]"

MAX_DEPTH = 32


class JSONError(ValueError):
    """The document is not JSON that every reader would read alike; the text says where and why."""


def parse(data: bytes, *, max_bytes: int, max_depth: int = MAX_DEPTH) -> JSONValue:
    """The value of the JSON text ``data`` (UTF-8).

    Raises JSONError where it is longer than ``max_bytes``, nested deeper than ``max_depth``, or
    not JSON that every reader would read alike.
    """
    if len(data) > max_bytes:
        raise JSONError(f"found {len(data)} bytes, expected at most {max_bytes}")
    try:
        value: JSONValue = json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_refuse_constant
        )
    except UnicodeDecodeError as error:
        raise JSONError(f"not UTF-8 at byte {error.start}") from None
    except RecursionError:
        raise JSONError(f"nested deeper than {max_depth}") from None
    except JSONError:
        raise
    except ValueError as error:  # JSONDecodeError, or an integer of thousands of digits
        raise JSONError(f"not JSON: {error}") from None
    _check_tree(value, max_depth, max_bytes)
    return value


def from_mapping(
    document: Mapping[str, object], *, max_bytes: int, max_depth: int = MAX_DEPTH
) -> tuple[JSONObject, bytes]:
    """A document that somebody else has parsed (an admission request), checked, and its text.

    Raises JSONError as :func:`parse` does, and where a value is of no JSON type.
    """
    _check_tree(document, max_depth, max_bytes)
    try:
        text = json.dumps(document, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise JSONError(f"not JSON: {error}") from None
    value = parse(text, max_bytes=max_bytes, max_depth=max_depth)
    if not isinstance(value, dict):  # pragma: no cover - a Mapping is written as an object
        raise JSONError("not an object")
    return value, text


def _unique(pairs: list[tuple[str, JSONValue]]) -> JSONObject:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise JSONError(f"the key {key[:80]!r} stands twice in one object")
            seen.add(key)
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise JSONError(f"{name} is not JSON")


def _check_tree(root: object, max_depth: int, max_nodes: int) -> None:
    """Walk without recursion: the depth is what is being checked."""
    stack: list[tuple[object, int]] = [(root, 1)]
    nodes = 0
    while stack:
        value, depth = stack.pop()
        nodes += 1
        if depth > max_depth:
            raise JSONError(f"nested deeper than {max_depth}")
        if nodes > max_nodes:
            raise JSONError(f"more than {max_nodes} values")
        if isinstance(value, str):
            _check_text(value)
        elif isinstance(value, Mapping):
            for key, item in value.items():
                if not isinstance(key, str):
                    raise JSONError(f"the key {key!r} is not text")
                _check_text(key)
                stack.append((item, depth + 1))
        elif isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
            stack.extend((item, depth + 1) for item in value)
        elif value is not None and not isinstance(value, (bool, int, float)):
            raise JSONError(f"a value of type {type(value).__name__} is not JSON")


def _check_text(text: str) -> None:
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            raise JSONError("a text holds a lone surrogate, which is not Unicode") from None
