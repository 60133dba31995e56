"""Reads a manifest exactly as kubectl reads it, so that what is signed is what the cluster stores.

``read_documents`` is the way in; ``read_mapping``, for what is no manifest. kubectl splits a
manifest into documents itself, line by line, then reads each with sigs.k8s.io/yaml (goyaml v2, a
port of libyaml); a manifest that begins with a brace it tries as JSON first (k8s.io/apimachinery,
pkg/util/yaml/decoder.go). Here libyaml scans and parses, and what the pieces mean is decided as
goyaml does (``yamlscalars``, ``yamltree``).

Two laws, tested against kubectl itself:

* what kubectl refuses is refused;
* what both accept has one value.

Refused on purpose although kubectl would go on, each because signer and reader could differ or
because bytes would be dropped silently: duplicate keys, numbers beyond ±(2^53-1), text after a
document's end (``...``), tags but for those of JSON's types, keys that are fractions, a byte order
mark inside the text, text that is not UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from pydantic import JsonValue

from trainseal.provenance.document import Document, ManifestError, Position
from trainseal.provenance.jsonreader import JsonReader, NotJsonError
from trainseal.provenance.limits import MAX_BYTES, MAX_DOCUMENTS, Budget
from trainseal.provenance.yamltree import read_tree

_BOM = "\ufeff"
# Go's unicode.IsSpace, by which kubectl looks for the opening brace of JSON.
_GO_SPACE = "\t\n\v\f\r \x85\xa0\u1680" + "".join(map(chr, range(0x2000, 0x200B)))
_GO_SPACE += "\u2028\u2029\u202f\u205f\u3000"
_JSON_SPACE = " \t\r\n"
# How far kubectl looks for that brace.
_PEEK = 4096
# A line that is surely empty to YAML too (a carriage return or U+2028 would begin another).
_BLANK = re.compile("(?:---(?= |$))? *(?:#[\t\x20-\x7e]*)?")


def read_documents(text: str | bytes, source: str) -> list[Document]:
    """The objects of a manifest, YAML or JSON, in order; empty documents are passed over.

    ``source`` is the file's name for error messages. Raises ManifestError; bounded in bytes,
    nesting, values (aliases expanded) and documents.
    """
    content = _text(text, source)
    budget = Budget()
    trees = _json_first(content, source, budget)
    documents: list[Document] = []
    for value, position in trees:
        if value is None:
            continue
        if not isinstance(value, dict):
            raise ManifestError(
                position.place(source),
                f"a document that is {_kind_of(value)}",
                "an object with apiVersion, kind, metadata and spec",
                "write fields as key: value; separate documents by --- on a line of its own",
            )
        for field in ("apiVersion", "kind"):
            if not isinstance(named := value.get(field), str) or not named:
                raise ManifestError(
                    (position.child(field) or position).place(source),
                    f"{named!r:.40} as {field}" if field in value else f"an object without {field}",
                    f"{field}, as text",
                    f"write {field}; lines that begin with --- begin another object",
                )
        if len(documents) == MAX_DOCUMENTS:
            raise ManifestError(
                position.place(source),
                f"more than {MAX_DOCUMENTS} documents",
                f"at most {MAX_DOCUMENTS}",
                "split the manifest",
            )
        documents.append(Document(value, source, position))
    return documents


def read_mapping(text: str | bytes, source: str) -> Document:
    """The one mapping of a file that is no object of Kubernetes: a trainer's config.

    Nothing but comments is an empty one. Read as a manifest is, with the same bounds; raises
    ManifestError.
    """
    trees = [
        (v, at) for v, at in _json_first(_text(text, source), source, Budget()) if v is not None
    ]
    value, position = trees[0] if trees else ({}, Position(1, 1))
    if len(trees) > 1 or not isinstance(value, dict):
        raise ManifestError(
            trees[-1][1].place(source),
            "a second document" if len(trees) > 1 else f"a document that is {_kind_of(value)}",
            "one mapping",
            "write fields as key: value, in a file of their own",
        )
    return Document(value, source, position)


def _kind_of(value: JsonValue) -> str:
    return "a list" if isinstance(value, list) else f"the single value {str(value)[:40]!r}"


def _text(text: str | bytes, source: str) -> str:
    raw = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    if len(raw) > MAX_BYTES:
        raise ManifestError(
            f"{source}:1:1",
            f"{len(raw)} bytes",
            f"at most {MAX_BYTES}, what the API server accepts as one request",
            "split the manifest",
        )
    try:
        content = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode("utf-8")
        line = before.count("\n") + 1
        column = len(before) - (before.rfind("\n") + 1) + 1
        raise ManifestError(
            f"{source}:{line}:{column}",
            f"bytes that are no UTF-8 (0x{raw[error.start]:02x})",
            "UTF-8",
            "save the file as UTF-8: kubectl would silently put U+FFFD in their place",
        ) from None
    content = content.removeprefix(_BOM)
    if (index := content.find(_BOM)) >= 0:
        line = content.count("\n", 0, index) + 1
        column = index - (content.rfind("\n", 0, index) + 1) + 1
        raise ManifestError(
            f"{source}:{line}:{column}",
            "a byte order mark (U+FEFF) inside the text",
            "one at the very beginning at most",
            "remove it: it is invisible, and readers disagree on what it means there",
        )
    return content


def _json_first(text: str, source: str, budget: Budget) -> Iterator[tuple[JsonValue, Position]]:
    stripped = text.lstrip(_GO_SPACE)
    lead = text[: len(text) - len(stripped)]
    if not stripped.startswith("{") or len(lead.encode()) >= _PEEK:
        yield from _yaml(text, 1, source, budget)
        return
    if odd := lead.strip(_JSON_SPACE):
        raise ManifestError(
            f"{source}:1:1",
            f"white space of an unusual kind (U+{ord(odd[0]):04X}) before the opening brace",
            "spaces and line breaks",
            "remove it: kubectl's versions disagree on what it means there",
        )
    reader = JsonReader(text, source, budget)
    count = 0
    before = 0
    while reader.skip_space():
        start = reader.offset
        try:
            value, position = reader.value()
        except NotJsonError as problem:
            not_json = ManifestError(
                reader.where(problem.offset), str(problem), "JSON, as it begins", "correct it there"
            )
            # After two objects kubectl holds the stream for JSON and nothing else.
            if count > 1:
                raise not_json from None
            rest, line = _rest_as_yaml(reader, text, before, start, not_json)
            try:
                yield from _yaml(rest, line, source, budget)
            except ManifestError as error:
                error.add_note(f"as JSON: {not_json}")
                raise
            return
        count += 1
        before = reader.offset
        yield value, position


def _rest_as_yaml(
    reader: JsonReader, text: str, before: int, start: int, not_json: ManifestError
) -> tuple[str, int]:
    """What begins with a brace and is no JSON (YAML in flow style), or follows one JSON object.

    The text and the number of its first line. kubectl drops the white space before it as far as
    the first line break, looking four bytes ahead: with less than that left it gives up.
    """
    line_break = text.find("\n", before, start)
    if len(text[line_break if line_break >= 0 else start :][:4].encode()) < 4:
        raise not_json
    if line_break >= 0:
        return text[line_break + 1 :], reader.place(line_break).line + 1
    if before:
        raise ManifestError(
            reader.where(start),
            "text after a JSON object in its line",
            "another JSON object, or --- on a line of its own",
            "break the line there",
        )
    return " " * start + text[start:], 1


def _yaml(
    text: str, first_line: int, source: str, budget: Budget
) -> Iterator[tuple[JsonValue, Position]]:
    for line, chunk in _chunks(text, first_line, source):
        yield read_tree(chunk, line, source, budget)


def _chunks(text: str, first_line: int, source: str) -> Iterator[tuple[int, str]]:
    """kubectl's YAMLReader: documents as it cuts them, each with the number of its first line.

    A line that begins with three dashes separates, wherever it stands, and may hold nothing else
    but a comment. CRLF becomes LF, and the last line always ends in one. What holds only
    comments and blanks is left out.
    """
    lines = text.split("\n")
    final = lines.pop()
    ended = [line.removesuffix("\r") for line in lines]
    if final:
        ended.append(final)
    chunk: list[str] = []
    start = first_line
    for number, line in enumerate(ended, first_line):
        if line.startswith("---"):
            rest = line[3:].strip(_GO_SPACE)
            if rest and not rest.startswith("#"):
                raise ManifestError(
                    f"{source}:{number}:4",
                    f"{rest[:40]!r} after ---",
                    "--- alone on its line, or with a comment after it",
                    "move it to the next line; kubectl takes every line that begins with --- for"
                    " the end of a document",
                )
            if chunk:
                if not all(map(_BLANK.fullmatch, chunk)):
                    yield start, "\n".join([*chunk, ""])
                chunk = []
                start = number + 1
                continue
        chunk.append(line)
    if chunk and not all(map(_BLANK.fullmatch, chunk)):
        yield start, "\n".join([*chunk, ""])
