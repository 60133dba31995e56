"""Tar, read from a stream by a strict reader: plain files and nothing else come out of it.

POSIX.1-2017 (pax, ustar) and GNU's long names, as tar, Go, Python and ``git archive`` write them.
Python's own ``tarfile`` is not used: it reads extension headers of any size into memory, and it
interprets (sparse files, old Sun, Solaris and star types, broken headers skipped) where a gate
must refuse, so that what is compared here is what every other reader of the layer would see.

What is refused: links, devices, pipes; sparse files; names that no signed tree may have; numbers
out of range; a wrong checksum; anything but zeros after the end. Directories come out as nothing:
the files that were signed say which directories there are.

Memory: one chunk of the stream and at most ``MAX_EXTENSION_BYTES`` of extension headers.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from trainseal.gate.outcomes import RefusedError
from trainseal.provenance.tree_paths import TreePathError, check_path, shown

BLOCK = 512
MAX_EXTENSION_BYTES = 64 * 1024
MAX_FILE_BYTES = 1 << 40
INFLATE_BYTES = 256 * 1024
#: Highest ratio of gzip layers. Source code stays below 20; a bomb starts at 1000.
MAX_INFLATION = 100
MIN_INFLATION_BYTES = 64 * 1024 * 1024

_FILE = b"0\0"
_DIRECTORY = b"5"
_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK = b"x", b"g", b"L", b"K"
_KINDS = {
    b"1": "a hard link",
    b"2": "a symbolic link",
    b"3": "a character device",
    b"4": "a block device",
    b"6": "a named pipe",
    b"7": "a contiguous file",
    b"S": "a sparse file",
}
_ZEROS = bytes(BLOCK)


@dataclass(frozen=True, slots=True)
class Member:
    """A plain file: its checked path, its size in bytes, and whether anyone may execute it."""

    path: str
    size: int
    executable: bool


class TarStream:
    """The files of one tar, in its order.

    Use: ``while member := await tar.next(): async for chunk in tar.content(): …``. Content that is
    not taken is skipped. When ``next`` has returned None the whole stream has been read.
    """

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = memoryview(b"")
        self._left = 0
        self._padding = 0

    async def next(self) -> Member | None:
        """The next file, or None at the end. Raises RefusedError."""
        await self._skip_content()
        extended: dict[str, str] = {}
        long_name: str | None = None
        while True:
            header = await self._exactly(BLOCK)
            if header == _ZEROS:
                await self._finish()
                return None
            _check_sum(header)
            size, kind = _number(header[124:136], "size"), header[156:157]
            if kind in (_PAX, _PAX_GLOBAL):
                records = _records(await self._extension(size))
                if kind == _PAX:
                    extended.update(records)
                elif "path" in records or "size" in records:
                    raise _damaged("a global header that names files")
                continue
            if kind in (_GNU_NAME, _GNU_LINK):
                text = await self._extension(size)
                if kind == _GNU_NAME:
                    long_name = _text(text.removesuffix(b"\0"))
                continue
            name = extended.get("path", long_name if long_name is not None else _name(header))
            if "size" in extended:
                size = _decimal(extended["size"])
            is_directory = kind == _DIRECTORY or (kind in _FILE and name.endswith("/"))
            self._left = 0 if is_directory else size
            self._padding = -self._left % BLOCK
            path = _path(name, is_directory=is_directory)
            if is_directory:
                if size:
                    raise RefusedError(shown(name), "a directory with content", **_TAR)
                extended, long_name = {}, None
                continue
            if kind not in _FILE:
                raise RefusedError(
                    shown(path),
                    f"the layer holds {_KINDS.get(kind, f'an entry of type {kind!r}')} here",
                    expected="plain files and directories only",
                    remedy="replace it by a copy of what it stands for, and sign and push again",
                )
            if size > MAX_FILE_BYTES:
                raise RefusedError(
                    shown(path), f"{size} bytes", expected=f"at most {MAX_FILE_BYTES} bytes"
                )
            mode = _number(header[100:108], "mode")
            return Member(path, size, bool(mode & 0o111))

    async def content(self) -> AsyncIterator[bytes | memoryview]:
        """The bytes of the file that ``next`` returned last, in chunks as they come."""
        while self._left:
            chunk = await self._some(self._left)
            self._left -= len(chunk)
            yield chunk

    async def _skip_content(self) -> None:
        left = self._left + self._padding
        self._left = self._padding = 0
        while left:
            left -= len(await self._some(left))

    async def _extension(self, size: int) -> bytes:
        if size > MAX_EXTENSION_BYTES:
            raise _damaged(f"an extension header of {size} bytes")
        return bytes((await self._exactly(size + -size % BLOCK))[:size])

    async def _finish(self) -> None:
        """After the first zero block only zeros may come; reads to the end of the stream."""
        while self._buffer or await self._fill():
            if bytes(self._buffer).strip(b"\0"):
                raise _damaged("content after its end")
            self._buffer = memoryview(b"")

    async def _exactly(self, size: int) -> bytes:
        pieces: list[bytes] = []
        while size:
            piece = bytes(await self._some(size))
            pieces.append(piece)
            size -= len(piece)
        return b"".join(pieces)

    async def _some(self, most: int) -> memoryview:
        """1 to ``most`` bytes."""
        if not self._buffer and not await self._fill():
            raise _damaged("an end in the middle")
        piece, self._buffer = self._buffer[:most], self._buffer[most:]
        return piece

    async def _fill(self) -> bool:
        async for chunk in self._chunks:
            if chunk:
                self._buffer = memoryview(chunk)
                return True
        return False


async def inflated(chunks: AsyncIterator[bytes], compressed_size: int) -> AsyncIterator[bytes]:
    """The content of one gzip stream of ``compressed_size`` bytes (RFC 1952).

    Raises RefusedError for anything else, and once more comes out than honest code inflates to.
    Memory: one chunk and ``INFLATE_BYTES``.
    """
    most = max(MIN_INFLATION_BYTES, MAX_INFLATION * compressed_size)
    inflater = zlib.decompressobj(wbits=31)
    total = 0
    async for chunk in chunks:
        data = chunk
        while data and not inflater.eof:
            try:
                piece = inflater.decompress(data, INFLATE_BYTES)
            except zlib.error:
                raise _damaged("content that is not gzip") from None
            total += len(piece)
            if total > most:
                raise RefusedError(
                    "layer",
                    f"{compressed_size} bytes inflate to more than {most}",
                    expected=f"at most {MAX_INFLATION} times the size",
                    remedy="push the layer as an uncompressed tar",
                )
            if piece:
                yield piece
            data = inflater.unconsumed_tail
        if inflater.eof and (data or inflater.unused_data):
            raise _damaged("content after the end of its gzip stream")
    if not inflater.eof:
        raise _damaged("a gzip stream that ends in the middle")


_TAR = {
    "expected": "a plain tar of plain files",
    "remedy": "push the code again with trainseal sign code",
}


def _damaged(found: str) -> RefusedError:
    return RefusedError("layer", f"found {found}", **_TAR)


def _check_sum(header: bytes) -> None:
    wanted = _number(header[148:156], "checksum")
    if wanted != sum(header[:148]) + sum(header[156:]) + 8 * ord(" "):
        raise _damaged("a header with a wrong checksum")


def _number(field: bytes, what: str) -> int:
    """Octal text, or GNU's base-256 for what octal cannot hold."""
    if field[0] == 0x80:
        value = int.from_bytes(field[1:])
        if value > MAX_FILE_BYTES:
            raise _damaged(f"a {what} out of range")
        return value
    text = field.split(b"\0", 1)[0].strip(b" ")
    if not text:
        return 0
    if not all(0x30 <= digit <= 0x37 for digit in text):
        raise _damaged(f"a {what} that is no number")
    return int(text, 8)


def _decimal(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise _damaged("a size that is no number")
    return int(text)


def _name(header: bytes) -> str:
    name = header[:100].split(b"\0", 1)[0]
    if header[257:263] == b"ustar\0":
        prefix = header[345:500].split(b"\0", 1)[0]
        if prefix:
            name = prefix + b"/" + name
    return _text(name)


def _text(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise RefusedError(
            ascii(raw[:100])[1:],
            "a file name that is not UTF-8",
            expected="names in UTF-8",
            remedy="rename the file, and sign and push again",
        ) from None


def _path(name: str, *, is_directory: bool) -> str:
    """The path within the tree; of ``./`` at its start, as ``tar -C DIR .`` writes it, one."""
    path = name.removeprefix("./")
    if is_directory:
        path = path.removesuffix("/")
        if path in ("", "."):
            return ""
    try:
        check_path(path)
    except TreePathError as error:
        raise RefusedError("layer", str(error)) from None
    return path


def _records(data: bytes) -> dict[str, str]:
    """Pax records, ``LENGTH KEY=VALUE\\n``; those that change what a file is are refused."""
    records: dict[str, str] = {}
    while data:
        length, space, _ = data.partition(b" ")
        if not space or not length.isdigit() or len(length) > 6:
            raise _damaged("an extension header that is no list of records")
        record, data = data[len(length) + 1 : int(length)], data[int(length) :]
        key, equals, value = record.partition(b"=")
        if not equals or not value.endswith(b"\n") or len(length) + 1 + len(record) != int(length):
            raise _damaged("an extension header that is no list of records")
        name = _text(key)
        if name.startswith("GNU.sparse.") or name == "hdrcharset":
            raise _damaged(f"the extension {shown(name)}")
        if name in ("path", "size"):
            if name in records:
                raise _damaged(f"the extension {name} twice")
            records[name] = _text(value[:-1])
    return records
