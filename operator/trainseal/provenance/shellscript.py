"""Reads a shell script into its commands, without running or expanding anything.

POSIX shells and what bash adds, as far as it takes to see which words stand where a command, a file
to source or an input stands: quotes, variables, substitutions, pipes, redirections, here-documents.
Grammar beyond that (loops, functions, arithmetic) is read as the commands it is made of.

Laws: every text is read, in time linear in its length, or refused as too involved; the words of a
script that has no special character are those that it has between its blanks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

#: Substitutions and quotes within one another; honest scripts have two or three.
MAX_DEPTH = 12
MAX_LENGTH = 64 * 1024
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*|[0-9@*#?$!-]")
_BRACED = re.compile(r"!?([A-Za-z_][A-Za-z0-9_]*|[0-9]+|[@*#?$!-])")
_ANSI_C = re.compile(
    r"\\(?:x([0-9A-Fa-f]{1,2})|u([0-9A-Fa-f]{1,4})|U([0-9A-Fa-f]{1,8})|([0-7]{1,3})|(.))", re.DOTALL
)
_CONTROL = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v"}
_REDIRECTION = re.compile(r"(?:&>>?|>>|>\||>&|<<<|<<-|<<|<&|<>|<|>)")
_ENDS = re.compile(r"\|\||&&|\|&|;;&?|;&|[;&|()\n]")
_ARRAY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\+?=")
_BLANK = " \t\r"
_SPECIAL = frozenset(" \t\r\n;&|()<>'\"\\$`")


class TooInvolvedError(ValueError):
    """A script too long, or nested too deep, to be read."""


@dataclass(frozen=True, slots=True)
class Variable:
    """``$NAME`` or ``${NAME…}``, with what stands for it where it has no value.

    ``many``: it stands for several words also where it is quoted (``"$@"``, ``"${A[@]}"``).
    """

    name: str
    default: tuple[Piece, ...] = ()
    many: bool = False


@dataclass(frozen=True, slots=True)
class Substitution:
    """A script within a word. ``fed``: it reads what the command writes (``>(…)``)."""

    script: str
    fed: bool = False


Piece: TypeAlias = str | Variable | Substitution


@dataclass(frozen=True, slots=True)
class Word:
    """A word in its pieces. ``bare``: nothing in it is quoted, so that it may be a keyword."""

    pieces: tuple[Piece, ...]
    bare: bool = True


@dataclass(slots=True)
class Command:
    """A simple command: its words, what it reads and writes, where its output goes."""

    words: list[Word] = field(default_factory=list)
    inputs: list[Word] = field(default_factory=list)
    here: list[Word] = field(default_factory=list)
    outputs: list[Word] = field(default_factory=list)
    piped: bool = False

    @property
    def empty(self) -> bool:
        """Whether nothing was read of it yet."""
        return not (self.words or self.inputs or self.here or self.outputs)


def read_script(text: str, depth: int = 0) -> list[Command]:
    """The commands of a script, in order. Raises TooInvolvedError."""
    if len(text) > MAX_LENGTH:
        raise TooInvolvedError(f"{len(text)} characters, at most {MAX_LENGTH} are read")
    return list(_Reader(text, depth).commands())


class _Reader:
    def __init__(self, text: str, depth: int) -> None:
        self._text = text
        self._at = 0
        self._depth = depth
        self._awaited: list[tuple[Command, str, bool, bool]] = []
        _check(depth)

    def commands(self) -> Iterator[Command]:
        command = Command()
        while self._at < len(self._text):
            char = self._text[self._at]
            if char in _BLANK:
                self._at += 1
            elif self._text.startswith("\\\n", self._at):
                self._at += 2
            elif char == "#":
                end = self._text.find("\n", self._at)
                self._at = len(self._text) if end < 0 else end
            elif self._text.startswith(("<(", ">("), self._at):
                command.words.append(self._word())
            elif redirection := _REDIRECTION.match(self._text, self._at):
                self._at = redirection.end()
                self._redirect(command, redirection[0])
            elif end_of := _ENDS.match(self._text, self._at):
                self._at = end_of.end()
                command.piped = end_of[0] in ("|", "|&")
                if not command.empty or command.piped:
                    yield command
                command = Command()
                if end_of[0] == "\n":
                    self._here_documents()
            else:
                word = self._word()
                # A number before a redirection is a file descriptor.
                if not (word.bare and _is_number(word) and self._peek() in ("<", ">")):
                    command.words.append(word)
        if not command.empty:
            yield command

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _redirect(self, command: Command, kind: str) -> None:
        while self._peek() and self._peek() in _BLANK:
            self._at += 1
        if not self._peek() or (self._peek() in _SPECIAL - frozenset("'\"\\$`<>")):
            return
        word = self._word()
        if kind in ("<<", "<<-"):
            # Quoted, its body is taken as it stands.
            delimiter = "".join(p for p in word.pieces if isinstance(p, str))
            self._awaited.append((command, delimiter, kind == "<<-", word.bare))
        elif kind == "<<<":
            command.here.append(word)
        elif kind in ("<", "<>", "<&"):
            command.inputs.append(word)
        else:
            command.outputs.append(word)

    def _here_documents(self) -> None:
        awaited, self._awaited = self._awaited, []
        for command, delimiter, tabs, expanded in awaited:
            body = []
            while self._at < len(self._text):
                end = self._text.find("\n", self._at)
                end = len(self._text) if end < 0 else end
                line = self._text[self._at : end]
                self._at = end + 1
                if (line.lstrip("\t") if tabs else line) == delimiter:
                    break
                body.append(line)
            text = "\n".join(body)
            command.here.append(_quoted(text, self._depth) if expanded else Word((text,), False))

    def _word(self) -> Word:
        pieces: list[Piece] = []
        text: list[str] = []
        bare = True

        def add(*found: Piece) -> None:
            if text:
                pieces.append("".join(text))
                text.clear()
            pieces.extend(found)

        while self._at < len(self._text):
            char = self._text[self._at]
            if (quoted := self._quote(char)) is not None:
                bare = False
                add(*quoted)
            elif char in "$`":
                found = self._expansion()
                if isinstance(found, str):
                    text.append(found)
                else:
                    add(found)
            elif self._text.startswith(("<(", ">("), self._at):
                self._at += 2
                add(Substitution(self._parenthesis(), fed=char == ">"))
            elif char == "(" and not pieces and _ARRAY.fullmatch("".join(text)):
                self._at += 1
                inside = re.sub("[\"']", " ", self._parenthesis())
                add(*_quoted(inside, self._depth + 1).pieces)
            elif char in _SPECIAL:
                break
            else:
                start = self._at
                while self._at < len(self._text) and self._text[self._at] not in _SPECIAL:
                    self._at += 1
                text.append(self._text[start : self._at])
        add()
        return Word(tuple(pieces), bare)

    def _quote(self, char: str) -> tuple[Piece, ...] | None:
        """The pieces of what is quoted from here on; None where nothing is."""
        if char == "'":
            return (self._single(),)
        if char == '"' or self._text.startswith('$"', self._at):
            self._at += char == "$"
            return self._double()
        if char == "\\":
            following = self._text[self._at + 1 : self._at + 2]
            self._at += 2
            return ("" if following == "\n" else following,)
        if self._text.startswith("$'", self._at):
            return (self._ansi_c(),)
        return None

    def _single(self) -> str:
        end = self._text.find("'", self._at + 1)
        end = len(self._text) if end < 0 else end
        found = self._text[self._at + 1 : end]
        self._at = end + 1
        return found

    def _ansi_c(self) -> str:
        start = self._at = self._at + 2
        while self._at < len(self._text) and self._text[self._at] != "'":
            self._at += 2 if self._text[self._at] == "\\" else 1
        found = self._text[start : self._at]
        self._at += 1
        return _ANSI_C.sub(_ansi_c_character, found)

    def _double(self) -> tuple[Piece, ...]:
        self._at += 1
        pieces = self._expanded(until='"')
        self._at += 1
        return pieces

    def _expanded(self, until: str) -> tuple[Piece, ...]:
        """Pieces up to a character, as within double quotes."""
        pieces: list[Piece] = []
        text: list[str] = []
        while self._at < len(self._text) and self._text[self._at] != until:
            char = self._text[self._at]
            if char == "\\":
                following = self._text[self._at + 1 : self._at + 2]
                text.append(following if following in '$`"\\' else f"\\{following}")
                if following == "\n":
                    text.pop()
                self._at += 2
            elif char in "$`":
                found = self._expansion()
                if isinstance(found, str):
                    text.append(found)
                else:
                    pieces += ["".join(text), found]
                    text.clear()
            else:
                text.append(char)
                self._at += 1
        return (*pieces, "".join(text))

    def _expansion(self) -> Piece:
        """What a ``$`` or a backquote begins; the ``$`` alone where it begins nothing."""
        if self._peek() == "`":
            return Substitution(self._backquoted())
        self._at += 1
        if self._peek() == "(":
            self._at += 1
            return Substitution(self._parenthesis())
        if self._peek() == "{":
            return self._braced()
        if name := _NAME.match(self._text, self._at):
            self._at = name.end()
            return Variable(name[0], many=name[0] in ("@", "*"))
        return "$"

    def _braced(self) -> Piece:
        """``${…}``; what is cut off or replaced of a value is not: it leads near enough."""
        start = self._at + 1
        end = _closing(self._text, start, "{", "}", self._depth)
        inside = self._text[start:end]
        self._at = end + 1
        name = _BRACED.match(inside)
        if name is None:
            return ""
        rest = inside[name.end() :]
        many = name[1] in ("@", "*") or rest.startswith(("[@]", "[*]"))
        if not re.match(r":?[-=+]", rest):
            return Variable(name[1], many=many)
        default = _quoted(rest.lstrip(":")[1:], self._depth + 1)
        return Variable(name[1], default.pieces, many)

    def _backquoted(self) -> str:
        start = self._at = self._at + 1
        while self._at < len(self._text) and self._text[self._at] != "`":
            self._at += 2 if self._text[self._at] == "\\" else 1
        found = self._text[start : self._at]
        self._at += 1
        return re.sub(r"\\([$`\\])", r"\1", found)

    def _parenthesis(self) -> str:
        """What stands up to the closing parenthesis of one that is open."""
        end = _closing(self._text, self._at, "(", ")", self._depth)
        found = self._text[self._at : end]
        self._at = end + 1
        return found


def _closing(text: str, at: int, opening: str, closing: str, depth: int) -> int:
    """Where what is open closes, quotes minded; the end of the text where it does not."""
    _check(depth)
    level = 1
    while at < len(text):
        char = text[at]
        if char == "\\":
            at += 1
        elif char == "'" and opening == "(":
            end = text.find("'", at + 1)
            at = len(text) if end < 0 else end
        elif char == '"':
            at = _end_of_quotes(text, at + 1, depth + 1)
        elif char == "`":
            end = text.find("`", at + 1)
            at = len(text) if end < 0 else end
        elif char == opening:
            level += 1
        elif char == closing:
            level -= 1
            if not level:
                return at
        at += 1
    return len(text)


def _end_of_quotes(text: str, at: int, depth: int) -> int:
    _check(depth)
    while at < len(text) and text[at] != '"':
        if text[at] == "\\":
            at += 1
        elif text.startswith("$(", at):
            at = _closing(text, at + 2, "(", ")", depth + 1)
        at += 1
    return at


def _quoted(text: str, depth: int) -> Word:
    """A text with the expansions that it has within double quotes."""
    return Word(_Reader(text, depth)._expanded(until=""), bare=False)


def _ansi_c_character(found: re.Match[str]) -> str:
    for digits, base in ((found[1], 16), (found[2], 16), (found[3], 16), (found[4], 8)):
        if digits:
            number = int(digits, base)
            return chr(number) if number < 0x110000 and not 0xD800 <= number < 0xE000 else ""
    return _CONTROL.get(found[5], found[5])


def _is_number(word: Word) -> bool:
    text = "".join(p for p in word.pieces if isinstance(p, str))
    return len(word.pieces) == 1 and text.isascii() and text.isdigit()


def _check(depth: int) -> None:
    if depth > MAX_DEPTH:
        raise TooInvolvedError(f"more than {MAX_DEPTH} quotes and substitutions in one another")
