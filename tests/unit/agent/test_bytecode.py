"""Byte code against its source: what Python writes passes, what an attacker writes does not."""

from __future__ import annotations

import importlib.util
import marshal
import struct
from contextlib import suppress
from importlib.util import MAGIC_NUMBER, cache_from_source

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainseal.agent.bytecode import (
    Source,
    check_code,
    check_header,
    partial,
    shape,
    source_of,
)

TEXT = b'''"""Adam."""
from __future__ import annotations
A = {1, 2.5, 3j, -(10**30), "\xc3\xa9", b"x", ..., None, True}
class Adam:
    def step(self, lr: float, *, sign: int = 1) -> float:
        """One step."""
        try:
            return [x for x in (lr, sign) if x in {1, 2, 3}][0]
        except IndexError:
            return (lambda: sign)() * lr
'''
SOURCE = Source(TEXT, 1_700_000_000, signed=True)
PATH = cache_from_source("/usr/lib/python3/dist-packages/torch/optim/adam.py")


def written(text: bytes = TEXT, level: int = 0, path: str = "/adam.py") -> bytes:
    code = compile(text, path, "exec", dont_inherit=True, optimize=level)
    return header() + marshal.dumps(code)


def header(modified: int = SOURCE.modified, size: int = len(TEXT)) -> bytes:
    return MAGIC_NUMBER + struct.pack("<III", 0, modified, size)


@pytest.mark.parametrize(("level", "tag"), [(0, ""), (1, ".opt-1"), (2, ".opt-2")])
def test_what_python_writes_matches(level: int, tag: str) -> None:
    data = written(level=level)
    path = PATH.replace(".pyc", f"{tag}.pyc")
    assert check_header(data, SOURCE).matches is None
    assert check_code(path, data, SOURCE).matches is True


def test_where_the_file_was_compiled_does_not_matter() -> None:
    assert check_code(PATH, written(path="/elsewhere/adam.py"), SOURCE).matches is True


def test_a_poisoned_file_with_a_matching_header_is_found() -> None:
    poisoned = written(TEXT.replace(b"* lr", b"* -lr"))
    assert check_header(poisoned, SOURCE).matches is None
    assert check_code(PATH, poisoned, SOURCE).matches is False


def test_code_after_the_code_is_found() -> None:
    assert check_code(PATH, written() + b"N", SOURCE).matches is False


def test_optimised_code_under_the_plain_name_is_found() -> None:
    assert check_code(PATH, written(level=2), SOURCE).matches is False


@pytest.mark.parametrize(
    "data",
    [
        b"",
        header()[:8],
        header(modified=SOURCE.modified + 1),
        header(size=len(TEXT) + 1),
        b"abcd" + header()[4:],
        MAGIC_NUMBER + struct.pack("<I", 1) + bytes(8),
        MAGIC_NUMBER + struct.pack("<I", 8) + header()[8:],
    ],
)
def test_a_header_that_names_another_source_is_found(data: bytes) -> None:
    assert check_header(data, SOURCE).matches is False


def test_a_hash_in_the_header_is_checked() -> None:
    data = MAGIC_NUMBER + struct.pack("<I", 3) + importlib.util.source_hash(TEXT)
    assert check_header(data, SOURCE).matches is None


def test_byte_code_without_a_source_is_found() -> None:
    assert check_header(written(), None).matches is False


def test_another_pythons_code_is_said_not_to_be_compared() -> None:
    magic = (3495 + 100).to_bytes(2, "little") + b"\r\n"
    data = magic + header()[4:] + b"whatever"
    assert check_header(data, SOURCE).matches is None
    found = check_code(PATH, data, SOURCE)
    assert found.matches is True
    assert "not compared" in found.why


def test_references_to_references_cost_nothing_more() -> None:
    # 60 nested pairs of a value and a reference to it: 2**60 values if they were followed.
    data = b"N"
    for depth in range(60):
        data = bytes([ord("(") | 0x80]) + struct.pack("<i", 2) + data
        data += b"r" + struct.pack("<i", 59 - depth + 1) if depth else b"N"
    assert shape(data)  # and it ends at once


@given(st.binary(max_size=300))
def test_any_bytes_have_a_shape_or_are_refused(data: bytes) -> None:
    with suppress(ValueError):
        shape(data)


@settings(max_examples=200)
@given(st.integers(0, 2000), st.integers(0, 255))
def test_no_changed_byte_passes_but_in_the_file_name(at: int, value: int) -> None:
    data = bytearray(written(path=""))
    at = 16 + at % (len(data) - 16)
    before = bytes(data[16:])
    data[at] = value
    try:
        same = shape(bytes(data[16:])) == shape(before)
    except ValueError:
        return
    if not same:
        return
    # Another way to write the same value: interned or not, remembered or not.
    try:
        loaded = marshal.loads(bytes(data[16:]))  # noqa: S302
    except (EOFError, SystemError, TypeError, ValueError):
        return  # what Python cannot load runs nowhere
    assert loaded == marshal.loads(before)  # noqa: S302


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("/a/__pycache__/b.cpython-311.pyc", "/a/b.py"),
        ("/a/__pycache__/b.cpython-311.opt-1.pyc", "/a/b.py"),
        ("/a/b.pyc", "/a/b.py"),
        ("/a/b.py", None),
    ],
)
def test_the_source_is_the_one_that_python_would_look_for(path: str, source: str | None) -> None:
    assert source_of(path) == source


def test_names_that_python_writes_under_first_are_known() -> None:
    assert partial("/a/__pycache__/b.cpython-311.pyc.140234")
    assert not partial("/a/b.pyc.140234")
    assert not partial("/a/__pycache__/b.cpython-311.pyc")


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(b"[" + struct.pack("<i", 0), id="a list, for a tuple"),
        pytest.param(b"<" + struct.pack("<i", 0), id="a set, for a frozen one"),
        pytest.param(b"a" + struct.pack("<i", 2) + "é".encode(), id="Latin-1, for UTF-8"),
    ],
)
def test_what_python_reads_otherwise_than_it_would_write_is_refused(value: bytes) -> None:
    assert marshal.loads(value) is not None  # noqa: S302
    with pytest.raises(ValueError, match=r"a value of kind|a text that"):
        shape(value)
