"""One YAML document as a JSON tree, built from libyaml's events the way goyaml v2 builds it.

The order of work is goyaml's (``decode.go``: unmarshal, mapping, merge, alias), because some of
its results depend on it: a merge key (``<<``) takes effect where it stands, so that what follows
it wins and what precedes it loses, and aliases are bounded by the share of values that come from
them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import yaml
from pydantic import JsonValue

from trainseal.provenance.document import ManifestError, Position
from trainseal.provenance.limits import Budget, safe_number
from trainseal.provenance.yamlscalars import Scalar, resolve

_TAG = "tag:yaml.org,2002:"
_SCALAR_TAGS = {f"{_TAG}{name}": name for name in ("str", "int", "float", "bool", "null")}
# goyaml's reader; libyaml's is the same, but says it without a place.
_NOT_PRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# A "!" by itself, after an anchor and comments or not.
_BREAK = "\n\r\x85\u2028\u2029"
# The one escape that libyaml knows and goyaml does not.
_SLASH_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\/")
_LONE_TAG = re.compile(rf"(?:&[0-9A-Za-z_-]+(?:\s|#[^{_BREAK}]*[{_BREAK}])*)?!")
# Python type of a key before it became a string: 1 and "1" are two keys to goyaml.
_KeyKind = Literal["str", "int", "bool"]


class _Node:
    """A node of the document; ``target`` is an alias's."""

    __slots__ = ("children", "column", "flow", "kind", "line", "plain", "tag", "target", "text")

    def __init__(self, kind: Literal["scalar", "list", "map", "alias"], event: yaml.Event) -> None:
        self.kind = kind
        self.line, self.column, _ = _start(event)
        self.tag: str | None = None
        self.text = ""
        self.plain = False
        self.flow = False
        self.children: list[_Node] = []
        self.target: _Node | None = None


def read_tree(
    chunk: str, first_line: int, source: str, budget: Budget
) -> tuple[JsonValue, Position]:
    """The value of one document and the positions in it; raises ManifestError.

    ``chunk`` is one document's text, ``first_line`` the number of its first line in ``source``.
    """
    builder = _Builder(chunk, first_line, source, budget)
    root = builder.compose()
    if root is None:
        return None, Position(first_line, 1)
    return builder.document(root)


def _start(event: yaml.Event) -> tuple[int, int, int]:
    """Line, column and offset at which an event begins, from 0."""
    mark = event.start_mark
    return (mark.line, mark.column, mark.index) if mark is not None else (0, 0, 0)


class _Builder:
    def __init__(self, chunk: str, first_line: int, source: str, budget: Budget) -> None:
        self._chunk = chunk
        self._first_line = first_line
        self._source = source
        self._budget = budget
        self._aliases: set[int] = set()
        self._decoded = 0
        self._from_aliases = 0

    # -- places and errors

    def _position(self, node: _Node) -> Position:
        return Position(self._first_line + node.line, node.column + 1)

    def _place(self, line: int, column: int) -> str:
        return f"{self._source}:{self._first_line + line}:{column + 1}"

    def _error(self, node: _Node, found: str, expected: str, remedy: str) -> ManifestError:
        return ManifestError(self._place(node.line, node.column), found, expected, remedy)

    # -- events to nodes (goyaml's parser)

    def compose(self) -> _Node | None:
        """The document's root; None where the chunk holds none."""
        if odd := _NOT_PRINTABLE.search(self._chunk):
            line = self._chunk.count("\n", 0, odd.start())
            column = odd.start() - (self._chunk.rfind("\n", 0, odd.start()) + 1)
            raise ManifestError(
                self._place(line, column),
                f"the control character U+{ord(odd[0]):04X}",
                "printable text",
                "write it as an escape (\\x07) in a double-quoted string",
            )
        try:
            return self._compose(yaml.parse(self._chunk, Loader=yaml.CSafeLoader))
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            raise ManifestError(
                self._place(mark.line, mark.column) if mark else self._place(0, 0),
                f"text that is no YAML ({' '.join(filter(None, [error.problem, error.context]))})",
                "YAML",
                "correct the indentation, the quotes or the brackets there",
            ) from None
        except yaml.YAMLError as error:
            raise ManifestError(
                self._place(0, 0), f"text that cannot be read ({error})", "YAML", "correct it"
            ) from None

    def _compose(self, events: Iterator[yaml.Event]) -> _Node | None:
        root: _Node | None = None
        stack: list[_Node] = []
        composed = Budget()
        anchors: dict[str, _Node] = {}
        for event in events:
            if isinstance(event, yaml.NodeEvent):
                node = self._node(event, anchors)
                if stack:
                    if stack[-1].flow and isinstance(event, yaml.ScalarEvent) and not event.style:
                        self._check_flow(node)
                    stack[-1].children.append(node)
                elif root is None:
                    root = node
                else:
                    raise self._error(
                        node,
                        "text after the end of the document",
                        "the end of the file, or --- on a line of its own",
                        "remove it: kubectl would silently leave it out",
                    )
                if node.kind in ("list", "map"):
                    stack.append(node)
                composed.node(len(stack), self._position(node), self._source)
            elif isinstance(event, yaml.CollectionEndEvent):
                stack.pop()
            elif isinstance(event, yaml.DocumentStartEvent) and (event.version or event.tags):
                line, column, _ = _start(event)
                raise ManifestError(
                    self._place(line, column),
                    "a directive (%YAML or %TAG)",
                    "none",
                    "remove it: kubectl does not read it",
                )
        return root

    def _node(self, event: yaml.NodeEvent, anchors: dict[str, _Node]) -> _Node:
        name = event.anchor
        if isinstance(event, yaml.AliasEvent):
            node = _Node("alias", event)
            node.target = anchors.get(name or "")
            if node.target is None:
                raise self._error(
                    node,
                    f"the alias *{name} without its anchor",
                    f"&{name} earlier in the same document",
                    "add the anchor, or quote a text that begins with *",
                )
            return node
        if isinstance(event, yaml.ScalarEvent):
            node = _Node("scalar", event)
            node.text = event.value
            node.plain = event.implicit[0]
            node.tag = event.tag
            if event.style == '"':
                self._check_escapes(event, node)
            # libyaml forgets a lone "!", by which goyaml makes a string of what follows.
            if node.plain and node.tag is None and _LONE_TAG.match(self._chunk, _start(event)[2]):
                node.tag = "!"
        else:
            node = _Node("list" if isinstance(event, yaml.SequenceStartEvent) else "map", event)
            if isinstance(event, yaml.CollectionStartEvent):
                node.tag = event.tag
                node.flow = bool(event.flow_style)
        self._check_tag(node)
        if name is not None:
            anchors[name] = node
        return node

    def _check_escapes(self, event: yaml.ScalarEvent, node: _Node) -> None:
        end = event.end_mark.index if event.end_mark is not None else 0
        raw = self._chunk[_start(event)[2] : end]
        if "\\/" in raw and _SLASH_ESCAPE.search(raw):
            raise self._error(
                node,
                "the escape \\/ in a string",
                "the escapes that kubectl's YAML reader knows",
                "write / without a backslash, or the whole document as JSON",
            )

    def _check_flow(self, node: _Node) -> None:
        # goyaml is older here than libyaml: within brackets a "?" ends an unquoted text, and
        # a "," belongs to the tag before it.
        if "?" in node.text:
            raise self._error(
                node,
                f"the unquoted text {node.text[:40]!r} within brackets or braces",
                "one without a question mark",
                "quote it: kubectl ends such a text at the question mark, and fails",
            )

        if node.tag is not None and not node.text:
            raise self._error(
                node,
                "a tag with nothing after it within brackets or braces",
                "a value",
                "write the value (an empty string is '')",
            )

    def _check_tag(self, node: _Node) -> None:
        if node.tag is None:
            return
        allowed = _SCALAR_TAGS
        if node.kind == "list":
            allowed = {f"{_TAG}seq": "seq"}
        elif node.kind == "map":
            allowed = {f"{_TAG}map": "map"}
        if node.tag not in allowed:
            tag = node.tag.replace(_TAG, "!!")
            names = ", ".join(f"!!{name}" for name in allowed.values())
            raise self._error(
                node,
                f"the tag {tag}",
                f"no tag, or one of {names}",
                "remove it: readers disagree on what it makes of the value, and JSON has no tags",
            )

    # -- nodes to values (goyaml's decoder)

    def document(self, root: _Node) -> tuple[JsonValue, Position]:
        """The document's value, and the positions in it."""
        self._count(root)
        return self._value(root, 0)

    def _count(self, node: _Node) -> None:
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

    def _value(self, node: _Node, depth: int) -> tuple[JsonValue, Position]:
        self._count(node)
        position = self._position(node)
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

    def _enter(self, node: _Node) -> int:
        if id(node) in self._aliases:
            raise self._error(
                node, "an anchor whose value contains itself", "a finite value", "write it out"
            )
        self._aliases.add(id(node))
        return id(node)

    def _fill(self, node: _Node, into: _Mapping, depth: int) -> None:
        """Puts a mapping's keys into ``into``; a merge key's where it stands."""
        own: dict[str, _Node] = {}
        children = iter(node.children)
        for key_node, value_node in zip(children, children, strict=True):
            if key_node.kind == "scalar" and key_node.plain and key_node.text == "<<":
                self._merge(value_node, into, depth)
                continue
            key, kind = self._key(key_node)
            if key in own:
                first = self._first_line + own[key].line
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
            at = self._position(key_node)
            into.positions[key] = inner.at(at.line, at.column)

    def _merge(self, node: _Node, into: _Mapping, depth: int) -> None:
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
            self._budget.node(depth, self._position(part), self._source)
            if part.target is None:
                self._fill(mapping, into, depth)
            else:
                alias = self._enter(part)
                self._count(mapping)
                self._fill(mapping, into, depth)
                self._aliases.discard(alias)

    def _key(self, node: _Node) -> tuple[str, _KeyKind]:
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

    def _scalar(self, node: _Node, *, keep_float: bool = False) -> Scalar:
        if node.tag is None and not node.plain:
            return node.text
        value: Scalar = node.text
        if node.tag != f"{_TAG}str":
            value = resolve(node.text)
            if node.tag is not None:
                value = self._as_tagged(node, _SCALAR_TAGS[node.tag], value)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return value
        number = safe_number(value, node.text, self._position(node), self._source)
        return float(number) if keep_float and isinstance(value, float) else number

    def _as_tagged(self, node: _Node, name: str, value: Scalar) -> Scalar:
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
