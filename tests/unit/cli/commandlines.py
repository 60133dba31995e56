"""Command lines of `trainseal` in help and documents: found in the text, held to the commands.

Nothing is run. A line is good where its command is there, each option is one of it with a value
where it takes one, what is required is given, and what has a list of values has one of them.
"""

from __future__ import annotations

import enum
import re
import shlex
from collections.abc import Iterator, Sequence

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

from trainseal.cli.main import app

_ASSIGNED = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


def calls(script: str) -> Iterator[list[str]]:
    """Every call of `trainseal` or its plugin in a piece of shell, as words without the name.

    Calls within ``$(…)`` and ``<(…)`` are found as well.
    """
    joined = re.sub(r"\\\n\s*", " ", script)
    for inner in re.findall(r"[$<]\(([^()]*)\)", joined):
        yield from calls(inner)
    for words in _statements(re.sub(r"[$<]\([^()]*\)", "SUBSTITUTED", joined)):
        words = list(words)
        while words and _ASSIGNED.match(words[0]):
            words.pop(0)
        if words[:1] == ["trainseal"]:
            yield words[1:]
        elif words[:2] == ["kubectl", "trainseal"]:
            yield words[2:]


def _statements(script: str) -> Iterator[list[str]]:
    """What a shell runs one by one, as words; a quoted text may go over several lines."""
    pending = ""
    for line in script.splitlines():
        pending += line
        lexer = shlex.shlex(pending, posix=True, punctuation_chars="|&;<>()")
        lexer.whitespace_split = True
        lexer.commenters = "#"
        try:
            tokens = [*lexer, ";"]
        except ValueError:  # within quotes
            pending += "\n"
            continue
        pending = ""
        words: list[str] = []
        for token in tokens:
            if set(token) <= set("|&;<>()"):
                yield words
                words = []
            else:
                words.append(token)


def problem(words: Sequence[str]) -> str:
    """What is wrong with a call; empty where nothing is."""
    command: object = typer.main.get_command(app)
    rest = list(words)
    while isinstance(command, TyperGroup):
        if not rest or rest == ["--help"] or rest[0].startswith("--show-completion"):
            return ""
        if rest[0] in command.commands:
            command = command.commands[rest.pop(0)]
        elif meant := getattr(command, "meant", ""):
            command = command.commands[meant]  # which may be left out
        else:
            return f"there is no command {rest[0]}"
    assert isinstance(command, TyperCommand)
    return "" if "--help" in rest else _of_options(command, rest)


def _of_options(command: TyperCommand, rest: list[str]) -> str:
    context = typer.Context(command, info_name=command.name)
    try:
        given, _, _ = command.make_parser(context).parse_args(list(rest))
    except typer.TyperException as error:
        return error.format_message()
    for parameter in command.params:
        value = given.get(parameter.name)
        if parameter.required and value in (None, ()) and not parameter.envvar:
            return f"{parameter.name} is missing"
        assert isinstance(parameter, TyperArgument | TyperOption)
        kind = parameter.type_descriptor.annotation
        if isinstance(kind, type) and issubclass(kind, enum.Enum) and isinstance(value, str):
            names = [str(choice.value) for choice in kind]
            if value not in names and not value.startswith("$"):
                return f"{parameter.name}: {value} is none of {', '.join(names)}"
    return ""
