"""Programs that an interpreter reads: found by its command line, where their file is nobody's.

The kernel runs the interpreter, which is the image's; so neither its execution nor a mapping tells.
Each process is looked at when an interpreter was executed, and by the sweeps.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime

from trainseal.agent.masking import named_by
from trainseal.agent.observed import Lineage, Observation, Process
from trainseal.agent.origins import FOREIGN, Places, why
from trainseal.agent.pathlinks import of_a_process
from trainseal.api.findings import FindingId
from trainseal.provenance import programs
from trainseal.provenance.programfiles import program_file

#: Seconds after the event at which is looked. It comes before the program is another; its command
#: line is there a moment later, and a short program gone some milliseconds after that.
LOOKS = (0.0, 0.003, 0.006, 0.012, 0.025, 0.05, 0.1, 0.2)
#: So many are looked at side by side; those beyond are left to the sweep.
MOST = 256


def foreign_script(
    process: Process, directory: str | None, places: Places, *, relative: bool = True
) -> Observation | None:
    """The difference that is an interpreter's program from a place that nobody signed.

    ``directory`` is where the process is now, which may not be where it began: a relative name
    (``/proc/self/cwd/x`` is one) counts if there is such a file, and without ``relative`` not at
    all.
    """
    word = program_file(process.executable, process.command)
    if word is None or "\0" in word:
        return None
    moves = not word.startswith("/") or "/cwd/" in word
    if moves and (not relative or directory is None or not directory.startswith("/")):
        return None
    path = places.resolved(posixpath.join(directory or "/", word), process.pid)
    if of_a_process(path):
        reason = "it was reached through a process that is gone"
    elif path.startswith("/proc/"):
        return None  # what another has open, by whatever name
    else:
        origin = places.origin(path)
        if origin not in FOREIGN or (moves and places.status(path) is None):
            return None
        reason = why(origin)
    return Observation(
        FindingId.EXEC_FOREIGN,
        f"{process.executable} runs the program {path}, which is not of the image: {reason}",
        path=path,
        evidence={
            "interpreter": process.executable,
            "script": word[:1024],
            "command": named_by(process, 1024),
        },
        # A script that is executed by its own name has an event too: it is the same act.
        subject=path,
    )


@dataclass(slots=True)
class _Started:
    """An interpreter that was executed at ``at``, and not before ``since``; looked at so often."""

    at: float
    since: datetime
    looked: int = 0

    @property
    def due(self) -> float:
        """When it is looked at next."""
        return self.at + LOOKS[self.looked]


class StartedScripts:
    """Looks at who executed an interpreter, from the event on until its command line tells.

    ``directory`` gives the working directory of a process, None once it is gone.
    """

    def __init__(
        self,
        places: Places,
        lineage: Callable[[int], Lineage | None],
        directory: Callable[[int], str | None],
    ) -> None:
        self._places = places
        self._lineage = lineage
        self._directory = directory
        self._started: dict[int, _Started] = {}
        #: Interpreters that were started while too many others were looked at.
        self.missed = 0

    @property
    def next(self) -> float | None:
        """When somebody is to be looked at; None: there is nobody."""
        return min((one.due for one in self._started.values()), default=None)

    def executed(self, pid: int, program: str, now: float, since: datetime) -> None:
        """A process is about to become this program, and was not before ``since``."""
        if programs.language_of(program) is None:
            return
        if len(self._started) < MOST or pid in self._started:
            self._started[pid] = _Started(now, since)
        else:
            self.missed += 1

    def look(self, now: float) -> Iterator[tuple[Observation, Lineage]]:
        """Each that is found, once, and who does it."""
        for pid, started in list(self._started.items()):
            if started.due > now:
                continue
            lineage = self._lineage(pid)
            found = (
                foreign_script(lineage.chain[0], self._directory(pid), self._places)
                if lineage is not None and lineage.chain[0].pid == pid
                else None
            )
            while started.looked < len(LOOKS) and started.due <= now:
                started.looked += 1
            if found is not None or lineage is None or started.looked == len(LOOKS):
                del self._started[pid]
            if found is not None and lineage is not None:
                yield replace(found, not_before=started.since), lineage
