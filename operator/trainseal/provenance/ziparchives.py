"""The zip archives that a file consists of, as PyTorch writes them: one after another, no gap.

A reader finds an archive from its end: the end record says where its directory is, and the
directory where each member lies (APPNOTE 6.3.10, 4.3). A shard of a distributed checkpoint is many
such archives in a row, so they are found from the last to the first. Whatever is read in more than
one way is refused: a comment, a disk number, two records that differ, a member that lies elsewhere
than it says.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

from trainseal.provenance.bytesources import Meter, Source, Steps

_END, _LOCATOR = b"PK\x05\x06", b"PK\x06\x07"
_END_MARK, _END64_MARK = (int.from_bytes(m, "little") for m in (_END, b"PK\x06\x06"))
_ENTRY, LOCAL = b"PK\x01\x02", b"PK\x03\x04"
_END_SIZE, _END64_SIZE, _LOCATOR_SIZE, _ENTRY_SIZE, _LOCAL_SIZE = 22, 56, 20, 46, 30
_MOST_COMMENT, _MOST_DIRECTORY = 0xFFFF, 16 * 1024 * 1024
_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
_ENTRY_COST = 2048
_PAUSE = 256
STORED, DEFLATED = 0, 8
_ENCRYPTED = 1


class ArchiveError(ValueError):
    """It is no archive, or one that two readers could read in two ways."""


@dataclass(frozen=True, slots=True)
class Member:
    """A file in an archive. ``begin`` is the offset of its ``packed`` bytes within the source."""

    name: str
    method: int
    begin: int
    packed: int
    size: int


@dataclass(frozen=True, slots=True)
class Archive:
    """``begin`` is its first byte within the source."""

    begin: int
    members: tuple[Member, ...]


def ends_as_archive(source: Source) -> bool:
    """Whether a reader that looks from the end would find an archive."""
    begin = max(0, source.size - _END_SIZE - _MOST_COMMENT)
    tail = source.read(begin, source.size - begin)
    at = tail.rfind(_END)
    while at >= 0:
        comment = tail[at + 20 : at + _END_SIZE]
        if len(comment) == 2 and at + _END_SIZE + int.from_bytes(comment, "little") <= len(tail):
            return True
        at = tail.rfind(_END, 0, at)
    return False


def archive_before(source: Source, meter: Meter, end: int) -> Steps[Archive]:
    """The archive whose last byte lies right before offset ``end``. Raises ArchiveError,
    TooMuchError, OSError.
    """
    at = end - _END_SIZE
    mark, disk, other_disk, here, total, size, offset, comment = _unpacked("<I4H2IH", source, at)
    if mark != _END_MARK or comment or disk not in (0, _FULL16) or other_disk not in (0, _FULL16):
        raise ArchiveError("it does not end as an archive does")
    if here != total:
        raise ArchiveError("its directory is in parts")
    directory_end = at
    if _read(source, at - _LOCATOR_SIZE, 4) == _LOCATOR:
        directory_end = at - _LOCATOR_SIZE - _END64_SIZE
        wide = _wide(source, directory_end)
        for narrow, full, found in zip(
            (total, size, offset), (_FULL16, _FULL32, _FULL32), wide, strict=True
        ):
            if narrow not in (full, found):
                raise ArchiveError("its two end records differ")
        total, size, offset = wide
    begin = directory_end - size - offset
    if begin < 0 or size > _MOST_DIRECTORY:
        raise ArchiveError("its directory does not lie where it says")
    members = yield from _members(source, meter, begin, begin + offset, directory_end, total)
    return Archive(begin, members)


def _wide(source: Source, at: int) -> tuple[int, int, int]:
    mark, length, _, _, disk, other_disk, here, total, size, offset = _unpacked(
        "<IQ2H2I4Q", source, at
    )
    locator = _unpacked("<2IQI", source, at + _END64_SIZE)
    if mark != _END64_MARK or length != _END64_SIZE - 12 or disk or other_disk or here != total:
        raise ArchiveError("its end record is not as PyTorch writes it")
    if locator[2] != size + offset:
        raise ArchiveError("its end record does not lie where it says")
    return total, size, offset


def _members(
    source: Source, meter: Meter, base: int, at: int, end: int, total: int
) -> Steps[tuple[Member, ...]]:
    directory, members, position = source.read(at, end - at), [], 0
    for number in range(total):
        meter.spend(_ENTRY_COST)
        if number % _PAUSE == _PAUSE - 1:
            yield
        entry = directory[position : position + _ENTRY_SIZE]
        if len(entry) < _ENTRY_SIZE or entry[:4] != _ENTRY:
            raise ArchiveError("its directory breaks off")
        flags, method = struct.unpack_from("<2H", entry, 8)
        packed, size, name_size, extra_size, comment_size = struct.unpack_from("<2I3H", entry, 20)
        (offset,) = struct.unpack_from("<I", entry, 42)
        names = position + _ENTRY_SIZE
        name = directory[names : names + name_size]
        extra = directory[names + name_size : names + name_size + extra_size]
        position = names + name_size + extra_size + comment_size
        size, packed, offset = _widened(extra, size, packed, offset)
        if flags & _ENCRYPTED or (method == STORED and packed != size):
            raise ArchiveError("a member is not as PyTorch writes it")
        data = _data_of(source, meter, base + offset, name, method)
        if data + packed > at:
            raise ArchiveError("a member does not lie where it says")
        members.append(Member(name.decode("latin-1"), method, data, packed, size))
    if position != len(directory):
        raise ArchiveError("its directory is longer than it says")
    return tuple(members)


def _widened(extra: bytes, size: int, packed: int, offset: int) -> tuple[int, int, int]:
    """The 64-bit values where the others are full (APPNOTE 4.5.3)."""
    values, at = [size, packed, offset], 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            field, place = extra[at + 4 : at + 4 + length], 0
            for number, value in enumerate(values):
                if value == _FULL32:
                    if place + 8 > len(field):
                        raise ArchiveError("a member's size is missing")
                    (values[number],) = struct.unpack_from("<Q", field, place)
                    place += 8
            break
        at += 4 + length
    return values[0], values[1], values[2]


def _data_of(source: Source, meter: Meter, at: int, name: bytes, method: int) -> int:
    """Where the bytes of the member with the local header at offset ``at`` begin."""
    meter.spend(_LOCAL_SIZE + len(name))
    head = _read(source, at, _LOCAL_SIZE + len(name))
    mark, _, _, packing = struct.unpack_from("<4s3H", head)
    name_size, extra_size = struct.unpack_from("<2H", head, 26)
    if mark != LOCAL or packing != method or name_size != len(name) or head[_LOCAL_SIZE:] != name:
        raise ArchiveError("a member is not what the directory says")
    return at + _LOCAL_SIZE + len(name) + int(extra_size)


def _unpacked(form: str, source: Source, at: int) -> tuple[int, ...]:
    found: tuple[int, ...] = struct.unpack(form, _read(source, at, struct.calcsize(form)))
    return found


def _read(source: Source, at: int, length: int) -> bytes:
    found = source.read(at, length) if at >= 0 else b""
    if len(found) < length:
        raise ArchiveError("it breaks off")
    return found
