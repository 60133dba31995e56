"""What the agent of a node sees with: events of files, processes, and what events miss.

Chosen once at the agent's start by what the kernel offers; what it does not is in ``lacking``.
Events are read in the event loop, sweeps run in a thread of their own and give the processor back
again and again: a sweep takes a tenth of one core at most while it runs.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from trainseal.agent.eyes import Eyes
from trainseal.agent.fanotify import Capabilities, probe
from trainseal.agent.files import Tree
from trainseal.agent.layers import Layers, LayersError
from trainseal.agent.ledger import Person
from trainseal.agent.mounts import (
    MAX_MOUNTINFO,
    Mount,
    MountInfoError,
    at_path,
    overlay_of,
    parse,
)
from trainseal.agent.observed import Lineage, Observation, Process, WatchedContainer
from trainseal.agent.origins import ContainerPlaces
from trainseal.agent.processes import Member, Processes
from trainseal.agent.sessions import Command, Sessions
from trainseal.agent.sweep_memory import MemorySweep
from trainseal.agent.sweep_processes import ProcessSweep
from trainseal.api.accessrecord import AccessRecord

_log = logging.getLogger(__name__)
_AT_ONCE = 0.005
_SHARE = 0.1

Records = Callable[[str], Sequence[AccessRecord]]
OwnCommands = Callable[[WatchedContainer], Iterable[Command]]


class NodeSenses:
    """The senses of one node. ``records`` are the access records on a pod, by its UID."""

    def __init__(
        self,
        records: Records,
        own_commands: OwnCommands,
        now: Callable[[], datetime],
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._capabilities: Capabilities = probe()
        self._node = node_root()
        self._processes = Processes()
        self._sessions = Sessions()
        self._memory = MemorySweep(self._processes)
        self._sweepers: dict[str, _Sweeper] = {}
        self._records = records
        self._own_commands = own_commands
        self._now = now
        self._pause = pause

    @property
    def lacking(self) -> tuple[str, ...]:
        """In words, what this node's kernel does not let us see."""
        return self._capabilities.lacking

    def process(self, pid: int) -> Process | None:
        """One process, now."""
        return self._processes.read(pid)

    def eyes(self, container: WatchedContainer) -> Eyes:
        """For the file events of a container. OSError where it is gone."""
        return Eyes(
            container,
            self._capabilities,
            lambda pid: self._lineage(pid, container),
            node=self._node,
        )

    def opened_by(self, uid: str, container: str | None, session: Process) -> Person | None:
        """Who opened an exec session, where a record says so."""
        found = self._sessions.opened_by(session, container, self._records(uid))
        return None if found is None else Person(found.user, found.record)

    def sweep(
        self, containers: Sequence[WatchedContainer]
    ) -> Iterator[tuple[WatchedContainer, Observation]]:
        """What events miss, in all containers. Takes its time; runs in a thread."""
        began = time.thread_time()
        for found in self._look(containers):
            if found is not None:
                yield found
            spent = time.thread_time() - began
            if spent > _AT_ONCE:
                self._pause(spent / _SHARE - spent)
                began = time.thread_time()

    def _look(
        self, containers: Sequence[WatchedContainer]
    ) -> Iterator[tuple[WatchedContainer, Observation] | None]:
        by_id = {c.container_id: c for c in containers}
        for gone in self._sweepers.keys() - by_id.keys():
            self._sweepers.pop(gone).close()
        members = self._processes.members(containers)
        yield None
        for container_id, found in members.items():
            container = by_id[container_id]
            for observation in self._in_one(container, found):
                yield None if observation is None else (container, observation)
        for held in self._memory.run(members):
            yield None if held is None else (by_id[held[0]], held[1])

    def _in_one(
        self, container: WatchedContainer, members: Sequence[Member]
    ) -> Iterator[Observation | None]:
        now = self._now()
        judged: set[tuple[int, datetime]] = set()
        for member in members:
            session = member.lineage.session
            if session is None or (session.pid, session.started) in judged:
                continue
            judged.add((session.pid, session.started))
            yield self._sessions.judge(
                member.lineage,
                container,
                self._records(container.pod_uid),
                self._own_commands(container),
                now,
            )
        sweeper = self._sweepers.get(container.container_id)
        if sweeper is None:
            try:
                sweeper = _Sweeper(self._processes, container, self._node)
            except OSError as error:
                _log.info("sweep of %s: %s", container.pod, error)
                return
            self._sweepers[container.container_id] = sweeper
        yield from sweeper.run(members, now)

    def _lineage(self, pid: int, container: WatchedContainer) -> Lineage | None:
        return self._processes.lineage(pid, container)


class _Sweeper:
    """What is kept of a container between two sweeps. It has its own open root: the thread's."""

    def __init__(self, processes: Processes, container: WatchedContainer, node: str) -> None:
        self._container = container
        self._layers: Layers | None = None
        mounts = _mounts(container.pid)
        self._root = Tree(container.root)
        top = at_path(mounts, "/")
        overlay = overlay_of(top) if top is not None else None
        if overlay is not None:
            with suppress(LayersError):  # the eyes have said so
                self._layers = Layers(overlay, node)
        self._places = ContainerPlaces(container, mounts, self._layers, self._root)
        self._sweep = ProcessSweep(processes, container, self._places)

    def run(self, members: Sequence[Member], now: datetime) -> Iterator[Observation | None]:
        with suppress(OSError):
            self._places.mounted(_mounts(self._container.pid))
        yield from self._sweep.run(members, now)

    def close(self) -> None:
        self._root.close()
        if self._layers is not None:
            self._layers.close()


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


def _mounts(pid: int) -> tuple[Mount, ...]:
    with Path(f"/proc/{pid}/mountinfo").open("rb") as file:
        data = file.read(MAX_MOUNTINFO)
    try:
        return parse(data.decode(errors="surrogateescape"))
    except MountInfoError as error:
        raise OSError(f"/proc/{pid}/mountinfo: {error}") from None
