"""Follows a page: its commands as they are printed, in its order, each answer held to the page's.

A page is printed for one reader and their cluster. Here `registry.example` is the cluster's
registry, and what the page's answers call by a stand-in (a digest, a name that the cluster makes
up) is what the real answers said. All else of a command is run as it stands.
"""

from __future__ import annotations

import contextlib
import os
import pty
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.guides.ledger import elsewhere, one_line
from tests.guides.pages import Printed, Typed, read
from tests.guides.shown import filled, stand_ins
from tests.stage.waiting import PATIENCE

REGISTRY = "registry.example"
#: How long the answer may take to be what the page shows, by what is asked: who reads looks again;
#: what depends on a policy that was just changed is tried again for as long as that takes to be
#: known. Anything else is done once.
_AGAIN = (
    ("kubectl apply", 30.0),
    ("kubectl create -f", 30.0),
    *(
        (f"kubectl {verb}", PATIENCE)
        for verb in (
            "get",
            "logs",
            "describe",
            "-n trainseal-system get",
            "-n trainseal-system logs",
        )
    ),
    *(
        (f"trainseal {verb}", PATIENCE)
        for verb in (
            "break-glass list",
            "checkpoints char-lm",
            "debug",
            "drift char-lm",
            "lineage",
            "status",
        )
    ),
    ("archive list", 30.0),
    ("kubectl -n trainseal-system exec", 30.0),
)
#: No command of a page takes longer; seconds.
_LIMIT = 300.0
_REFUSED = "Error from server"
_ASKS = "[y/N]: y"


@dataclass
class Walk:
    """One page's. ``people`` have an environment each, by which they reach the cluster.

    ``known`` is what stand-ins of the page stand for; the answers add to it.
    """

    page: str
    folder: Path
    registry: str
    people: Mapping[str, Mapping[str, str]]
    person: str
    known: dict[str, str] = field(default_factory=dict)
    #: Exit statuses that are neither 0 nor those of a refusal, by how a command begins.
    statuses: dict[str, int] = field(default_factory=dict)
    #: What to expect in place of an answer that is printed as an illustration.
    instead: dict[str, str] = field(default_factory=dict)
    _turns: list[tuple[str, Callable[[], object]]] = field(default_factory=list)

    def before(self, command: str, do: Callable[[], object]) -> None:
        """What happens before the next command that begins so; one a command, in this order."""
        self._turns.append((command, do))

    def become(self, person: str) -> Callable[[], object]:
        """For `before`: from there on somebody else types."""

        def change() -> None:
            self.person = person

        return change

    def printed(self, number: int) -> str:
        """The page's text of that number among those that are no command, as it would be saved."""
        texts = [step.text for step in read(self.page) if isinstance(step, Printed)]
        return self.filled(texts[number])

    def filled(self, text: str) -> str:
        """The text for this cluster."""
        return filled(text, self.known).replace(REGISTRY, self.registry)

    def file(self, name: str, text: str) -> Path:
        """Saves a text where the commands run."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def go(self, last: str = "") -> float:
        """To the end of the page, or of the first command that begins as ``last``; the seconds.

        Fails at the first command that does not do what is printed.
        """
        began = time.monotonic()
        for step in read(self.page):
            if isinstance(step, Typed) and not elsewhere(self.page, step.command):
                self._take(step)
                if last and one_line(step.command).startswith(last):
                    return time.monotonic() - began
        assert not last, f"{self.page} has no command {last!r}"
        assert not self._turns, f"{self.page} has no command {self._turns[0][0]!r} there any more"
        return time.monotonic() - began

    def take(self, command: str) -> None:
        """This one command of the page, also where the ledger has it elsewhere."""
        steps = [s for s in read(self.page) if isinstance(s, Typed)]
        (step,) = [s for s in steps if one_line(s.command) == command]
        self._take(step)

    def _take(self, step: Typed) -> None:
        command = one_line(step.command)
        if self._turns and command.startswith(self._turns[0][0]):
            self._turns.pop(0)[1]()
        person = step.person or self.person
        shown = next((w for c, w in self.instead.items() if command.startswith(c)), step.shown)
        typed = "y\n" if _ASKS in shown else ""
        shown = self.filled_shown(shown)
        status = next((n for c, n in self.statuses.items() if command.startswith(c)), None)
        if status is None:
            status = 1 if shown.startswith(_REFUSED) else 0
        wait = next((s for c, s in _AGAIN if command.startswith(c)), 0.0)
        end = time.monotonic() + wait
        while True:
            found, said = self.run(step.command, person, typed)
            bound = stand_ins(shown, said, self.known)
            if found == status and bound is not None:
                self.known.update(bound)
                return
            if time.monotonic() >= end:
                break
            time.sleep(0.5)
        what = f"exit status {status}" + (f" and\n{shown}" if shown else "")
        raise AssertionError(
            f"{self.page}, as {person}:\n$ {self.filled(step.command)}\n"
            f"ended with {found} and\n{said}\nexpected {what}\nwhere {self.known}"
        )

    def filled_shown(self, shown: str) -> str:
        """What is to be looked for; stand-ins stay."""
        return shown.replace(_ASKS, "[y/N]:").replace(REGISTRY, self.registry)

    def run(self, command: str, person: str, typed: str = "") -> tuple[int, str]:
        """Exit status and all output of a command of the page, in a shell of its own.

        A function that a page defines is there in later ones.
        """
        session = self.folder / ".session"
        session.touch()
        script = f". ./.session\nset -o pipefail\n{self.filled(command)}"
        argv = ["bash", "--noprofile", "--norc", "-c", script]
        environment = {**os.environ, **self.people[person]}
        if typed:
            return at_a_terminal(argv, self.folder, environment, typed)
        done = subprocess.run(
            argv,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=_LIMIT,
        )
        if "() {" in command:
            session.write_text(f"{session.read_text()}{self.filled(command)}\n")
        return done.returncode, done.stdout


def at_a_terminal(
    argv: Sequence[str], folder: Path, environment: Mapping[str, str], typed: str
) -> tuple[int, str]:
    """Exit status and all output of a program that asks, and is answered, at a terminal."""
    ours, its = pty.openpty()
    plain = {**environment, "NO_COLOR": "1", "TERM": "dumb"}
    process = subprocess.Popen(argv, cwd=folder, env=plain, stdin=its, stdout=its, stderr=its)
    os.close(its)
    watchdog = threading.Timer(_LIMIT, process.kill)
    watchdog.start()
    try:
        os.write(ours, typed.encode())
        said = b""
        with contextlib.suppress(OSError):  # so it ends, when nobody has the other side any more
            while piece := os.read(ours, 1 << 16):
                said += piece
        return process.wait(), said.decode(errors="replace").replace("\r\n", "\n")
    finally:
        watchdog.cancel()
        process.kill()
        process.wait()
        os.close(ours)
