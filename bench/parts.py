"""One bench after the other, each in a process of its own: none loses what another has measured.

A bench that fails, hangs or is killed is said so, what it left is removed, and the next has its
turn. It is asked to end first (SIGINT), so that it takes its own cluster down.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.section import Section

#: A process that was asked to end has so long.
_GRACE = 120.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """``section`` is None where the bench failed; ``failure`` then says how."""

    name: str
    seconds: float
    section: Section | None
    failure: str = ""


def run_part(
    name: str, argv: Sequence[str], limit: float, clear: Callable[[], object], grace: float = _GRACE
) -> Outcome:
    """Runs ``argv`` and the name of a file into which it writes its section (see `write`).

    ``limit`` is in seconds. ``clear`` removes what an earlier run may have left, and what this one
    leaves if it does not end by itself. Raises KeyboardInterrupt, after the process has ended.
    """
    began = time.monotonic()

    def outcome(section: Section | None, failure: str = "") -> Outcome:
        return Outcome(name, time.monotonic() - began, section, failure)

    with tempfile.TemporaryDirectory() as folder:
        to = Path(folder, "section.json")
        try:
            clear()
            # A session of its own: all that it started can be ended at once, and a terminal's
            # Ctrl-C comes to us alone.
            child = subprocess.Popen([*argv, str(to)], start_new_session=True)
            try:
                status = child.wait(limit)
            except subprocess.TimeoutExpired:
                end(child, clear, grace)
                return outcome(None, f"no end within {limit:.0f} s")
            except KeyboardInterrupt:
                end(child, clear, grace)
                raise
        except Exception as error:  # noqa: BLE001 - whatever it was, it is said, and the next runs
            return outcome(None, f"{type(error).__name__}: {error}")
        if status or not to.exists():
            return outcome(None, f"ended with {status}; its last words are above")
        return outcome(Section(**json.loads(to.read_text())))


def end(child: subprocess.Popen[bytes], clear: Callable[[], object], grace: float = _GRACE) -> None:
    """Ends it and what it started: asked first, then killed."""
    child.send_signal(signal.SIGINT)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(grace)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    clear()


def write(section: Section, to: Path) -> None:
    """What `run_part` reads."""
    to.write_text(json.dumps({"markdown": section.markdown, "values": section.values}))
