"""Which threads of which ranks stand at the same place: what one looks for is the odd one. Pure.

Threads count as alike by their calls alone: function, file and line of each. Numbers and names of
threads and processes differ from rank to rank and say nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trainseal.api.stackdump import Frame, ProcessStacks


@dataclass(frozen=True, slots=True, order=True)
class Rank:
    """A pod's place in its run. ``role`` is empty where the run has only one; ``place`` is the
    role's place among the run's.
    """

    place: int
    index: int
    role: str = ""

    def __str__(self) -> str:
        return f"{self.role}/{self.index}" if self.role else str(self.index)


@dataclass(frozen=True, slots=True)
class Thread:
    """A thread of a rank, by its process's number and its name, where it has one."""

    rank: Rank
    pid: int
    name: str | None


@dataclass(frozen=True, slots=True)
class Group:
    """Threads that stand at the same place. ``main``: they are their processes' main threads.

    ``omitted`` counts outermost calls that the dump does not hold.
    """

    main: bool
    frames: tuple[Frame, ...]
    omitted: int
    threads: tuple[Thread, ...]

    @property
    def ranks(self) -> tuple[Rank, ...]:
        """Each once, in order."""
        return tuple(sorted({t.rank for t in self.threads}))


#: A call as it is compared.
Call = tuple[str, str, int | None]


def grouped(ranks: Iterable[tuple[Rank, Sequence[ProcessStacks]]]) -> list[Group]:
    """Main threads first; then what most ranks have in common first, so that what is odd follows
    what is common.
    """
    found: dict[tuple[bool, tuple[Call, ...], int], list[Thread]] = {}
    calls: dict[tuple[Call, ...], tuple[Frame, ...]] = {}
    for rank, processes in ranks:
        for process in processes:
            for thread in process.threads or ():
                frames = tuple(thread.frames or ())
                key = tuple((f.name, f.file, f.line) for f in frames)
                calls[key] = frames
                place = bool(thread.main), key, thread.frames_omitted or 0
                found.setdefault(place, []).append(Thread(rank, process.pid, thread.name))
    groups = [
        Group(main, calls[key], omitted, tuple(sorted(threads, key=lambda t: (t.rank, t.pid))))
        for (main, key, omitted), threads in found.items()
    ]
    return sorted(groups, key=lambda g: (not g.main, -len(g.ranks), g.ranks[0]))


def ranges(ranks: Iterable[Rank]) -> str:
    """``0-6, 8``; with several roles ``worker/0-6, launcher/0``."""
    runs: list[tuple[Rank, Rank]] = []
    for rank in sorted(set(ranks)):
        if runs and (runs[-1][1].place, runs[-1][1].index + 1) == (rank.place, rank.index):
            runs[-1] = runs[-1][0], rank
        else:
            runs.append((rank, rank))
    return ", ".join(
        str(first) if first == last else f"{first}-{last.index}" for first, last in runs
    )
