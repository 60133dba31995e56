"""Changes a manifest's text in a few places and leaves the rest as its author wrote it.

Where a text does not lend itself to that (flow style, merge keys), nothing is guessed: whatever
was changed is read again, and anything but the wanted objects is a LayoutError. So the edits may
be simple-minded, and the law is: ``read(edited(text, …)) == wanted``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import yaml
from pydantic import JsonValue

from trainseal.api.model import JsonObject
from trainseal.provenance.document import Document, FieldPath, ManifestError
from trainseal.provenance.yamlreader import read_documents

_SIGNATURES = ("spec", "signatures")


class LayoutError(ValueError):
    """The text cannot be changed in place; write it anew, or change it by hand."""


@dataclass(frozen=True, slots=True)
class _Edit:
    """``text[start:end]`` becomes ``new``. Offsets in characters."""

    start: int
    end: int
    new: str


def edited(
    text: str,
    documents: Sequence[Document],
    index: int,
    replacements: Mapping[FieldPath, str],
    signatures: Sequence[JsonValue],
) -> str:
    """The text with scalars replaced, and ``spec.signatures``, in its document ``index``.

    Raises LayoutError.
    """
    values = [document.value for document in documents]
    wanted = [
        *values[:index],
        changed(values[index], replacements, signatures),
        *values[index + 1 :],
    ]
    if text.lstrip("\ufeff").lstrip().startswith("{"):
        result = "\n".join(json.dumps(v, indent=2, ensure_ascii=False) for v in wanted) + "\n"
    else:
        result = _edited_yaml(text, documents[index], replacements, signatures)
    try:
        found = [document.value for document in read_documents(result, "")]
    except ManifestError as error:
        raise LayoutError(str(error)) from None
    if found != wanted:
        raise LayoutError("its layout (anchors, merge keys or flow style) is not one to edit")
    return result


def written_anew(
    documents: Sequence[Document],
    index: int,
    replacements: Mapping[FieldPath, str],
    signatures: Sequence[JsonValue],
) -> str:
    """The same objects in a layout of ours: YAML that is JSON, one object a document."""
    values = [document.value for document in documents]
    values[index] = changed(values[index], replacements, signatures)
    return "\n---\n".join(json.dumps(v, indent=2, ensure_ascii=False) for v in values) + "\n"


def changed(
    value: JsonObject, replacements: Mapping[FieldPath, str], signatures: Sequence[JsonValue]
) -> JsonObject:
    """The object that the edited text must mean."""
    copy: JsonObject = json.loads(json.dumps(value))
    for path, new in replacements.items():
        at: JsonValue = copy
        for part in path[:-1]:
            at = at[part]  # type: ignore[index]
        at[path[-1]] = new  # type: ignore[index]
    spec = copy["spec"]
    if isinstance(spec, dict):
        spec["signatures"] = list(signatures)
    return copy


def _edited_yaml(
    text: str,
    document: Document,
    replacements: Mapping[FieldPath, str],
    signatures: Sequence[JsonValue],
) -> str:
    first, chunk = _chunk(text, document.position.line)
    try:
        root = yaml.compose(chunk, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        raise LayoutError(str(error)) from None
    scalars = {_scalar(root, path): new for path, new in replacements.items()}
    edits = [_replace(chunk, node, new) for node, new in scalars.items()]
    edits.append(_signatures(chunk, root, document.value, signatures))
    edits.sort(key=lambda edit: edit.start, reverse=True)
    for edit in edits:
        chunk = chunk[: edit.start] + edit.new + chunk[edit.end :]
    lines = text.split("\n")
    return "\n".join(lines[:first]) + ("\n" if first else "") + chunk + _rest(lines, first)


def _chunk(text: str, line: int) -> tuple[int, str]:
    """The document around a line (from 1): the number of lines before it, and its text."""
    lines = text.split("\n")
    first = line - 1
    while first > 0 and not lines[first - 1].startswith("---"):
        first -= 1
    chunk = "\n".join(lines[first : _last(lines, first)])
    return first, chunk + "\n" if _last(lines, first) < len(lines) else chunk


def _rest(lines: Sequence[str], first: int) -> str:
    return "\n".join(lines[_last(lines, first) :])


def _last(lines: Sequence[str], first: int) -> int:
    for at in range(first, len(lines)):
        if lines[at].startswith("---") and at > first:
            return at
    return len(lines)


def _scalar(root: yaml.Node | None, path: FieldPath) -> yaml.ScalarNode:
    node = root
    for part in path:
        node = _child(node, part)
    if not isinstance(node, yaml.ScalarNode):
        raise LayoutError(f"{path[-1]} is not where it was expected")
    return node


def _child(node: yaml.Node | None, part: str | int) -> yaml.Node | None:
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int):
        return node.value[part] if part < len(node.value) else None
    pair = _pair(node, str(part))
    if pair is not None:
        return pair[1]
    merged = _pair(node, "<<")
    return _child(merged[1], part) if merged and isinstance(merged[1], yaml.MappingNode) else None


def _pair(node: yaml.Node | None, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    if isinstance(node, yaml.MappingNode):
        for found, value in node.value:
            if isinstance(found, yaml.ScalarNode) and found.value == key:
                return found, value
    return None


def _replace(chunk: str, node: yaml.ScalarNode, new: str) -> _Edit:
    """The scalar's text replaced, in its quotes; an anchor or a tag before it stays."""
    start, end = node.start_mark.index, node.end_mark.index
    while chunk[start : start + 1] in ("&", "!"):
        while start < end and not chunk[start].isspace():
            start += 1
        while start < end and chunk[start].isspace():
            start += 1
    if node.style in ("|", ">"):
        return _Edit(start, end, json.dumps(new) + "\n")
    quote = chunk[start] if node.style in ("'", '"') else ""
    return _Edit(start, end, f"{quote}{new}{quote}")


def _signatures(
    chunk: str, root: yaml.Node | None, value: JsonObject, wanted: Sequence[JsonValue]
) -> _Edit:
    pair = _pair(root, "spec")
    spec = pair[1] if pair else None
    if not isinstance(spec, yaml.MappingNode) or spec.flow_style:
        raise LayoutError("its spec is not written in block style")
    newline = "\r\n" if "\r\n" in chunk else "\n"
    indent = " " * spec.start_mark.column
    found = _pair(spec, "signatures")
    if found is None:
        items = _items(wanted, indent + _sequence_indent(spec), newline)
        at, before = _line_after(chunk, _end(chunk, spec), newline)
        return _Edit(at, at, f"{before}{indent}signatures:{newline}{items}")
    key, entry = found
    held = value["spec"]
    present = held.get("signatures") if isinstance(held, dict) else None
    known = len(present) if isinstance(present, list) else 0
    if (
        isinstance(entry, yaml.SequenceNode)
        and not entry.flow_style
        and entry.start_mark.index > key.start_mark.index
        and list(wanted[:known]) == present
    ):
        at, before = _line_after(chunk, _end(chunk, entry), newline)
        items = _items(wanted[known:], " " * entry.start_mark.column, newline)
        return _Edit(at, at, before + items)
    start = chunk.rfind("\n", 0, key.start_mark.index) + 1
    if chunk[start : key.start_mark.index].strip():
        raise LayoutError("spec.signatures does not begin its line")
    end, before = _line_after(chunk, max(_end(chunk, entry), key.end_mark.index), newline)
    items = _items(wanted, indent + _sequence_indent(spec), newline)
    return _Edit(start, end, f"{indent}signatures:{newline}{items}")


def _items(signatures: Sequence[JsonValue], indent: str, newline: str) -> str:
    """One signature a line: its bundle as JSON, which is YAML too."""
    return "".join(f"{indent}- {_entry(signature)}{newline}" for signature in signatures)


def _entry(signature: JsonValue) -> str:
    if isinstance(signature, dict) and list(signature) == ["bundle"]:
        return f"bundle: {json.dumps(signature['bundle'], ensure_ascii=False)}"
    return json.dumps(signature, ensure_ascii=False)


def _sequence_indent(spec: yaml.MappingNode) -> str:
    """How far the author indents a list below its key."""
    for key, value in spec.value:
        if isinstance(value, yaml.SequenceNode) and not value.flow_style:
            width: int = value.start_mark.column - key.start_mark.column
            return " " * max(0, width)
    return ""


def _end(chunk: str, node: yaml.Node) -> int:
    """The offset behind a node's last character; libyaml's own includes what follows."""
    if isinstance(node, yaml.ScalarNode) or getattr(node, "flow_style", False):
        end: int = node.end_mark.index
        return end
    return max([node.start_mark.index, *(_end(chunk, inner) for inner in _inner(node))])


def _inner(node: yaml.Node) -> Iterator[yaml.Node]:
    """The nodes that stand within this one; an alias' target stands before it."""
    for item in node.value:
        for inner in item if isinstance(item, tuple) else (item,):
            if inner.start_mark.index >= node.start_mark.index:
                yield inner


def _line_after(chunk: str, offset: int, newline: str) -> tuple[int, str]:
    """Where the line that holds ``offset - 1`` ends, and the line break that it lacks."""
    if offset and chunk[offset - 1] == "\n":
        return offset, ""
    at = chunk.find("\n", offset)
    return (at + 1, "") if at >= 0 else (len(chunk), newline)
