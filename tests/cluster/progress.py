"""Progress of long work: live bars on a terminal, plain lines elsewhere (CI logs)."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

_PLAIN_INTERVAL = 30.0


def say(text: str) -> None:
    """One line to standard error; standard output is kept for results."""
    print(text, file=sys.stderr, flush=True)


def minutes(seconds: float) -> str:
    """`45 s`, `3 min 20 s`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"


@contextlib.contextmanager
def step(title: str, *, expected: float) -> Iterator[None]:
    """Show that `title` is under way, how long it has taken and about how long it takes."""
    begin = time.monotonic()
    show = _bar if sys.stderr.isatty() else _lines
    with show(title, expected):
        yield
    say(f"  {title}: done in {minutes(time.monotonic() - begin)}")


@contextlib.contextmanager
def _bar(title: str, expected: float) -> Iterator[None]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn(f"of about {minutes(expected)}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        # The bar stops just short of the end where the work takes longer than expected.
        task = progress.add_task(title, total=expected)
        with _ticking(0.5, lambda spent: progress.update(task, completed=min(spent, expected))):
            yield


@contextlib.contextmanager
def _lines(title: str, expected: float) -> Iterator[None]:
    say(f"  {title}: started (about {minutes(expected)} on 2 cores)")
    with _ticking(_PLAIN_INTERVAL, lambda spent: say(f"  {title}: {minutes(spent)} so far")):
        yield


@contextlib.contextmanager
def _ticking(interval: float, tick: Callable[[float], None]) -> Iterator[None]:
    """Call `tick(seconds spent)` at an interval from a thread while the body runs."""
    begin = time.monotonic()
    end = threading.Event()

    def run() -> None:
        while not end.wait(interval):
            tick(time.monotonic() - begin)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()
        thread.join()
