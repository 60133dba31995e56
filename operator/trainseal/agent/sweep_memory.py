"""The sweep for ``/proc/PID/mem``: who holds the memory of a sealed container's process open.

The descriptors of the containers' own processes are looked at in each sweep, those of all others on
the node in turns, so many at a time. A descriptor that is open for less than a turn is missed here:
what is written by the container's own ``/proc`` is an event (``memorywrites``). Reading and writing
by ``process_vm_readv``/``process_vm_writev`` opens nothing and is not seen.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence

from trainseal.agent.masking import named_by
from trainseal.agent.observed import Lineage, Observation, Process
from trainseal.agent.processes import Member, Processes
from trainseal.agent.procfiles import ProcFileError, parse_status
from trainseal.api.findings import FindingId

_LINK = re.compile(r"/proc/(?:([0-9]+)/)?(?:task/([0-9]+)/)?mem")
_FLAGS = re.compile(rb"^flags:\s*([0-7]+)$", re.MULTILINE)
#: Descriptors of other processes of the node that one sweep looks at.
OTHERS = 2_000
#: Of one process, in one sweep; the rest has its turn later.
_MOST = 4_096


class MemorySweep:
    """All watched containers of the node at once."""

    def __init__(self, processes: Processes, others: int = OTHERS) -> None:
        self._processes = processes
        self._others = others
        self._last = 0
        self._offsets: dict[int, int] = {}

    def run(
        self, members: Mapping[str, Sequence[Member]]
    ) -> Iterator[tuple[str, Observation] | None]:
        """Findings with the id of the container; None now and then: a place to pause."""
        own = {m.pid: (container, m) for container, found in members.items() for m in found}
        if not own:
            return
        for pid in own:
            yield from self._holder(pid, own, _MOST)[1]
            yield None
        others = [pid for pid in sorted(self._processes.pids()) if pid not in own]
        turn = [p for p in others if p > self._last] + [p for p in others if p <= self._last]
        left = self._others
        for pid in turn:
            if left <= 0:
                break
            looked, found = self._holder(pid, own, min(left, _MOST))
            left -= looked + 1
            self._last = pid
            yield from found
            yield None
        self._offsets = {p: n for p, n in self._offsets.items() if p in own or p in turn}

    def in_turns(self, pid: int) -> bool:
        """Whether it had so many descriptors that one sweep does not look at all of them."""
        return pid in self._offsets

    def _holder(
        self, pid: int, own: Mapping[int, tuple[str, Member]], most: int
    ) -> tuple[int, list[tuple[str, Observation]]]:
        """How many descriptors were looked at, and what was found."""
        directory = f"{self._processes.proc}/{pid}/fd"
        try:
            names = os.listdir(directory)  # noqa: PTH208 numbers, and often
        except OSError:
            return 0, []
        if len(names) > most:
            start = self._offsets.get(pid, 0) % len(names)
            self._offsets[pid] = start + most
            names = (names[start:] + names[:start])[:most]
        found = []
        for name in names:
            try:
                link = os.readlink(f"{directory}/{name}")  # noqa: PTH115 text, and often
            except OSError:
                continue
            if not link.endswith("/mem"):
                continue
            match = _LINK.fullmatch(link)
            if match and self._writable(pid, name):
                found += self._judged(pid, int(match[1] or match[2] or 0), own)
        return len(names), found

    def _writable(self, pid: int, name: str) -> bool:
        try:
            match = _FLAGS.search(self._processes.file(pid, f"fdinfo/{name}"))
        except OSError:
            return False
        return match is not None and int(match[1], 8) & os.O_ACCMODE != os.O_RDONLY

    def _judged(
        self, holder: int, number: int, own: Mapping[int, tuple[str, Member]]
    ) -> list[tuple[str, Observation]]:
        """``number`` is a pid as the mount of /proc has it that the holder opened."""
        mine = own.get(holder)
        target = None
        if mine is not None:
            container, member = mine
            for other_container, other in own.values():
                if other_container == container and number in self._numbers(other.pid):
                    target = (container, other)
                    break
            if target is not None and target[1].pid == holder:
                return []  # its own memory it can write anyway
            if target is None:
                target = (container, member)  # gone, or of another container: say who holds it
        elif number in own:
            target = own[number]
        if target is None:
            return []
        container, victim = target
        lineage = mine[1].lineage if mine is not None else self._processes.above(holder)
        if lineage is None:
            return []
        seen = memory_opened(holder, lineage, "holds", str(victim.pid), victim.process)
        return [(container, seen)]

    def _numbers(self, pid: int) -> tuple[int, ...]:
        try:
            return (pid, *parse_status(self._processes.file(pid, "status")).pids)
        except (OSError, ProcFileError):
            return (pid,)


def memory_opened(
    holder: int, lineage: Lineage | None, verb: str, number: str, victim: Process
) -> Observation:
    """One finding, whether it is held or was: by its command to that program."""
    name = "a process that ended" if lineage is None else named_by(lineage.chain[0])
    theirs = named_by(victim)
    return Observation(
        FindingId.PROCESS_MEMORY_OPENED,
        f"process {holder} ({name}) {verb} the memory of process {number} ({theirs}) open for "
        "writing",
        lineage=lineage,
        evidence={"holder": f"{holder}: {name}", "memory of": f"{number}: {theirs}"},
        subject=f"{name} {victim.executable}",
    )
