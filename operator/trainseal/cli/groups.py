"""Groups of commands, one of which is meant where none is named."""

from __future__ import annotations

import typer
from typer.core import TyperGroup


def default_command(name: str) -> type[TyperGroup]:
    """``trainseal GROUP JOB`` is ``trainseal GROUP name JOB``, but for a job named as a command."""

    class Group(TyperGroup):
        def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
            """Typer's, with the command that was left out."""
            named = args[:1] and args[0] in (*self.commands, "--help")
            asks_for_help = not args and self.no_args_is_help
            if not (named or asks_for_help):
                args = [name, *args]
            return super().parse_args(ctx, args)

    return Group
