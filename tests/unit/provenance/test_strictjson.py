"""JSON from strangers: one document, one reading."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.provenance import strictjson

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # st.text() has no surrogates
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(json_values)
def test_what_json_writes_is_read_as_json_reads_it(value: object) -> None:
    text = json.dumps(value).encode()
    assert strictjson.parse(text, max_bytes=len(text)) == json.loads(text)


@given(st.dictionaries(st.text(), json_values, max_size=4))
def test_a_parsed_document_is_checked_as_its_text_is(document: dict[str, object]) -> None:
    value, text = strictjson.from_mapping(document, max_bytes=100_000)
    assert value == json.loads(text) == document


@given(st.binary())
def test_no_bytes_make_the_reader_fail_otherwise(data: bytes) -> None:
    with contextlib.suppress(strictjson.JSONError):
        strictjson.parse(data, max_bytes=1000)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("stands twice", b'{"a": {"b": 1, "b": 1}}'),
        ("stands twice", b'{"a": 1, "\\u0061": 2}'),
        ("NaN", b'{"a": NaN}'),
        ("Infinity", b"[-Infinity]"),
        ("not UTF-8", b'"\xff"'),
        ("not JSON", '{"a": 1}'.encode("utf-16")[2:]),
        ("not JSON", b"\xef\xbb\xbf{}"),
        ("not JSON", b""),
        ("not JSON", b"{} {}"),
        ("not JSON", b"1" * 5000),
        ("surrogate", b'"\\ud800"'),
        ("surrogate", b'{"\\udfff": 1}'),
        ("nested deeper", b"[" * 40 + b"]" * 40),
        ("nested deeper", b"[" * 100_000),
        ("at most 200000", b" " * 200_001),
    ],
)
def test_what_readers_differ_on_is_refused(words: str, text: bytes) -> None:
    with pytest.raises(strictjson.JSONError, match=words):
        strictjson.parse(text, max_bytes=200_000)


@pytest.mark.parametrize(
    "document",
    [{"a": float("nan")}, {"a": b"bytes"}, {"a": {1: 2}}, {"a": "\ud800"}, {"a": {"b": {1, 2}}}],
    ids=str,
)
def test_a_parsed_document_with_what_json_lacks_is_refused(document: dict[str, object]) -> None:
    with pytest.raises(strictjson.JSONError):
        strictjson.from_mapping(document, max_bytes=1000)


def test_a_parsed_document_that_contains_itself_is_refused() -> None:
    document: dict[str, object] = {}
    document["a"] = document
    with pytest.raises(strictjson.JSONError, match="nested deeper"):
        strictjson.from_mapping(document, max_bytes=1000)
