"""Which words of a shell's script would run as code; one part of ``codewords``.

Command by command, with what is known of variables: those of the container, and those that the
script sets. What a script reads and then runs counts as run: ``cat X | bash``, ``bash < X``,
``eval "$(cat X)"``, ``while read f; do . "$f"; done < X``. What it computes in other ways is not
followed: that is signed text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from trainseal.provenance import programs
from trainseal.provenance.codewords import CodeWords
from trainseal.provenance.expansion import UNSIGNED
from trainseal.provenance.programs import Language
from trainseal.provenance.shellscript import (
    Command,
    Piece,
    Substitution,
    TooInvolvedError,
    Variable,
    Word,
    read_script,
)
from trainseal.provenance.surroundings import ARGUMENT, READ, Value

#: What a substitution prints is not known; no path of a mount holds this.
_PRINTED = "\1"
_LONGEST_VALUE = 64 * 1024
_MOST_WORDS = 64
#: What a command costs beside its characters.
_A_COMMAND = 32
_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[[^\]]*\])?\+?=(.*)", re.DOTALL)
_FUNCTION = re.compile(r"\bfunction\s+([\w.:-]+)|(?<![\w.:-])([\w.:-]+)\s*\(\s*\)")
_KEYWORDS = frozenset(
    {
        "!", "builtin", "coproc", "do", "done", "elif", "else", "esac", "fi", "if", "noglob",
        "then", "time", "until", "while", "{", "}",
    }
)  # fmt: skip
_DECLARES = frozenset({"declare", "export", "local", "readonly", "typeset"})
_READS = {"getopts": "OPTARG", "mapfile": "MAPFILE", "read": "REPLY", "readarray": "MAPFILE"}
_BRACES = re.compile(r"\{([^{}]*)\}")
_COMPOUND = (("}",), ("done",), ("esac",), ("fi",), ())
_PATHS = re.compile(r"/[^\s'\"`,;()]+")
#: A shell's own process has one of these numbers in /proc.
_PROCESS_IDS = frozenset({"$", "!", "BASHPID", "PPID"})


def script_words(
    words: CodeWords, script: Value, positional: Sequence[Value] = ()
) -> Iterator[str]:
    """What a script runs. Raises TooInvolvedError."""
    return _Script(words, 0).run(script, positional)


class _Script:
    def __init__(self, words: CodeWords, depth: int) -> None:
        self._words = words
        self._around = words.around
        self._depth = depth
        self._functions: set[str] = set()
        self._before: list[Value] = []

    def run(self, script: Value, positional: Sequence[Value] = ()) -> Iterator[str]:
        """What the script runs, and what it reads where it runs what it reads."""
        text, around = script.text, self._around
        if UNSIGNED in text:
            yield text
        yield from self._words.code(Value("", script.carried))
        around.nested += 1
        if positional:
            self._set_positional(positional)
        yield from self._commands(text)
        around.nested -= 1
        if around.calls_run:
            calls, around.calls = around.calls, []
            for call in calls:
                yield from self._words.argv(call)
        if around.reads:
            inputs, around.inputs = around.inputs, []
            for value in inputs:
                for part in (value.text, value.text.partition("=")[2], *_PATHS.findall(value.text)):
                    yield from self._words.code(Value(part, value.carried))

    def _set_positional(self, values: Sequence[Value]) -> None:
        variables = self._around.variables
        for number, value in enumerate(values[:_MOST_WORDS]):
            variables[str(number)] = value
        everything = " ".join(v.text for v in values[1:])
        carried = tuple(c for v in values[1:] for c in v.carried)
        variables["@"] = variables["*"] = Value(everything, carried)

    def _commands(self, text: str) -> Iterator[str]:
        self._around.budget.spend(len(text))
        self._functions.update(f[1] or f[2] for f in _FUNCTION.finditer(text))
        for command in read_script(text, self._depth):
            self._around.budget.spend(_A_COMMAND)
            yield from self._command(command)

    def _within(self, script: str) -> Iterator[str]:
        """What a substitution runs, in the same surroundings."""
        inner = _Script(self._words, self._depth + 1)
        inner._functions = self._functions
        yield from inner._commands(script)

    def _command(self, command: Command) -> Iterator[str]:
        around = self._around
        yield from self._substitutions(command)
        values = self._values(command.words)
        around.inputs += self._values(command.inputs)
        self._before += values
        if command.piped:
            # Of a group or a loop that is piped, all that went before counts.
            compound = tuple(v.text for v in values) in _COMPOUND
            around.inputs += self._before if compound else values
        while values and values[0].text in _KEYWORDS:
            del values[0]
        while values and (setting := _ASSIGNMENT.fullmatch(values[0].text)):
            yield from self._assign(setting, values.pop(0).carried)
        if not values:
            return
        around.take_reading()
        yield from self._run(values[0].text, values)
        if (language := around.take_reading()) is not None:
            yield from self._from_input(language, command)

    def _substitutions(self, command: Command) -> Iterator[str]:
        for word in (*command.words, *command.inputs, *command.here, *command.outputs):
            for piece in word.pieces:
                if isinstance(piece, Substitution):
                    if piece.fed:
                        self._around.inputs += self._values(command.words)
                    yield from self._within(piece.script)

    def _from_input(self, language: Language, command: Command) -> Iterator[str]:
        """What an interpreter runs that was given nothing but an input."""
        if command.here:
            for value in map(self._value, (word.pieces for word in command.here)):
                if language is programs.SHELL:
                    yield from self._anew(value)
                else:
                    yield from self._words.text(language, value)
        elif command.inputs:
            for value in self._values(command.inputs):
                yield from self._words.code(value)
        else:
            self._around.reads = True

    def _anew(self, script: Value) -> Iterator[str]:
        return _Script(self._words, self._depth + 1).run(script)

    def _run(self, name: str, values: list[Value]) -> Iterator[str]:
        """A command without its assignments: one of the shell's own, a function, a program."""
        rest = values[1:]
        operands = [v for v in rest if not v.text.startswith("-")]
        if name in (".", "source"):
            yield from self._words.code(operands[0] if operands else Value(""))
        elif name in ("cd", "chdir", "pushd"):
            # Python and shells look for code in the directory they are in.
            for directory in operands[:1]:
                yield from self._words.code(directory)
                self._around.move(directory.text)
        elif name == "eval":
            carried = tuple(c for v in rest for c in v.carried)
            yield from self._anew(Value(" ".join(v.text for v in rest), carried))
        elif name in _DECLARES:
            for value in operands:
                if setting := _ASSIGNMENT.fullmatch(value.text):
                    yield from self._assign(setting, value.carried)
        elif name in ("trap", "alias"):
            for value in operands:
                text = value.text.partition("=")[2] if name == "alias" else value.text
                yield from self._anew(Value(text, value.carried))
        elif name in ("enable", "hash"):
            for value in operands:
                yield from self._words.code(value)
        elif name in self._functions:
            self._around.calls.append(rest)
        elif not self._set(name, rest, operands):
            yield from self._words.argv(values)

    def _set(self, name: str, rest: list[Value], operands: list[Value]) -> bool:
        """Sets variables by what is no assignment; whether that is all the command does."""
        variables = self._around.variables
        if name in _READS:
            for variable in (_READS[name], *(v.text for v in operands)):
                variables[variable] = Value("", (READ,))
        elif name in ("for", "select") and operands:
            listed = operands[2:] if operands[1:2] == [Value("in")] else []
            carried = tuple(c for v in listed for c in v.carried)
            variables[operands[0].text] = Value(" ".join(v.text for v in listed), carried)
        elif name == "set" and Value("--") in rest:
            self._set_positional([Value("sh"), *rest[rest.index(Value("--")) + 1 :]])
        return name in _READS or name in ("case", "for", "function", "select", "set")

    def _assign(self, setting: re.Match[str], carried: tuple[str, ...]) -> Iterator[str]:
        value = Value(setting[2], carried)
        self._around.variables[setting[1]] = value
        yield from self._words.assigned(setting[1], value)

    # Words --------------------------------------------------------------------------------------

    def _values(self, words: Sequence[Word]) -> list[Value]:
        return [value for word in words for value in self._split(word)]

    def _split(self, word: Word) -> list[Value]:
        """A word as the shell passes it on: one word, or several, or none."""
        value = self._value(word.pieces)
        text = value.text
        if _is_assignment(word):
            return [value]
        many = any(isinstance(p, Variable) and p.many for p in word.pieces)
        if many or (word.bare and not all(isinstance(p, str) for p in word.pieces)):
            parts = text.split()
            if not parts and not value.carried:
                return []
            return [Value(part, value.carried) for part in parts or [""]]
        if not word.bare:
            return [value]
        if text == "~" or text.startswith("~/"):
            home = self._around.variables.get("HOME", Value("/root"))
            text = home.text + text[1:]
        return [Value(t, value.carried) for t in _unbraced(text)]

    def _value(self, pieces: Sequence[Piece]) -> Value:
        texts: list[str] = []
        carried: list[str] = []
        for piece in pieces:
            if isinstance(piece, str):
                texts.append(piece)
            elif isinstance(piece, Substitution):
                texts.append(_PRINTED)
                carried += self._inner_words(piece.script, self._depth + 1)
            else:
                found = self._variable(piece)
                texts.append(found.text)
                carried += found.carried
        text = "".join(texts)
        self._around.budget.spend(len(text))
        if len(text) > _LONGEST_VALUE or len(carried) > _LONGEST_VALUE:
            raise TooInvolvedError(f"a word of more than {_LONGEST_VALUE} characters")
        return Value(text, tuple(dict.fromkeys(carried)))

    def _variable(self, variable: Variable) -> Value:
        default = self._value(variable.default)
        known = self._around.variables.get(variable.name)
        if variable.name in _PROCESS_IDS:
            return Value("1")
        if variable.name == "PWD":
            return Value(self._around.directories[-1])
        if known is None:
            known = Value("")
        if variable.name in "123456789@*" and self._functions:
            known = known._replace(carried=(*known.carried, ARGUMENT))
        if not known.text and not known.carried:
            return default
        # Of ${NAME:+other} the other stands where there is a value.
        other = (default.text,) if default.text else ()
        return Value(known.text, (*known.carried, *other, *default.carried))

    def _inner_words(self, script: str, depth: int) -> list[str]:
        """All that the commands of a substitution are given, which is what they may print."""
        self._around.budget.spend(len(script))
        found: list[str] = []
        for command in read_script(script, depth):
            for word in (*command.words, *command.inputs, *command.here):
                for piece in word.pieces:
                    if isinstance(piece, Substitution):
                        found += self._inner_words(piece.script, depth + 1)
                plain = tuple(p for p in word.pieces if not isinstance(p, Substitution))
                value = self._value(plain)
                found += [value.text, value.text.partition("=")[2], *value.carried]
        return [text for text in found if _PATHS.search(text) or text in (READ, ARGUMENT)]


def _is_assignment(word: Word) -> bool:
    first = word.pieces[0] if word.pieces else ""
    return isinstance(first, str) and bool(_ASSIGNMENT.fullmatch(first))


def _unbraced(text: str) -> list[str]:
    """``a{b,c}`` as ``ab ac``. Raises TooInvolvedError."""
    found, done = [text], []
    while found:
        one = found.pop()
        braces = next((b for b in _BRACES.finditer(one) if "," in b[1]), None)
        if braces is None:
            done.append(one)
            continue
        parts = braces[1].split(",")
        found += [one[: braces.start()] + part + one[braces.end() :] for part in parts]
        if len(found) + len(done) > _MOST_WORDS:
            raise TooInvolvedError(f"braces that stand for more than {_MOST_WORDS} words")
    return done[::-1]
