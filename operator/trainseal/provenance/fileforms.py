"""What a file of a checkpoint is, by its bytes: which of the forms that loaders know. Pure.

Who loads a file chooses the loader, so a file is what the most dangerous loader would make of it:

1. What a reader of zip archives would find from the end is an archive, whatever stands before it.
   One that PyTorch wrote holds a pickle (``data.pkl``); any other is unknown.
2. What is a safetensors file to its last byte is one, unless it is a pickle as well.
3. What says that it is a pickle, or would import something if it were read as one, is a pickle.
4. What is text is text: JSON, a marker, a log.
5. All else is unknown.

A pickle has ``imports``, and ``doubts`` where they are not all. It is *tame* where each import is
one that PyTorch's own distributed checkpoints need, and there is no doubt. All is bounded; what is
too much to be judged is unknown, or a pickle with that doubt. Never says that a pickle is harmless.
"""

from __future__ import annotations

import zlib
from codecs import getincrementaldecoder
from dataclasses import dataclass
from typing import Literal, NamedTuple

from trainseal.provenance.bytesources import (
    MemorySource,
    Meter,
    Metered,
    Source,
    Steps,
    TooMuchError,
)
from trainseal.provenance.pickleimports import Import, Program, program
from trainseal.provenance.tamepickles import is_metadata, is_tame
from trainseal.provenance.tensorfiles import HeaderError, check
from trainseal.provenance.ziparchives import (
    DEFLATED,
    LOCAL,
    STORED,
    Archive,
    ArchiveError,
    Member,
    archive_before,
    ends_as_archive,
)

#: What may be spent on one file, in bytes hashed: a million opcodes, say, or two seconds.
MOST = 1 << 30
_MOST_TEXT = 32 * 1024 * 1024
_MOST_INFLATED = 4 * 1024 * 1024
_MOST_PICKLES = 256
_CHUNK = 1024 * 1024
_ARCHIVE_COST = 16 * 1024
_CONTROL = bytes(sorted({*range(32), 127} - set(b"\t\n\r\f")))
#: Files that PyTorch puts beside the pickle, by name within the archive.
_BESIDE = frozenset({"version", "byteorder", ".format_version", ".storage_alignment"})

#: ``metadata`` and ``shard`` are tame pickles: as the index and as the values of a distributed
#: checkpoint.
Form = Literal["safetensors", "metadata", "shard", "pickle", "text", "unknown"]


@dataclass(frozen=True, slots=True)
class Judged:
    """What a file is. ``imports`` are sorted, those first that no distributed checkpoint needs."""

    form: Form
    imports: tuple[Import, ...] = ()
    doubts: tuple[str, ...] = ()


class _Pickles(NamedTuple):
    """Of one file. ``tidy``: nothing lies beside, before or behind what is as it should be."""

    imports: frozenset[Import]
    doubts: frozenset[str]
    tidy: bool


def judge(source: Source, meter: Meter | None = None) -> Steps[Judged]:
    """What the file is. Raises OSError, and nothing else, whatever its bytes are."""
    meter = meter or Meter(MOST)
    metered = Metered(source, meter)
    try:
        return (yield from _judged(metered, meter))
    except TooMuchError as error:
        return Judged("unknown", doubts=(str(error),))


def _judged(source: Source, meter: Meter) -> Steps[Judged]:
    if source.size == 0:
        return Judged("text")
    zipped = source.read(0, 4) == LOCAL
    if zipped or ends_as_archive(source):
        return (yield from _archived(source, meter, zipped=zipped))
    doubt = ""
    try:
        yield from check(source, meter)
        form: Form = "safetensors"
    except HeaderError:
        form = "text" if (yield from _is_text(source)) else "unknown"
    except TooMuchError as error:
        form, doubt = "unknown", str(error)
    found = yield from _pickled(source, meter, declared=_declared(source.read(0, 2)))
    if found is not None:
        form = "pickle"
        if found.tidy and not found.doubts and all(map(is_tame, found.imports)):
            form = "metadata" if any(map(is_metadata, found.imports)) else "pickle"
        return Judged(form, _sorted(found.imports), tuple(sorted(found.doubts)))
    return Judged(form, doubts=(doubt,) if doubt else ())


def _declared(head: bytes) -> bool:
    """Whether it says itself that it is a pickle: every protocol since the second does."""
    return len(head) == 2 and head[0] == 0x80 and 2 <= head[1] <= 5


def _pickled(source: Source, meter: Meter, *, declared: bool) -> Steps[_Pickles | None]:
    """The pickles that stand one behind another from the start; None where there is none."""
    imports: set[Import] = set()
    doubts: set[str] = set()
    at = 0
    try:
        for _ in range(_MOST_PICKLES):
            found = yield from program(source, meter, at, source.size)
            imports.update(found.imports)
            doubts.update(found.doubts)
            if found.end is None or found.end == source.size:
                at = found.end or at
                break
            at = found.end
        else:
            raise TooMuchError("it holds more pickles than are judged")
    except TooMuchError as error:
        doubts.add(str(error))
    if not (declared or imports or doubts):
        return None
    if at != source.size and declared:
        doubts.add("something else follows it" if at else "it breaks off as a pickle")
    return _Pickles(frozenset(imports), frozenset(doubts), tidy=at == source.size)


def _archived(source: Source, meter: Meter, *, zipped: bool) -> Steps[Judged]:
    imports: set[Import] = set()
    doubts: set[str] = set()
    tidy, pickles, end = zipped, 0, source.size
    if not zipped:
        doubts.add("it is an archive from its end, and something else from its start")
    try:
        while end > 0:
            meter.spend(_ARCHIVE_COST)
            archive = yield from archive_before(source, meter, end)
            tidy &= _as_pytorch_has_it(archive)
            for member in archive.members:
                if member.name.lower().endswith(".pkl"):
                    pickles += 1
                    found = yield from _member(source, meter, member)
                    imports.update(found.imports)
                    doubts.update(found.doubts)
                    tidy &= found.end is not None
            end = archive.begin
    except (ArchiveError, TooMuchError) as error:
        doubts.add(str(error))
    if not pickles:
        doubts.add("it is an archive that PyTorch did not write")
        return Judged("unknown", doubts=tuple(sorted(doubts)))
    tame = tidy and not doubts and all(map(is_tame, imports))
    return Judged("shard" if tame else "pickle", _sorted(imports), tuple(sorted(doubts)))


def _as_pytorch_has_it(archive: Archive) -> bool:
    """Whether a loader finds one pickle, the tensors beside it, and nothing that is a program."""
    if not archive.members or any(m.method != STORED for m in archive.members):
        return False
    prefix = archive.members[0].name.partition("/")[0] + "/"
    names = [m.name.removeprefix(prefix) for m in archive.members if m.name.startswith(prefix)]
    kept = [n for n in names if n in _BESIDE or n == ".data/serialization_id"]
    tensors = [n for n in names if n.startswith("data/") and n[5:].isascii() and n[5:].isdigit()]
    return (
        names.count("data.pkl") == 1
        and len(kept) + len(tensors) + 1 == len(archive.members)
        and len(set(names)) == len(names)
    )


def _member(source: Source, meter: Meter, member: Member) -> Steps[Program]:
    if member.method == STORED:
        end = member.begin + member.packed
        found = yield from program(source, meter, member.begin, end)
    elif member.method == DEFLATED:
        content = _inflated(source, member)
        end = len(content)
        found = yield from program(MemorySource(content), meter, 0, end)
    else:
        return Program((), ("it is packed in a way that is not read",), None)
    doubts = found.doubts
    if found.end is None:
        doubts = (*doubts, "it breaks off as a pickle")
    elif found.end != end:
        doubts = (*doubts, "something else follows it")
    return Program(found.imports, doubts, found.end)


def _inflated(source: Source, member: Member) -> bytes:
    """A packed member, whatever size it says. Raises TooMuchError, ArchiveError."""
    if member.packed > _MOST_INFLATED:
        raise TooMuchError("it holds a packed pickle that is too long to be judged")
    inflating = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        found = inflating.decompress(source.read(member.begin, member.packed), _MOST_INFLATED + 1)
    except zlib.error:
        raise ArchiveError("a packed pickle cannot be unpacked") from None
    if len(found) > _MOST_INFLATED:
        raise TooMuchError("it holds a packed pickle that is too long to be judged")
    return found


def _is_text(source: Source) -> Steps[bool]:
    if source.size > _MOST_TEXT:
        return False
    decoder = getincrementaldecoder("utf-8")()
    for at in range(0, source.size, _CHUNK):
        part = source.read(at, _CHUNK)
        try:
            decoder.decode(part, final=at + _CHUNK >= source.size)
        except UnicodeDecodeError:
            return False
        if part.translate(None, _CONTROL) != part:
            return False
        yield
    return True


def _sorted(imports: set[Import] | frozenset[Import]) -> tuple[Import, ...]:
    return tuple(sorted(imports, key=lambda found: (is_tame(found), found)))
