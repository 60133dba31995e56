"""What a pickle would import if somebody loaded it. It is never loaded.

A pickle is a program: it runs what it imports. The standard library's table of opcodes
(``pickletools.opcodes``) says how long each argument is and what each opcode does to the stack; the
stack is followed with values that are nothing but "a text", "something imported" and "something".
So a name that comes from the memo, or from anywhere else on the stack, is told; one that the pickle
would compute while it is loaded cannot be, and that is said (``doubts``). Nothing is said to be
harmless: what is found is a list. The rules:

1. All imports up to the point where a loader would stop: those of a pickle that breaks off too.
2. Where a loader might be more lenient than we are, we go on.
3. Time and memory are bounded: arguments are skipped, not read; too many opcodes, marks or memo
   entries raise TooMuchError.
"""

from __future__ import annotations

import pickletools
import re
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from trainseal.provenance.bytesources import Meter, Source, Steps, TooMuchError

#: What one opcode costs beside its bytes: about a microsecond and a half, in which so many are
#: hashed.
OPCODE_COST = 1024
#: Texts longer than this are no names of modules.
_MOST_TEXT = 256
_MOST_LINE = 4096
_MOST_SKIPPED_LINE = 1 << 20
_MOST_MARKS = 10_000
_MOST_REMEMBERED = 100_000
_MOST_IMPORTS = 1024
_PAUSE = 4096
_WINDOW = 64 * 1024


class _Value(Enum):
    ANY = "any"
    IMPORTED = "imported"


Value = str | _Value
_ANY: Final = _Value.ANY
_IMPORTED: Final = _Value.IMPORTED


@dataclass(frozen=True, slots=True, order=True)
class Import:
    """One name that it would look up in one module."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True, slots=True)
class Program:
    """One pickle. ``end`` is the offset behind its last opcode, None where it breaks off before;
    ``doubts`` say what it would import or do beside that, as far as that can be told.
    """

    imports: tuple[Import, ...]
    doubts: tuple[str, ...]
    end: int | None


_OPCODES: Final = {opcode.code.encode("latin-1"): opcode for opcode in pickletools.opcodes}
#: Opcodes that push a text, and the width of its length; 0: it is a line.
_TEXTS: Final = {
    "STRING": 0, "UNICODE": 0, "BINSTRING": 4, "SHORT_BINSTRING": 1, "BINUNICODE": 4,
    "SHORT_BINUNICODE": 1, "BINUNICODE8": 8,
}  # fmt: skip
#: Opcodes with an index into the memo, and its width; 0: it is a line.
_PUTS: Final = {"PUT": 0, "BINPUT": 1, "LONG_BINPUT": 4}
_GETS: Final = {"GET": 0, "BINGET": 1, "LONG_BINGET": 4}
_NUMBERS: Final = frozenset({"INT", "LONG", "FLOAT"})
#: More than any loader takes for a number.
_NUMERIC = re.compile(rb"[\s\w+.-]*")


class _BreaksOffError(ValueError):
    """A loader would stop here with an error."""


def program(source: Source, meter: Meter, at: int, end: int) -> Steps[Program]:
    """Follows the pickle that begins at offset ``at``, up to ``end`` at most. Raises TooMuchError,
    OSError.
    """
    reader, machine = _Reader(source, meter, at, end), _Machine()
    stopped: int | None = None
    try:
        while stopped is None:
            for _ in range(_PAUSE):
                meter.spend(OPCODE_COST)
                opcode = _OPCODES.get(reader.take(1))
                if opcode is None:
                    raise _BreaksOffError
                if machine.step(opcode, reader):
                    stopped = reader.at
                    break
            yield
    except _BreaksOffError:
        pass
    return Program(tuple(machine.imports), tuple(machine.doubts), stopped)


class _Reader:
    """Reads arguments, through a window of the source."""

    def __init__(self, source: Source, meter: Meter, at: int, end: int) -> None:
        self._source, self._meter = source, meter
        self.at, self._end = at, min(end, source.size)
        self._window, self._from = b"", at

    def take(self, length: int) -> bytes:
        """The next bytes."""
        begin = self.at
        self._skip(length)
        offset = begin - self._from
        if offset < 0 or offset + length > len(self._window):
            most = min(max(length, _WINDOW), self._end - begin)
            self._meter.spend(most)
            self._window, self._from, offset = self._source.read(begin, most), begin, 0
            if len(self._window) < length:
                raise _BreaksOffError
        return self._window[offset : offset + length]

    def text(self, length: int) -> str | None:
        """A text of so many bytes; None where it is no name of anything."""
        if length > _MOST_TEXT:
            self._skip(length)
            return None
        return _decoded(self.take(length))

    def counted(self, width: int, *, signed: bool = False) -> int:
        """A length before what it is about."""
        found = int.from_bytes(self.take(width), "little", signed=signed)
        if found < 0:
            raise _BreaksOffError
        return found

    def line(self) -> bytes:
        """Up to the next newline; one that is too long for a name or a number is neither."""
        found = bytearray()
        while len(found) <= _MOST_LINE:
            byte = self.take(1)
            if byte == b"\n":
                return bytes(found)
            found += byte
        raise _BreaksOffError

    def skip_line(self) -> bytes:
        """As ``line``, its first bytes, of one that may be long."""
        first, length = b"", 0
        while True:
            part = self._peek()
            cut = part.find(b"\n")
            whole = part if cut < 0 else part[:cut]
            first += whole[: _MOST_TEXT + 1 - len(first)]
            length += len(whole)
            self._skip(len(whole))
            if cut >= 0:
                self._skip(1)
                return first
            if length > _MOST_SKIPPED_LINE:
                raise TooMuchError("a line of it is too long to be judged")

    def argument(self, kind: int) -> None:
        """Passes by an argument of which nothing is needed."""
        match kind:
            case pickletools.UP_TO_NEWLINE:
                self.skip_line()
            case pickletools.TAKEN_FROM_ARGUMENT1:
                self._skip(self.counted(1))
            case pickletools.TAKEN_FROM_ARGUMENT4:
                self._skip(self.counted(4, signed=True))
            case pickletools.TAKEN_FROM_ARGUMENT4U:
                self._skip(self.counted(4))
            case pickletools.TAKEN_FROM_ARGUMENT8U:
                self._skip(self.counted(8))
            case _:
                self._skip(kind)

    def _peek(self) -> bytes:
        """What the window holds from here on, something at least."""
        self.take(1)
        self.at -= 1
        return self._window[self.at - self._from :]

    def _skip(self, length: int) -> None:
        if length > self._end - self.at:
            raise _BreaksOffError
        self.at += length


class _Memo:
    """As a loader's, of texts and of what is imported alone: of the rest, how many there are."""

    def __init__(self) -> None:
        self._contiguous = 0
        self._beyond: set[int] = set()
        self._values: dict[int, Value] = {}

    def append(self, value: Value) -> None:
        self.put(self._contiguous + len(self._beyond), value)

    def put(self, index: int, value: Value) -> None:
        if index == self._contiguous:
            self._contiguous += 1
            while self._beyond and self._contiguous in self._beyond:
                self._beyond.remove(self._contiguous)
                self._contiguous += 1
        elif index > self._contiguous:
            self._beyond.add(index)
        if value is _ANY:
            self._values.pop(index, None)
        else:
            self._values[index] = value
        if len(self._values) + len(self._beyond) > _MOST_REMEMBERED:
            raise TooMuchError("it remembers too much to be judged")

    def get(self, index: int) -> Value:
        if index >= self._contiguous and index not in self._beyond:
            raise _BreaksOffError
        return self._values.get(index, _ANY)


@dataclass(slots=True)
class _Machine:
    """The stack, as one for each mark; the memo; what was found."""

    stacks: list[list[Value]] = field(default_factory=lambda: [[]])
    memo: _Memo = field(default_factory=_Memo)
    imports: dict[Import, None] = field(default_factory=dict)
    doubts: dict[str, None] = field(default_factory=dict)

    def step(self, opcode: pickletools.OpcodeInfo, reader: _Reader) -> bool:
        """Does what it does; whether it was the last. Raises _BreaksOffError."""
        name = opcode.name
        if name in _TEXTS:
            self._push(self._text(name, reader))
        elif name == "MEMOIZE":
            self.memo.append(self._top())
        elif name in _PUTS:
            self.memo.put(_index(name, reader), self._top())
        elif name in _GETS:
            self._push(self.memo.get(_index(name, reader)))
        elif name in ("GLOBAL", "INST"):
            found = _decoded(reader.line()), _decoded(reader.line())
            self._look_up(*found)
            if name == "INST":
                self._unmark()
            self._push(_IMPORTED if name == "GLOBAL" else _ANY)
        elif name == "STACK_GLOBAL":
            attribute, module = self._pop(), self._pop()
            self._look_up(module, attribute)
            self._push(_IMPORTED)
        elif name in ("EXT1", "EXT2", "EXT4"):
            code = reader.counted(int(name[-1]))
            self._doubt(f"what the loader has registered as extension {code}")
            self._push(_IMPORTED)
        else:
            self._other(opcode, reader)
        return name == "STOP"

    def _other(self, opcode: pickletools.OpcodeInfo, reader: _Reader) -> None:
        name, before = opcode.name, opcode.stack_before
        if opcode.arg is not None:
            if name in _NUMBERS:
                if not _NUMERIC.fullmatch(reader.line()):
                    raise _BreaksOffError
            else:
                reader.argument(opcode.arg.n)
        if name == "MARK":
            self.stacks.append([])
            if len(self.stacks) > _MOST_MARKS:
                raise TooMuchError("it is nested too deeply to be judged")
        elif name == "DUP":
            self._push(self._top())
        elif name == "POP":
            if len(self.stacks) > 1 and not self.stacks[-1]:
                self._unmark()
            else:
                self._pop()
        elif name == "BUILD":
            self._pop()
            if self._top() is _IMPORTED:
                self._doubt("it changes what it imports")
        else:
            below = len(before)
            if pickletools.markobject in before:
                self._unmark()
                below = before.index(pickletools.markobject)
            for _ in range(below):
                self._pop()
            for _ in opcode.stack_after:
                self._push(_ANY)

    def _text(self, name: str, reader: _Reader) -> Value:
        width = _TEXTS[name]
        if width:
            found = reader.text(reader.counted(width, signed=name == "BINSTRING"))
        elif name == "UNICODE":
            found = _unescaped(reader.skip_line(), "raw-unicode-escape")
        else:
            line = reader.skip_line()
            if line[:1] not in (b"'", b'"'):
                raise _BreaksOffError
            found = _unescaped(line, "unicode-escape")
            found = found.rstrip()[1:-1] if found is not None else None
        return _ANY if found is None else found

    def _look_up(self, module: Value | None, name: Value | None) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            self._doubt("a name that it computes while it is loaded")
        elif not all(part.isidentifier() for part in module.split(".")):
            raise _BreaksOffError  # no such module is there to be imported
        elif len(self.imports) < _MOST_IMPORTS:
            self.imports[Import(module, name)] = None
        else:
            self._doubt("more names than are listed")

    def _doubt(self, words: str) -> None:
        if len(self.doubts) < _MOST_IMPORTS:
            self.doubts[words] = None

    def _push(self, value: Value) -> None:
        self.stacks[-1].append(value)

    def _top(self) -> Value:
        if not self.stacks[-1]:
            raise _BreaksOffError
        return self.stacks[-1][-1]

    def _pop(self) -> Value:
        if not self.stacks[-1]:
            raise _BreaksOffError
        return self.stacks[-1].pop()

    def _unmark(self) -> None:
        if len(self.stacks) < 2:
            raise _BreaksOffError
        self.stacks.pop()


def _index(name: str, reader: _Reader) -> int:
    width = (_PUTS | _GETS)[name]
    if width:
        return reader.counted(width)
    try:
        found = int(reader.line())
    except ValueError:
        raise _BreaksOffError from None
    if found < 0:
        raise _BreaksOffError
    return found


def _decoded(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return None


def _unescaped(raw: bytes, encoding: str) -> str | None:
    """A line in which characters may be written by their numbers; None where it is no name."""
    if len(raw) > _MOST_TEXT:
        return None
    try:
        return raw.decode(encoding)
    except UnicodeDecodeError:
        return None
