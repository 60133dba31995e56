"""One line a step, with the time it took; on a terminal the running step shows its last output."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from tests.images.errors import ImageError

_TAIL_LINES = 25

Say = Callable[[str], None]
"""Takes the newest line of a running step's output."""


@contextlib.contextmanager
def step(title: str) -> Iterator[Say]:
    """Show that `title` is being done, and how long it took once it is."""
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    began = time.monotonic()
    if console.is_terminal:
        with console.status(escape(title)) as status:

            def say(line: str) -> None:
                room = max(10, console.width - len(title) - 16)
                elapsed = time.monotonic() - began
                status.update(
                    f"{escape(title)} [dim]{elapsed:4.0f} s  {escape(line.strip()[:room])}[/]"
                )

            yield say
    else:
        print(f"{title} ...", file=sys.stderr, flush=True)
        yield lambda _line: None
    elapsed = time.monotonic() - began
    console.print(f"[green]✓[/] {escape(title)} [dim]{elapsed:.1f} s[/]")


def run(
    command: Sequence[str | Path],
    say: Say,
    *,
    doing: str,
    action: str = "",
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> None:
    """Run a command to its end, showing its output line by line.

    Raises ImageError with the end of its output where it fails; `doing` says in words what it
    was for, `action` what a person can do about a failure.
    """
    tail: deque[str] = deque(maxlen=_TAIL_LINES)
    with subprocess.Popen(
        # A builder that outlived us would go on writing where the next build clears up.
        ["setpriv", "--pdeathsig", "KILL", *(str(part) for part in command)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=env,
        cwd=cwd,
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                tail.append(line)
                say(line)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise ImageError(
            f"{doing} failed: {command[0]} ended with status {process.returncode}",
            action=action,
            detail="".join(tail),
        )
