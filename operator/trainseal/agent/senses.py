"""What the agent of a node sees with: events of files, processes, and what events miss.

Chosen once at the agent's start by what the kernel offers; what it does not is in ``lacking``, with
what a GPU's driver does not tell at the moment.
Events are read in the event loop, sweeps run in a thread of their own and give the processor back
again and again: a sweep takes a tenth of one core at most while it runs.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime

from trainseal.agent.attribution import nearby
from trainseal.agent.checkpointevents import WriteListener
from trainseal.agent.evidenceitems import Taken
from trainseal.agent.evidencetaking import EvidenceTaker
from trainseal.agent.eyes import Eyes
from trainseal.agent.fanotify import Capabilities, probe
from trainseal.agent.ledger import Person
from trainseal.agent.looks import Pulse
from trainseal.agent.nvml import Nvml, has_nvidia_gpus
from trainseal.agent.observed import FOUND_BY, Lineage, Observation, Process, WatchedContainer
from trainseal.agent.processes import Processes
from trainseal.agent.sessions import Command, Sessions, is_helper
from trainseal.agent.signedtrees import Sealed, SignedTrees
from trainseal.agent.sweep_gpus import GpuSweep
from trainseal.agent.sweeps import Seen, Sources, Sweeps
from trainseal.api.accessrecord import AccessRecord
from trainseal.api.driftreport import Finding
from trainseal.api.findings import FindingId

_BEAT_SECONDS = 0.5
_AT_ONCE = 0.005
_SHARE = 0.1

Records = Callable[[str], Sequence[AccessRecord]]
OwnCommands = Callable[[WatchedContainer], Iterable[Command]]


class NodeSenses:
    """The senses of one node. ``records`` are the access records on a pod, by its UID;
    ``sealed_trees`` what a container's signed mounts hold; ``is_sealed`` whether a pod's UID is
    that of a sealed pod of this node; ``writes`` is told of checkpoints; ``current`` says whether
    the access records are, and not behind since the API server was away.
    """

    def __init__(
        self,
        records: Records,
        own_commands: OwnCommands,
        sealed_trees: Sealed,
        is_sealed: Callable[[str], bool],
        now: Callable[[], datetime],
        pause: Callable[[float], None] = time.sleep,
        writes: WriteListener | None = None,
        current: Callable[[], bool] = lambda: True,
    ) -> None:
        self._writes = writes
        self._capabilities: Capabilities = probe()
        self._node = node_root()
        self._processes = Processes()
        self._sessions = Sessions()
        self._records = records
        self._trees = SignedTrees(sealed_trees)
        self._gpus = GpuSweep(self._processes, Nvml, is_sealed, present=has_nvidia_gpus())
        self._sweeps = Sweeps(
            self._processes,
            self._sessions,
            Sources(lambda c: records(c.pod_uid), own_commands, self._trees.of, current=current),
            now,
            gpus=self._gpus,
            node=self._node,
        )
        self._pause = pause
        self._pulse = Pulse(now)
        self._taker = EvidenceTaker(self._processes, now)

    async def run(self) -> None:
        """Beats for as long as events are read; until cancelled."""
        while True:
            self._pulse.beat()
            await asyncio.sleep(_BEAT_SECONDS)

    @property
    def sees_writes(self) -> bool:
        """Whether events tell of writes at all on this node."""
        return self._capabilities.files

    @property
    def lacking(self) -> tuple[str, ...]:
        """In words, what this node does not let us see: its kernel, or its GPUs' driver."""
        return (*self._capabilities.lacking, *self._gpus.lacking)

    @property
    def sweeping(self) -> str:
        """What the sweep that goes on looks at."""
        return self._sweeps.at

    @property
    def processes(self) -> Processes:
        """The node's processes; may be asked from any thread."""
        return self._processes

    def process(self, pid: int) -> Process | None:
        """One process, now."""
        return self._processes.read(pid)

    def runs(self, pid: int) -> bool:
        """Whether a process is there and does not end."""
        return self._processes.runs(pid)

    def eyes(self, container: WatchedContainer) -> Eyes:
        """For the file events of a container. OSError where it is gone."""
        return Eyes(
            container,
            self._capabilities,
            lambda pid: self._acting(pid, container),
            node=self._node,
            writes=self._writes,
            pulse=self._pulse,
        )

    def _acting(self, pid: int, container: WatchedContainer) -> Lineage | None:
        found = self._processes.lineage(pid, container)
        if found is not None and found.session is not None:
            # Now it is what was asked for; a shell may be another program at its next act.
            records = self._records(container.pod_uid)
            self._sessions.opened_by(found.session, container.container, records, exactly=True)
        return found

    def take(self, seen: Observation, container: WatchedContainer | None) -> Taken:
        """What evidence there is of an observation. Takes its time; runs in a thread."""
        return self._taker.take(seen, container)

    def opened_by(self, uid: str, container: str | None, session: Process) -> Person | None:
        """Who opened an exec session, where a record says so."""
        found = self._sessions.opened_by(session, container, self._records(uid))
        return None if found is None else Person(found.user, found.record)

    def behind(self, uid: str, finding: Finding, session: Process | None) -> Person | None:
        """Who is behind a finding. A process that was never seen as what it became says as little
        as none.
        """
        if session is not None:
            person = self.opened_by(uid, finding.container, session)
            if person is not None or (session.command and not is_helper(session)):
                return person
        return self.nearby(uid, finding)

    def nearby(self, uid: str, finding: Finding) -> Person | None:
        """Who can have done what no process is known for, if it is one person only."""
        inside = {
            record
            for (pid, started), record in self._sessions.known().items()
            if (process := self._processes.read(pid)) is not None and process.started == started
        }
        found = nearby(
            self._records(uid),
            finding.container,
            finding.path,
            finding.first_time,
            inside,
            told=FOUND_BY not in (finding.evidence or {}),
            signal=finding.id == FindingId.PROCESS_STOPPED,
        )
        return None if found is None else Person(found.user, found.record, found.by)

    def named(self, uid: str, container: str | None, path: str, at: datetime) -> bool:
        """Whether the command of one person who had just been let in names the file."""
        found = nearby(self._records(uid), container, path, at)
        return found is not None and found.by_command

    def sweep(self, containers: Sequence[WatchedContainer]) -> Iterator[Seen]:
        """What events miss, in all containers. Takes its time; runs in a thread."""
        self._trees.keep(containers)
        began = time.thread_time()
        for found in self._sweeps.look(containers):
            if found is not None:
                yield found
            spent = time.thread_time() - began
            if spent > _AT_ONCE:
                self._pause(spent / _SHARE - spent)
                began = time.thread_time()
        yield from self._trees.differing()


def node_root() -> str:
    """Where the paths of containers' layers hold: the root directory of the container runtime.

    Whoever started us, in a pod its runtime's shim, lives as long as we do; else the node's first
    process.
    """
    for pid in (os.getppid(), 1):
        root = f"/proc/{pid}/root"
        with suppress(OSError):
            os.close(os.open(root, os.O_PATH | os.O_DIRECTORY))
            return root
    return "/proc/1/root"
