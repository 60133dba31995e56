"""How the demo looks: numbered steps with the time, what somebody types, what is answered.

Colours and a spinner on a terminal; plain lines, in the same order, everywhere else.
"""

from __future__ import annotations

import contextlib
import textwrap
import time
from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.cluster.progress import minutes

_INDENT = "   "
_BAR = f"{_INDENT}│ "


class Show:
    """Prints as things happen, and remembers how long each step took."""

    def __init__(self) -> None:
        self._console = Console(highlight=False, soft_wrap=True)
        self._began = time.monotonic()
        self._steps: list[tuple[str, float]] = []

    @property
    def seconds(self) -> float:
        """Since the demo began."""
        return time.monotonic() - self._began

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One numbered step; what happens inside is printed below its title."""
        number, began = len(self._steps) + 1, time.monotonic()
        self._line()
        self._line(f"{number:2} {title}", "bold cyan", f"  at {_clock(self.seconds)}", "dim")
        try:
            yield
        except BaseException:
            self._line(f"{_INDENT}✗ after {_exactly(time.monotonic() - began)}", "red")
            raise
        took = time.monotonic() - began
        self._steps.append((title, took))
        self._line(f"{_INDENT}✓", "green", f" {_exactly(took)}", "dim")

    def command(self, who: str, command: str) -> None:
        """What somebody types."""
        first, *rest = command.splitlines()
        self._line(f"{_INDENT}{who}$ ", "yellow", first, "bold")
        for line in rest:
            self._line(f"{_INDENT}  {line}", "bold")

    def answer(self, text: str, style: str = "") -> None:
        """What is answered; long lines are broken on a terminal only."""
        for line in text.rstrip().splitlines():
            for part in self._broken(line):
                self._line(_BAR, "dim", part, style)

    def note(self, text: str) -> None:
        """A sentence on what is seen."""
        for part in self._broken(text):
            self._line(f"{_INDENT}{part}", "italic")

    @contextlib.contextmanager
    def working(self, what: str) -> Iterator[None]:
        """A spinner while something takes its time; nothing where there is no terminal."""
        if not self._console.is_terminal:
            yield
            return
        with self._console.status(Text(what, "dim")):
            yield

    def heading(self, text: str) -> None:
        """Words that stand apart."""
        self._line()
        self._line(text, "bold")

    def failure(self, text: str) -> None:
        """Why the demo failed."""
        self._line()
        self._line(text, "red")

    def summary(self) -> None:
        """Each step with its seconds."""
        table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold")
        table.add_column("", justify="right")
        table.add_column("step")
        table.add_column("seconds", justify="right")
        for number, (title, took) in enumerate(self._steps, 1):
            table.add_row(str(number), title, f"{took:.1f}")
        table.add_row("", "in all", f"{self.seconds:.1f}", style="bold")
        self._line()
        self._console.print(table, soft_wrap=False)

    def _broken(self, line: str) -> Sequence[str]:
        if not self._console.is_terminal:
            return [line]
        room = max(40, self._console.width - len(_BAR))
        indent = " " * (len(line) - len(line.lstrip()) + 2)
        return textwrap.wrap(
            line, room, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
        ) or [""]

    def _line(self, *parts: str) -> None:
        """Texts and styles in turn; the last style may be left out."""
        pairs = zip(parts[::2], [*parts[1::2], ""], strict=False)
        self._console.print(Text.assemble(*pairs))


def _clock(seconds: float) -> str:
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _exactly(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds < 60 else minutes(seconds)
