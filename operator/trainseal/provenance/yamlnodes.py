"""One YAML document as nodes: libyaml's events, and what libyaml reads otherwise than goyaml.

goyaml v2, by which kubectl reads, is a port of an older libyaml. Where the two part, the text is
refused here, so that no document has two readings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Literal

import yaml

from trainseal.provenance.document import ManifestError, Position
from trainseal.provenance.limits import Budget

TAG = "tag:yaml.org,2002:"
#: The tags that a scalar may carry, and their short names.
SCALAR_TAGS = {f"{TAG}{name}": name for name in ("str", "int", "float", "bool", "null")}
# goyaml's reader; libyaml's is the same, but says it without a place.
_NOT_PRINTABLE = re.compile("[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
# A "!" by itself, after an anchor and comments or not.
_BREAK = "\n\r\x85\u2028\u2029"
# The one escape that libyaml knows and goyaml does not.
_SLASH_ESCAPE = re.compile(r"(?<!\\)(?:\\\\)*\\/")
_LONE_TAG = re.compile(rf"(?:&[0-9A-Za-z_-]+(?:\s|#[^{_BREAK}]*[{_BREAK}])*)?!")


class Node:
    """A node of a document; ``target`` is an alias's."""

    __slots__ = ("children", "flow", "kind", "plain", "position", "tag", "target", "text")

    def __init__(self, kind: Literal["scalar", "list", "map", "alias"], position: Position) -> None:
        self.kind = kind
        self.position = position
        self.tag: str | None = None
        self.text = ""
        #: Unquoted and untagged: what the text means decides.
        self.plain = False
        #: Written in brackets or braces.
        self.flow = False
        self.children: list[Node] = []
        self.target: Node | None = None


def compose(chunk: str, first_line: int, source: str) -> Node | None:
    """The root of one document, None where ``chunk`` holds none; raises ManifestError.

    ``first_line`` is the number of the chunk's first line in ``source``.
    """
    return _Composer(chunk, first_line, source).root()


def _start(event: yaml.Event) -> tuple[int, int, int]:
    """Line, column and offset at which an event begins, from 0."""
    mark = event.start_mark
    return (mark.line, mark.column, mark.index) if mark is not None else (0, 0, 0)


class _Composer:
    def __init__(self, chunk: str, first_line: int, source: str) -> None:
        self._chunk = chunk
        self._first_line = first_line
        self._source = source

    def _at(self, event: yaml.Event) -> Position:
        line, column, _ = _start(event)
        return Position(self._first_line + line, column + 1)

    def _place(self, line: int, column: int) -> str:
        return Position(self._first_line + line, column + 1).place(self._source)

    def _error(self, node: Node, found: str, expected: str, remedy: str) -> ManifestError:
        return ManifestError(node.position.place(self._source), found, expected, remedy)

    def root(self) -> Node | None:
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
            if error.problem == "found unexpected end of stream":
                mark = error.context_mark or mark  # where the quote was opened
            if mark and error.problem == "did not find expected <document start>":
                raise self._after_end(self._place(mark.line, mark.column)) from None
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

    def _compose(self, events: Iterator[yaml.Event]) -> Node | None:
        root: Node | None = None
        stack: list[Node] = []
        composed = Budget()
        anchors: dict[str, Node] = {}
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
                    raise self._after_end(node.position.place(self._source))
                if node.kind in ("list", "map"):
                    stack.append(node)
                composed.node(len(stack), node.position, self._source)
            elif isinstance(event, yaml.CollectionEndEvent):
                stack.pop()
            elif isinstance(event, yaml.DocumentStartEvent) and (event.version or event.tags):
                raise ManifestError(
                    self._at(event).place(self._source),
                    "a directive (%YAML or %TAG)",
                    "none",
                    "remove it: kubectl does not read it",
                )
        return root

    @staticmethod
    def _after_end(place: str) -> ManifestError:
        return ManifestError(
            place,
            "text after the end of the document",
            "the end of the file, or --- on a line of its own",
            "remove it, or indent it as the lines before: kubectl would silently leave it out",
        )

    def _node(self, event: yaml.NodeEvent, anchors: dict[str, Node]) -> Node:
        name = event.anchor
        if isinstance(event, yaml.AliasEvent):
            node = Node("alias", self._at(event))
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
            node = Node("scalar", self._at(event))
            node.text = event.value
            node.plain = event.implicit[0]
            node.tag = event.tag
            if event.style == '"':
                self._check_escapes(event, node)
            # libyaml forgets a lone "!", by which goyaml makes a string of what follows.
            if node.plain and node.tag is None and _LONE_TAG.match(self._chunk, _start(event)[2]):
                node.tag = "!"
        else:
            kind: Literal["list", "map"] = (
                "list" if isinstance(event, yaml.SequenceStartEvent) else "map"
            )
            node = Node(kind, self._at(event))
            if isinstance(event, yaml.CollectionStartEvent):
                node.tag = event.tag
                node.flow = bool(event.flow_style)
        self._check_tag(node)
        if name is not None:
            anchors[name] = node
        return node

    def _check_escapes(self, event: yaml.ScalarEvent, node: Node) -> None:
        end = event.end_mark.index if event.end_mark is not None else 0
        raw = self._chunk[_start(event)[2] : end]
        if "\\/" in raw and _SLASH_ESCAPE.search(raw):
            raise self._error(
                node,
                "the escape \\/ in a string",
                "the escapes that kubectl's YAML reader knows",
                "write / without a backslash, or the whole document as JSON",
            )

    def _check_flow(self, node: Node) -> None:
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

    def _check_tag(self, node: Node) -> None:
        if node.tag is None:
            return
        allowed = SCALAR_TAGS
        if node.kind == "list":
            allowed = {f"{TAG}seq": "seq"}
        elif node.kind == "map":
            allowed = {f"{TAG}map": "map"}
        if node.tag not in allowed:
            tag = node.tag.replace(TAG, "!!")
            names = ", ".join(f"!!{name}" for name in allowed.values())
            raise self._error(
                node,
                f"the tag {tag}",
                f"no tag, or one of {names}",
                "remove it: readers disagree on what it makes of the value, and JSON has no tags",
            )
