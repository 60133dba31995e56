"""Groups of commands, one of which is meant where none is named."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperArgument, TyperGroup


def default_command(name: str) -> type[TyperGroup]:
    """``trainseal GROUP JOB`` is ``trainseal GROUP name JOB``, but for a job named as a command."""

    class Group(TyperGroup):
        #: What is meant where no command is named.
        meant = name

        def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
            """Typer's, with the command that was left out."""
            named = args[:1] and args[0] in (*self.commands, "--help")
            asks_for_help = not args and self.no_args_is_help
            # A line that ends here is being typed: it may become either.
            being_typed = not args and ctx.resilient_parsing
            if not (named or asks_for_help or being_typed):
                args = [name, *args]
            return super().parse_args(ctx, args)

        def shell_complete(self, ctx: typer.Context, incomplete: str) -> list[Any]:  # type: ignore[override]
            """Typer's, and what the command that may be left out takes."""
            found: list[Any] = super().shell_complete(ctx, incomplete)
            meant = self.commands[name]
            inner = typer.Context(meant, info_name=name, parent=ctx, resilient_parsing=True)
            first = next((p for p in meant.params if isinstance(p, TyperArgument)), None)
            return found + (first.shell_complete(inner, incomplete) if first is not None else [])

    return Group
