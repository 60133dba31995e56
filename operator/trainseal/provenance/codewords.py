"""Which words of a command line would run as code: the paths of programs, scripts and libraries.

What stands there is found whatever starts it (``env``, ``torchrun``, ``nsys``, a program that is
not known). The rules, in order:

1. The program itself, where it is a path; else it is looked up on ``PATH``, judged as a variable.
2. Of an interpreter: options that name code, the paths in a text that runs something, and the
   first operand; without one, what it reads instead.
3. Of a runner: every operand up to the program that it runs, less the values of options that by
   their name are outputs. Of a builder: every operand.
4. Of a program that is not known: what follows the first interpreter or runner among its words;
   what is by its ending a program's text; what an option of such a name is given.
5. Of a shell's script: ``scriptwords`` says.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, takewhile
from typing import Protocol

from trainseal.provenance import programs
from trainseal.provenance.commandlines import loads_code
from trainseal.provenance.expansion import UNSIGNED
from trainseal.provenance.places import is_open_file, resolve
from trainseal.provenance.programs import Language
from trainseal.provenance.shellscript import TooInvolvedError
from trainseal.provenance.surroundings import ARGUMENT, READ, Budget, Surroundings, Value

_MOST_NESTED = 32

_ASSIGNMENT = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[[^\]]*\])?\+?=(.*)", re.DOTALL)
_CHANGES_DIRECTORY = frozenset({"-C", "-D", "--chdir", "--cwd", "--directory", "--working-dir"})
_FIND_RUNS = frozenset({"-exec", "-execdir", "-ok", "-okdir"})
_PYTHON_RUNNERS = programs.PYTHON_RUNNERS | programs.RUN_MODULES
_AWK = frozenset({"awk", "gawk", "mawk", "nawk"})
_PYTHON_RUNS = re.compile(
    r"exec|eval|compile|run_path|runpy|import_module|importlib|imp\.|__import__|sys\.path|zipimport"
    r"|subprocess|[pP]open|check_call|check_output|spawn|system|CDLL|dlopen|load_library|pickle"
    r"|marshal|torch\.load"
)
_OTHERS_RUN = re.compile(
    r"exec|eval|require|import|\bdo\b|\bload|dofile|source|include|system|open3?\b|spawn|fork|qx|`"
    r"|dlopen|child_process|\buse\s+lib\b|ccall"
)
_PATHS = re.compile(r"/[^\s'\"`,;()\[\]{}]+")


class Scripts(Protocol):
    """Reads scripts; given by ``scriptwords``."""

    def __call__(
        self, words: CodeWords, script: Value, positional: Sequence[Value] = ()
    ) -> Iterator[str]: ...


@dataclass(slots=True)
class CodeWords:
    """Reads one command line. What it gives is an absolute path, or holds ``UNSIGNED``."""

    around: Surroundings
    scripts: Scripts

    @classmethod
    def in_container(
        cls, variables: Mapping[str, str], directory: str, scripts: Scripts, budget: Budget
    ) -> CodeWords:
        """A reader where a container's processes start."""
        known = {name: Value(text) for name, text in variables.items()}
        return cls(Surroundings(known, [directory], budget), scripts)

    # Parts -------------------------------------------------------------------------------------

    def code(self, value: Value) -> Iterator[str]:
        """The places that a word means which runs as code."""
        for text in (value.text, *value.carried):
            if text == READ:
                self.around.reads = True
            elif text == ARGUMENT:
                self.around.calls_run = True
            elif UNSIGNED in text:
                yield text
            elif text:
                yield from self._places(text)

    def _places(self, text: str) -> Iterator[str]:
        for directory in self.around.directories[: 1 if text.startswith("/") else None]:
            place = resolve(text, directory)
            self.around.reads |= is_open_file(place)
            yield place

    def listed(self, value: Value) -> Iterator[str]:
        """The places in a list (``a:b``) or a setting (``name=a``) that leads to code."""
        for part in re.split(r"[:,;=\s]", value.text):
            yield from self.code(Value(part))
        yield from self.code(Value("", value.carried))

    def assigned(self, name: str, value: Value) -> Iterator[str]:
        """What a variable leads to that is set for a command."""
        if loads_code(name):
            yield from self.listed(value)

    def text(self, language: Language, value: Value) -> Iterator[str]:
        """What a program's text leads to."""
        if UNSIGNED in value.text:
            yield value.text
        yield from self.code(Value("", value.carried))
        runs = _PYTHON_RUNS if language is programs.PYTHON else _OTHERS_RUN
        if runs.search(value.text):
            for path in _PATHS.findall(value.text):
                yield from self.code(Value(path))

    # Command lines -----------------------------------------------------------------------------

    def argv(self, argv: Sequence[Value]) -> Iterator[str]:
        """What a command line runs. Raises TooInvolvedError."""
        if not argv:
            return
        around = self.around
        around.nested += 1
        if around.nested > _MOST_NESTED:
            raise TooInvolvedError(f"more than {_MOST_NESTED} programs that start one another")
        program = argv[0].text
        if "/" in program or UNSIGNED in program or argv[0].carried:
            yield from self.code(argv[0])
        name, language = programs.name_of(program), programs.language_of(program)
        if language is programs.SHELL:
            yield from self._shell(argv)
        elif language is not None:
            yield from self._interpreted(argv, language)
        elif name == "find":
            yield from self._find(argv)
        elif name in _AWK or name == "sed":
            yield from self._edited(argv, has_text=name in _AWK)
        elif programs.is_runner(program):
            yield from self._run(argv)
        elif name in programs.BUILDERS:
            yield from self._built(argv)
        elif name not in programs.TOOLS:
            yield from self._unknown(argv)
        around.nested -= 1

    def arguments(self, args: Sequence[Value]) -> Iterator[str]:
        """What the arguments of a program run that is not known: an image's entrypoint.

        It may run them as a command (``tini --``), or be a shell or Python itself.
        """
        if not args:
            return
        first = args[0].text
        if not first.startswith("-"):
            yield from self.argv(args)
            return
        if re.fullmatch(r"-[A-Za-z]*c[A-Za-z]*", first):
            yield from self._shell([Value("sh"), *args])
        if re.fullmatch(r"-[A-Za-z]*[cm]", first):
            yield from self._interpreted([Value("python"), *args], programs.PYTHON)
        yield from self._unknown([Value(""), *args])

    def _shell(self, argv: Sequence[Value]) -> Iterator[str]:
        language, has_text, reads = programs.SHELL, False, False
        at = 1
        while at < len(argv):
            word = argv[at]
            option, equals, given = word.text.partition("=")
            if word.text == "--" and at + 1 < len(argv):
                at += 1
                break
            if option in language.places:
                yield from self.code(Value(given) if equals else _next(argv, at))
                at += 1 if equals else 2
            elif re.fullmatch(r"[-+][A-Za-z]+", word.text):
                has_text |= "c" in word.text
                reads |= "s" in word.text
                at += 1 + len(re.findall("[oO]", word.text))
            elif word.text.startswith("--"):
                at += 1
            else:
                break
        if at >= len(argv) or argv[at].text == "-" or (reads and not has_text):
            self.around.reading = language
        elif has_text:
            yield from self.scripts(self, argv[at], argv[at + 1 :])
        else:
            yield from self.code(argv[at])

    def _interpreted(self, argv: Sequence[Value], language: Language) -> Iterator[str]:
        at, after_flag = 1, False
        while at < len(argv):
            word = argv[at]
            text = word.text
            if text == "--" and at + 1 < len(argv):
                yield from self.code(argv[at + 1])
                return
            if not text.startswith("-"):
                yield from self.code(word)
                # What follows a flag that is not known may be its value.
                if not after_flag or "/" in text or "." in text:
                    return
                at, after_flag = at + 1, False
                continue
            if text == "-":
                break
            option, given = language.option(text)
            value = Value(given, word.carried) if given is not None else _next(argv, at)
            rest = argv[at + (1 if given is not None else 2) :]
            if option in language.texts:
                yield from self.text(language, value)
                return
            if option in language.modules:
                yield from self._module(value.text, rest)
                return
            if option in language.places or (option in language.values and "=" in value.text):
                yield from self.listed(value)
            elif option not in language.values:
                if given is not None and not programs.is_output(option):
                    yield from self.listed(value)
                elif "/" in text:
                    yield from self.listed(Value(text[text.index("/") :]))
            takes = option in language.places | language.values
            at += 2 if takes and given is None else 1
            after_flag = not takes
        self.around.reading = language

    def _module(self, name: str, rest: Sequence[Value]) -> Iterator[str]:
        if name in programs.RUN_MODULES:
            yield from self._run([Value(name), *rest])
        elif name in programs.MODULE_PROGRAMS:
            yield from self.argv([Value(programs.MODULE_PROGRAMS[name]), *rest])

    def _run(self, argv: Sequence[Value]) -> Iterator[str]:
        """The operands of a runner, up to and with the program that it runs.

        Which operand is the program depends on each runner's options; so each operand before the
        first that looks like one counts too, less the values of options that name outputs.
        """
        name, before = programs.name_of(argv[0].text), ""
        if name == "xargs":
            argv = _fed(argv)
        for at, word in enumerate(argv[1:], start=1):
            text, option = word.text, before
            before = text
            after_option = len(option) > 1 and option.startswith("-") and "=" not in option
            if text.startswith("-") and len(text) > 1:
                yield from self._option_of_runner(name, word)
                continue
            if after_option and programs.is_output(option):
                continue
            if setting := _ASSIGNMENT.fullmatch(text):
                value = Value(setting[2], word.carried)
                self.around.variables[setting[1]] = value
                yield from self.assigned(setting[1], value)
                continue
            if option in ("-m", "--module") and name in _PYTHON_RUNNERS:
                yield from self._module(text, argv[at + 1 :])
                return
            if option in _CHANGES_DIRECTORY:
                self.around.move(text)
            if any(c.isspace() for c in text):
                yield from self.scripts(self, word)
            elif self._starts(text) or (not after_option and _is_tool(text)):
                yield from self.argv(argv[at:])
                return
            yield from self.code(word)
            if programs.is_code_file(text) or ("/" in text and not after_option):
                return

    def _option_of_runner(self, name: str, word: Value) -> Iterator[str]:
        option, equals, given = word.text.partition("=")
        if name == "env" and option.startswith("-S"):
            yield from self.scripts(self, Value(word.text[2:], word.carried))
        elif equals:
            if option in _CHANGES_DIRECTORY:
                self.around.move(given)
            if not programs.is_output(option):
                yield from self.listed(Value(given, word.carried))
                if any(c.isspace() for c in given):
                    yield from self.scripts(self, Value(given, word.carried))
        elif "/" in option and not programs.is_output(option):
            yield from self.code(Value(option[option.index("/") :], word.carried))

    def _built(self, argv: Sequence[Value]) -> Iterator[str]:
        before = ""
        for word in takewhile(lambda w: w.text != "--", argv[1:]):
            option, equals, given = word.text.partition("=")
            last, before = before, word.text
            if not word.text.startswith("-"):
                if last in _CHANGES_DIRECTORY:
                    self.around.move(word.text)
                if setting := _ASSIGNMENT.fullmatch(word.text):
                    yield from self.assigned(setting[1], Value(setting[2], word.carried))
                elif not programs.is_output(last):
                    yield from self.code(word)
            elif equals and not programs.is_output(option):
                yield from self.code(Value(given, word.carried))
            elif "/" in option and not programs.is_output(option):
                yield from self.code(Value(option[option.index("/") :], word.carried))

    def _find(self, argv: Sequence[Value]) -> Iterator[str]:
        roots = [*takewhile(lambda w: not w.text.startswith(("-", "(", "!")), argv[1:])]
        for at, word in enumerate(argv):
            if word.text in _FIND_RUNS:
                command = [*takewhile(lambda w: w.text not in (";", "+"), argv[at + 1 :])]
                for root in roots[:16] or [Value(".")]:
                    found = [w._replace(text=w.text.replace("{}", root.text)) for w in command]
                    self.around.budget.spend(sum(len(w.text) for w in found))
                    yield from self.argv(found)

    def _edited(self, argv: Sequence[Value], *, has_text: bool) -> Iterator[str]:
        """awk and sed: the file that their ``-f`` names; awk's text, which may run something."""
        before = ""
        for word in argv[1:]:
            last, before = before, word.text
            if last in ("-f", "--file"):
                yield from self.code(word)
                has_text = False
            elif word.text.startswith(("-f", "--file=")) and len(word.text) > 2:
                yield from self.code(Value(re.sub(r"^-f|^--file=", "", word.text), word.carried))
                has_text = False
            elif has_text and not word.text.startswith("-") and last != "-v":
                yield from self.text(Language("awk"), word)
                has_text = False

    def _unknown(self, argv: Sequence[Value]) -> Iterator[str]:
        before = ""
        for at, word in enumerate(argv[1:], start=1):
            is_option = word.text.startswith("-")
            option, equals, given = word.text.partition("=")
            last, before = before, word.text
            if is_option and not equals:
                continue
            named, value = (option, given) if is_option else (last, word.text)
            if not is_option and value not in programs.COMMON_WORDS and self._starts(value):
                yield from self.argv(argv[at:])
                return
            spaced = any(c.isspace() for c in value)
            if spaced and (UNSIGNED not in value or programs.is_code_option(named)):
                yield from self.scripts(self, Value(value, word.carried))
            elif programs.is_code_option(named):
                yield from self.listed(Value(value, word.carried))
            elif programs.is_code_file(value) and not programs.is_output(named):
                yield from self.code(Value(value, word.carried))

    @staticmethod
    def _starts(text: str) -> bool:
        name = programs.name_of(text)
        return (
            programs.language_of(text) is not None
            or programs.is_runner(text)
            or name in programs.BUILDERS
        )


def _is_tool(text: str) -> bool:
    return programs.name_of(text) in programs.TOOLS or programs.name_of(text) in _AWK


def _next(argv: Sequence[Value], at: int) -> Value:
    return argv[at + 1] if at + 1 < len(argv) else Value("")


def _fed(argv: Sequence[Value]) -> list[Value]:
    """The words of xargs, what it replaces marked as read from its input."""
    texts = [w.text for w in argv]
    mark = next((b for a, b in pairwise(texts) if a == "-I"), "{}")
    mark = next((t[2:] for t in texts if t.startswith("-I") and len(t) > 2), mark)
    return [w._replace(carried=(*w.carried, READ)) if mark in w.text else w for w in argv]
