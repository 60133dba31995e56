"""The tar reader on bytes that nobody meant as a tar."""

from __future__ import annotations

import asyncio
import gzip
import io
import tarfile
from collections.abc import AsyncIterator

from hypothesis import given
from hypothesis import strategies as st

from tests.unit.gate.world import plain, tar
from trainseal.gate.outcomes import RefusedError
from trainseal.gate.tar_stream import TarStream, inflated
from trainseal.provenance.tree_paths import check_path

LAYER = tar(
    [plain("train.py", b"import torch\n"), plain("d" * 120 + "/größe", b"x" * 700), plain("e")]
)


async def chunked(content: bytes, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(content), size):
        yield content[start : start + size]


def read(content: bytes, size: int = 100, *, gzipped: bool = False) -> dict[str, bytes] | None:
    """The files of a tar that comes in chunks of ``size``; None where it is refused."""

    async def files() -> dict[str, bytes]:
        chunks = chunked(content, size)
        stream = TarStream(inflated(chunks, len(content)) if gzipped else chunks)
        found = {}
        while member := await stream.next():
            found[member.path] = b"".join([bytes(chunk) async for chunk in stream.content()])
            assert len(found[member.path]) == member.size
        return found

    try:
        return asyncio.run(files())
    except RefusedError:
        return None


def by_tarfile(content: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return {
            member.name: file.read()
            for member in archive
            if (file := archive.extractfile(member)) is not None
        }


@given(st.integers(1, len(LAYER)))
def test_files_are_the_same_in_whatever_chunks_the_tar_comes(size: int) -> None:
    assert read(LAYER, size) == by_tarfile(LAYER)
    packed = gzip.compress(LAYER)
    assert read(packed, min(size, len(packed)), gzipped=True) == by_tarfile(LAYER)


@given(st.binary(max_size=3000))
def test_arbitrary_bytes_are_refused_and_raise_nothing_else(content: bytes) -> None:
    assert not read(content)
    assert not read(content, gzipped=True)


@given(
    st.lists(st.tuples(st.integers(0, len(LAYER) - 1), st.integers(0, 255)), min_size=1, max_size=4)
)
def test_a_damaged_tar_is_refused_or_read_as_python_reads_it(
    damage: list[tuple[int, int]],
) -> None:
    changed = bytearray(LAYER)
    for at, value in damage:
        changed[at] = value
    found = read(bytes(changed))
    if found is not None:
        assert found == by_tarfile(bytes(changed))
        for path in found:
            check_path(path)
