"""Manual pages of every command, from the commands themselves: ``trainseal man DIR``.

Source: man(7), groff_man(7). A command's help is Markdown as far as it goes here: paragraphs, words
in backquotes, and indented lines, which are examples.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer
from typer.core import TyperArgument, TyperCommand, TyperOption

from trainseal import __version__
from trainseal.cli.tree import Parameters, commands

_MANUAL = "TrainSeal's manual"
_EXIT_STATUS = (
    "0: done, or verified. 1: refuted. 2: undetermined, what was asked for could not be read. "
    "64: wrong use. 130: interrupted."
)


def man(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; it is made.")],
) -> None:
    """Write the manual pages of all commands.

    One page a command (`trainseal-sign-job.1`), and `trainseal.1`, which lists them.

        trainseal man ~/.local/share/man/man1
        man trainseal-sign-job
    """
    written = write(folder)
    print(f"{len(written)} pages in {folder}")  # noqa: T201


def write(folder: Path) -> list[Path]:
    """Writes one page for each command, and one that lists them. Raises OSError."""
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    for name, text in pages().items():
        path = folder / name
        path.write_text(text, encoding="utf-8")
        found.append(path)
    return found


def pages() -> dict[str, str]:
    """The pages, by file name."""
    found = {f"{_name(path)}.1": _page(path, command) for path, command in commands()}
    return {"trainseal.1": _contents(), **found}


def _contents() -> str:
    parts = [*_head("trainseal"), ".SH NAME"]
    parts += [r"trainseal \- admits training jobs by what was signed"]
    parts += [".SH SYNOPSIS", r"\fBtrainseal\fR \fICOMMAND\fR [\fIOPTIONS\fR]"]
    parts += [".SH COMMANDS"]
    for path, command in commands():
        parts += [".TP", rf"\fB{_name(path)}\fR(1)", _inline(_first_line(command))]
    parts += [".SH EXIT STATUS", _EXIT_STATUS]
    return "\n".join(parts) + "\n"


def _page(path: str, command: TyperCommand) -> str:
    parameters = Parameters.of(command)
    parts = [*_head(_name(path)), ".SH NAME"]
    parts += [rf"{_name(path)} \- {_inline(_first_line(command).rstrip('.'))}", ".SH SYNOPSIS"]
    usage = [rf"\fB{path}\fR", *(rf"\fI{_escaped(a)}\fR" for a in parameters.usage)]
    parts += [" ".join(usage)]
    text, examples = _parted(command.help or "")
    parts += [".SH DESCRIPTION", *text]
    if parameters.arguments:
        parts += [".SH ARGUMENTS"]
        parts += [line for argument in parameters.arguments for line in _argument(argument)]
    if parameters.options:
        parts += [".SH OPTIONS"]
        parts += [line for option in parameters.options for line in _option(option)]
    if examples:
        parts += [".SH EXAMPLES", *examples]
    parts += [".SH SEE ALSO", r"\fBtrainseal\fR(1)"]
    return "\n".join(parts) + "\n"


def _head(name: str) -> list[str]:
    # No date: the same command gives the same page.
    return [f'.TH "{name.upper()}" "1" "" "trainseal {__version__}" "{_MANUAL}"', ".nh"]


def _name(path: str) -> str:
    return path.replace(" ", "-")


def _first_line(command: TyperCommand) -> str:
    return " ".join((command.help or "").strip().partition("\n\n")[0].split())


def _parted(help_text: str) -> tuple[list[str], list[str]]:
    """Description and examples, as man(7) has them."""
    text: list[str] = []
    examples: list[str] = []
    for paragraph in help_text.replace("\b", "").strip().split("\n\n"):
        lines = [line for line in paragraph.splitlines() if line.strip()]
        if not lines:
            continue
        if all(line.startswith("    ") for line in lines):
            block = [".PP", ".nf", *(_line(line[4:]) for line in lines), ".fi"]
            # What is run is an example; what is printed or written belongs to the text.
            (examples if "trainseal" in paragraph else text).extend(block)
        elif lines[0].lstrip().startswith("- "):
            for item in re.split(r"(?m)^\s*- ", paragraph)[1:]:
                text += [r".IP \(bu 2", _inline(" ".join(item.split()))]
        else:
            text += [".PP", _inline(" ".join(" ".join(lines).split()))]
    return text, examples


def _argument(argument: TyperArgument) -> Iterator[str]:
    yield ".TP"
    yield rf"\fI{_escaped(Parameters.argument(argument))}\fR"
    yield _inline(" ".join((argument.help or "").split()) or "\\&")


def _option(option: TyperOption) -> Iterator[str]:
    names = ", ".join(rf"\fB{_escaped(n)}\fR" for n in [*option.opts, *option.secondary_opts])
    value = "" if option.is_flag else rf" \fI{_escaped(option.metavar or 'VALUE')}\fR"
    yield ".TP"
    yield names + value
    words = " ".join((option.help or "").split())
    default = Parameters.default(option)
    words += " Required." if option.required else ""
    words += f" By default `{default}`." if default else ""
    words += " May be given several times." if option.multiple else ""
    yield _inline(words.strip() or "\\&")


def _inline(text: str) -> str:
    """A paragraph: words in backquotes are bold."""
    parts = re.split(r"`([^`]+)`", text.replace("``", "`"))
    made = (rf"\fB{_escaped(p)}\fR" if i % 2 else _escaped(p) for i, p in enumerate(parts))
    return _guarded("".join(made))


def _line(text: str) -> str:
    return _guarded(_escaped(text))


def _escaped(text: str) -> str:
    """So that nothing of it is an order to the formatter, and a hyphen stays one when copied."""
    return text.replace("\\", r"\e").replace("-", r"\-").replace("'", r"\(aq")


def _guarded(line: str) -> str:
    return rf"\&{line}" if line[:1] in (".", "'") else line
