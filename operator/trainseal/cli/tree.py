"""The tree of commands, and what each one takes: what the reference and the manual are made of."""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

#: Typer's own; every command of every program has them.
_NOT_LISTED = frozenset({"help", "install_completion", "show_completion"})
#: What nobody types.
PROCESSES = frozenset({"webhook", "controller", "archive", "agent", "gate"})


def commands() -> list[tuple[str, TyperCommand]]:
    """Every command by its whole name, those that people call first."""
    from trainseal.cli.main import app

    found = _leaves(typer.main.get_command(app), "trainseal")
    return sorted(found, key=lambda leaf: leaf[1].name in PROCESSES)


def _leaves(command: object, path: str) -> Iterator[tuple[str, TyperCommand]]:
    """Depth first, in the order of their declaration."""
    if isinstance(command, TyperGroup):
        for name, child in command.commands.items():
            yield from _leaves(child, f"{path} {name}")
    elif isinstance(command, TyperCommand) and not command.hidden:
        yield path, command


@dataclass(frozen=True, slots=True)
class Parameters:
    """What a command takes."""

    arguments: tuple[TyperArgument, ...]
    options: tuple[TyperOption, ...]

    @classmethod
    def of(cls, command: TyperCommand) -> Parameters:
        """But for what every command has."""
        return cls(
            tuple(p for p in command.params if isinstance(p, TyperArgument) and not p.hidden),
            tuple(
                p
                for p in command.params
                if isinstance(p, TyperOption) and not p.hidden and p.name not in _NOT_LISTED
            ),
        )

    @property
    def usage(self) -> list[str]:
        """What follows the command's name."""
        return [*map(self.argument, self.arguments), *(["[OPTIONS]"] if self.options else [])]

    @staticmethod
    def argument(argument: TyperArgument) -> str:
        """Its name: in brackets where it may be left out, with dots where there may be several."""
        name = (argument.metavar or argument.name or "").upper()
        name += "…" if argument.nargs != 1 else ""
        return name if argument.required else f"[{name}]"

    @staticmethod
    def default(parameter: TyperArgument | TyperOption) -> str:
        """What holds where it is left out; empty where that is nothing to be named."""
        value: object = parameter.default
        if parameter.required or value is None or callable(value) or not parameter.show_default:
            return ""
        if isinstance(value, bool):
            return "yes" if value else ""
        if isinstance(value, list | tuple):
            return " ".join(map(str, value))
        if isinstance(value, enum.Enum):
            value = value.value
        return value.as_posix() if isinstance(value, Path) else str(value)
