"""Which file an interpreter that runs has its program's text from, by its command line. Pure.

Where admission is careful (``codewords``), this is exact, for what it names is told as a fact: an
operand that is a program, and no path that a text (``-c``) or an option merely mentions. Modules
(``-m``), texts and what is read from standard input or an open file name none; a module that runs
a file in its own process (``cProfile``, ``pdb``, ``torch.distributed.run``) names that file.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from trainseal.provenance import programs
from trainseal.provenance.places import is_open_file
from trainseal.provenance.programs import Language

_OPERAND_IS_PROGRAM = frozenset(
    {"shell", "python", "perl", "ruby", "node", "lua", "php", "r", "julia", "tcl"}
)


def program_file(executable: str, argv: Sequence[str]) -> str | None:
    """The word that names the file, as it stands there; None where there is none.

    ``executable`` is what the kernel runs (``/usr/bin/python3.11``): the first word may be any.
    Where that is no interpreter by its name (``busybox``), the first word counts.
    """
    language = programs.language_of(executable) or programs.language_of(argv[0] if argv else "")
    if language is None or language.name not in _OPERAND_IS_PROGRAM:
        return None
    found = (_of_shell if language is programs.SHELL else _operand)(argv, language)
    if not found or (is_open_file(found) and ".." not in found.split("/")):
        return None
    return found


def _of_shell(argv: Sequence[str], language: Language) -> str | None:
    at = 1
    while at < len(argv):
        word = argv[at]
        if word == "--":
            at += 1
            break
        if word in language.places:
            at += 2
        elif word.startswith("--"):
            at += 1
        elif re.fullmatch(r"[-+][A-Za-z]+", word):
            if "c" in word or "s" in word:
                return None
            at += 1 + len(re.findall("[oO]", word))
        else:
            break
    return argv[at] if at < len(argv) and argv[at] != "-" else None


def _operand(argv: Sequence[str], language: Language) -> str | None:
    at, after_flag = 1, False
    while at < len(argv):
        word = argv[at]
        last = at + 1 == len(argv)
        if word == "--":
            return None if last else argv[at + 1]
        if not word.startswith("-"):
            # What follows a flag that is not known may be its value.
            if not after_flag or last or "/" in word or "." in word:
                return word
            at, after_flag = at + 1, False
            continue
        option, given = language.option(word)
        if option in language.texts or word == "-":
            return None
        if option in language.modules:
            name, rest = (given, at + 1) if given else ("" if last else argv[at + 1], at + 2)
            return _run_by_module(name, argv[rest:])
        takes = option in language.places | language.values
        at += 2 if takes and given is None else 1
        after_flag = not takes and word.startswith("--") and given is None
    return None


def _run_by_module(name: str, rest: Sequence[str]) -> str | None:
    if name not in programs.RUN_MODULES:
        return None
    before = ""
    for word in rest:
        if word in ("-m", "--module"):
            return None
        operand = not word.startswith("-") and not programs.is_output(before)
        if operand and programs.is_code_file(word):
            return word
        before = word
    return None
