"""Reading what the kernel writes into a fanotify queue."""

from __future__ import annotations

import os
import struct
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.agent.fanotify import (
    CREATE,
    MODIFY,
    RENAME,
    DecodeError,
    Event,
    Named,
    decode,
)

FSID = b"fsid0001"


def event(mask: int, fd: int, pid: int, records: bytes = b"", *, version: int = 3) -> bytes:
    return struct.pack("=IBBHQii", 24 + len(records), version, 0, 24, mask, fd, pid) + records


def record(kind: int, handle: bytes, name: str) -> bytes:
    body = FSID + struct.pack("=Ii", len(handle), 248) + handle + os.fsencode(name) + b"\0"
    body += b"\0" * (-(len(body) + 4) % 4)
    return struct.pack("=BBH", kind, 0, 4 + len(body)) + body


def key(handle: bytes) -> bytes:
    return FSID + struct.pack("=i", 248) + handle


def test_descriptor_events_are_read_in_order() -> None:
    data = event(MODIFY, 7, 11) + event(MODIFY, 8, 12)
    assert decode(data) == [Event(MODIFY, 7, 11), Event(MODIFY, 8, 12)]


def test_a_name_is_read_with_its_directory() -> None:
    data = event(CREATE, -1, 11, record(2, b"directory", "new.py") + record(1, b"file", ""))
    assert decode(data) == [Event(CREATE, -1, 11, named=Named(key(b"directory"), "new.py"))]


def test_a_rename_has_both_names() -> None:
    data = event(RENAME, -1, 11, record(10, b"a", "old") + record(12, b"b", "new"))
    assert decode(data)[0].old == Named(key(b"a"), "old")
    assert decode(data)[0].new == Named(key(b"b"), "new")


def test_a_name_that_is_no_text_is_kept() -> None:
    name = os.fsdecode(b"\xff\xfe")
    (found,) = decode(event(CREATE, -1, 11, record(2, b"directory", name)))
    assert found.named is not None
    assert os.fsencode(found.named.name) == b"\xff\xfe"


def test_another_interface_version_is_refused() -> None:
    with pytest.raises(DecodeError, match="version 4"):
        decode(event(MODIFY, 7, 11, version=4))


def test_descriptors_before_a_broken_event_are_told_so_that_they_get_closed() -> None:
    with pytest.raises(DecodeError) as caught:
        decode(event(MODIFY, 7, 11) + event(MODIFY, 8, 12, b"\2\0\xff\xff"))
    assert [e.fd for e in caught.value.events] == [7, 8]


@given(st.binary(max_size=200))
def test_any_bytes_decode_or_are_refused(data: bytes) -> None:
    with suppress(DecodeError):
        decode(data)


@given(
    st.lists(
        st.tuples(
            st.sampled_from([2, 10, 12]), st.binary(max_size=128), st.text("abc.é", max_size=20)
        ),
        max_size=3,
    ),
    st.integers(0, 400),
)
def test_cutting_events_off_never_makes_up_a_name(
    records: list[tuple[int, bytes, str]], cut: int
) -> None:
    data = event(CREATE, -1, 5, b"".join(record(*r) for r in records))
    names = {name for _, _, name in records}
    try:
        found = decode(data[:cut])
    except DecodeError as error:
        found = error.events
    for one in found:
        for named in (one.named, one.old, one.new):
            assert named is None or named.name in names
