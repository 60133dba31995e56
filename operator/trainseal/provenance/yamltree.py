"""One YAML document as a JSON tree, built from libyaml's events the way goyaml v2 builds it.

The order of work is goyaml's (``decode.go``: unmarshal, mapping, merge, alias), because some of
its results depend on it: a merge key (``<<``) takes effect where it stands, so that what follows
it wins and what precedes it loses, and aliases are bounded by the share of values that come from
them.
"""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from trainseal.provenance.document import ManifestError, Position
from trainseal.provenance.limits import Budget, safe_number
from trainseal.provenance.yamlnodes import SCALAR_TAGS, TAG, Node, compose
from trainseal.provenance.yamlscalars import Scalar, resolve

# Python type of a key before it became a string: 1 and "1" are two keys to goyaml.
_KeyKind = Literal["str", "int", "bool"]


def read_tree(
    chunk: str, first_line: int, source: str, budget: Budget
) -> tuple[JsonValue, Position]:
    """The value of one document and the positions in it; raises ManifestError.

    ``chunk`` is one document's text, ``first_line`` the number of its first line in ``source``.
    """
    root = compose(chunk, first_line, source)
    if root is None:
        return None, Position(first_line, 1)
    return _Decoder(source, budget).document(root)


class _Decoder:
    def __init__(self, source: str, budget: Budget) -> None:
        self._source = source
        self._budget = budget
        self._aliases: set[int] = set()
        self._decoded = 0
        self._from_aliases = 0

    def _error(self, node: Node, found: str, expected: str, remedy: str) -> ManifestError:
        return ManifestError(node.position.place(self._source), found, expected, remedy)

    def document(self, root: Node) -> tuple[JsonValue, Position]:
        """The document's value, and the positions in it."""
        self._count(root)
        return self._value(root, 0)

    def _count(self, node: Node) -> None:
        """goyaml's bound on aliases: at most 99 in 100 values, fewer in large documents."""
        self._decoded += 1
        if self._aliases:
            self._from_aliases += 1
        if self._from_aliases <= 100 or self._decoded <= 1000:
            return
        over = min(max(self._decoded - 400_000, 0) / 3_600_000, 1.0)
        if self._from_aliases / self._decoded > 0.99 - 0.89 * over:
            raise self._error(
                node,
                "a document that is nearly all aliases",
                "few enough that kubectl reads it",
                "write the values out",
            )

    def _value(self, node: Node, depth: int) -> tuple[JsonValue, Position]:
        self._count(node)
        position = node.position
        self._budget.node(depth, position, self._source)
        if node.target is not None:
            with_alias = self._enter(node)
            result = self._value(node.target, depth)
            self._aliases.discard(with_alias)
            return result
        if node.kind == "list":
            pairs = [self._value(child, depth + 1) for child in node.children]
            position.children = [inner for _, inner in pairs]
            return [value for value, _ in pairs], position
        if node.kind == "map":
            result_map = _Mapping()
            self._fill(node, result_map, depth)
            position.children = result_map.positions
            return result_map.values, position
        return self._scalar(node), position

    def _enter(self, node: Node) -> int:
        if id(node) in self._aliases:
            raise self._error(
                node, "an anchor whose value contains itself", "a finite value", "write it out"
            )
        self._aliases.add(id(node))
        return id(node)

    def _fill(self, node: Node, into: _Mapping, depth: int) -> None:
        """Puts a mapping's keys into ``into``; a merge key's where it stands."""
        own: dict[str, Node] = {}
        children = iter(node.children)
        for key_node, value_node in zip(children, children, strict=True):
            if key_node.kind == "scalar" and key_node.plain and key_node.text == "<<":
                self._merge(value_node, into, depth)
                continue
            key, kind = self._key(key_node)
            if key in own:
                first = own[key].position.line
                raise self._error(
                    key_node,
                    f"the key {key!r} twice in one mapping (first in line {first})",
                    "each key once",
                    "remove one of them: kubectl would silently take the last",
                )
            own[key] = key_node
            if into.kinds.setdefault(key, kind) != kind:
                raise self._error(
                    key_node,
                    f"the key {key!r} as a {kind} and, merged, as a {into.kinds[key]}",
                    "each key once",
                    "quote both: kubectl would take either of the two",
                )
            into.values[key], inner = self._value(value_node, depth + 1)
            at = key_node.position
            into.positions[key] = inner.at(at.line, at.column)

    def _merge(self, node: Node, into: _Mapping, depth: int) -> None:
        """A merge key's value: a mapping, an alias of one, or a list of those, first one first."""
        many = node.kind == "list"
        # Backwards, as goyaml goes: what comes later overwrites, so the first of a list wins.
        for part in reversed(node.children) if many else [node]:
            mapping = part if part.target is None else part.target
            if mapping.kind != "map":
                raise self._error(
                    part,
                    "a merge key (<<) whose value is no mapping",
                    "a mapping, an alias of one, or a list of those",
                    "write the keys out, or quote the key",
                )
            self._count(part)
            self._budget.node(depth, part.position, self._source)
            if part.target is None:
                self._fill(mapping, into, depth)
            else:
                alias = self._enter(part)
                self._count(mapping)
                self._fill(mapping, into, depth)
                self._aliases.discard(alias)

    def _key(self, node: Node) -> tuple[str, _KeyKind]:
        """A key as sigs.k8s.io/yaml makes a string of it: whole numbers and booleans too."""
        self._count(node)
        scalar = node
        if node.target is not None:
            alias = self._enter(node)
            self._count(node.target)
            self._aliases.discard(alias)
            scalar = node.target
        if scalar.kind != "scalar":
            raise self._error(
                node,
                f"a key that is a {'list' if scalar.kind == 'list' else 'mapping'}",
                "a string",
                "quote a text that begins with a bracket or a brace ({{ templates }} too)",
            )
        value = self._scalar(scalar, keep_float=True)
        if isinstance(value, str):
            return value, "str"
        if isinstance(value, bool):
            return ("true" if value else "false"), "bool"
        if isinstance(value, int):
            return str(value), "int"
        raise self._error(
            node,
            "null as a key" if value is None else f"the number {scalar.text[:40]} as a key",
            "a string",
            "quote it" + ("" if value is None else ": kubectl would round it to 32 bits"),
        )

    def _scalar(self, node: Node, *, keep_float: bool = False) -> Scalar:
        if node.tag is None and not node.plain:
            return node.text
        value: Scalar = node.text
        if node.tag != f"{TAG}str":
            value = resolve(node.text)
            if node.tag is not None:
                value = self._as_tagged(node, SCALAR_TAGS[node.tag], value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        number = safe_number(value, node.text, node.position, self._source)
        return float(number) if keep_float and isinstance(value, float) else number

    def _as_tagged(self, node: Node, name: str, value: Scalar) -> Scalar:
        # resolve.go, the deferred check: a whole number may stand for a float, nothing else.
        if name == "float" and isinstance(value, int) and not isinstance(value, bool):
            return float(value)
        if name != _name_of(value):
            raise self._error(
                node,
                f"{node.text[:40]!r} tagged !!{name}",
                f"a value of that type (it is a {_name_of(value)})",
                "remove the tag, or correct the value",
            )
        return value


class _Mapping:
    """A mapping being filled, with what its keys were before they became strings."""

    __slots__ = ("kinds", "positions", "values")

    def __init__(self) -> None:
        self.values: dict[str, JsonValue] = {}
        self.positions: dict[str, Position] = {}
        self.kinds: dict[str, _KeyKind] = {}


def _name_of(value: Scalar) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "str"
    return "int" if isinstance(value, int) else "float"
