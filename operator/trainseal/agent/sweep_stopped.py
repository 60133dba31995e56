"""Processes of the trainer that a signal has stopped, sweep by sweep. Pure.

State ``T`` of proc_pid_stat(5): SIGSTOP, SIGTSTP, SIGTTIN or SIGTTOU. It takes two sweeps in a row,
for whoever stops a process may let it go on at once, as a shell's job control does. What is in a
session that entered is silent: somebody at a terminal stops what they began themselves (Ctrl-Z).

A tracer's stop is ``t``. The freezer never leaves ``T``: what it holds shows ``D`` with version 1
of control groups (the stopped too) and ``S`` with version 2, so a pod that the agent froze is not
found here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from trainseal.agent.masking import named_by
from trainseal.agent.observed import Observation
from trainseal.agent.processes import Member
from trainseal.api.findings import FindingId

_STOPPED = "T"


class StoppedProcesses:
    """Those of one container; ``look`` once a sweep with all of its processes."""

    def __init__(self) -> None:
        self._since: dict[tuple[int, int], datetime] = {}

    def look(self, members: Iterable[Member], now: datetime) -> Iterator[Observation]:
        """Who stood still in the sweep before already. ``since`` is the first sweep that saw it,
        which the act came before.
        """
        before, self._since = self._since, {}
        for member in members:
            if member.seat.stat.state != _STOPPED or member.lineage.session is not None:
                continue
            key = member.seat.key
            since = self._since[key] = before.get(key, now)
            if key in before:
                yield _observation(member, since)


def _observation(member: Member, since: datetime) -> Observation:
    process = member.process
    command = named_by(process, 1024)
    at = f"{since:%Y-%m-%dT%H:%M:%SZ}"
    return Observation(
        FindingId.PROCESS_STOPPED,
        f"process {member.pid} ({command[:200]}) is stopped by a signal, since {at} at the latest",
        lineage=member.lineage,
        evidence={"stopped": f"{member.pid}: {command}", "since": at},
        subject=command,
    )
