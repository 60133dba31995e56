"""All sweeps over one container, as the watch calls them: in one thread, one container at a time.

One look at the node's processes serves all containers that are swept within ``SHARED`` seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial

from trainseal.agent.files import Tree
from trainseal.agent.layers import Entry
from trainseal.agent.mounts import MAX_MOUNTINFO, MountInfoError, parse
from trainseal.agent.observed import Lineage, Observation, Process, WatchedContainer
from trainseal.agent.origins import ContainerPlaces
from trainseal.agent.processes import Member, Processes, sessions
from trainseal.agent.scene import Scene
from trainseal.agent.sessions import Command, Sessions
from trainseal.agent.sweep_imports import ImportSweep
from trainseal.agent.sweep_memory import MemorySweep
from trainseal.agent.sweep_processes import ProcessSweep
from trainseal.agent.sweep_tree import SignedTree, TreeSweep
from trainseal.api.accessrecord import AccessRecord

SHARED = 2.0
#: A signed tree is read again within this; seconds.
TREE_SECONDS = 600.0
#: But not faster than this, whatever its size; bytes a second.
TREE_RATE = 8 * 1024 * 1024
#: Entries of the upper layer in one sweep.
UPPER_ENTRIES = 250
#: A container that was not swept for so long is gone; seconds.
_GONE = 120.0


@dataclass(frozen=True, slots=True)
class Sources:
    """What sweeps ask others for, each by container: the records on its pod, the sealed commands
    of its probes and hooks, its signed trees, and whether the events have seen an entry of its
    upper layer as it is.
    """

    records: Callable[[WatchedContainer], Iterable[AccessRecord]]
    own_commands: Callable[[WatchedContainer], Iterable[Command]] = lambda _: ()
    trees: Callable[[WatchedContainer], Sequence[SignedTree]] = lambda _: ()
    told: Callable[[WatchedContainer, Entry], bool] = lambda _, __: False


@dataclass(slots=True)
class _State:
    container: WatchedContainer
    scene: Scene
    places: ContainerPlaces
    processes: ProcessSweep
    imports: ImportSweep
    last: float
    trees: dict[str, TreeSweep] = field(default_factory=dict)


class Sweeps:
    """The sweeps of a node's containers. ``sweep`` is what the watch calls for each."""

    def __init__(
        self,
        processes: Processes,
        joins: Sessions,
        sources: Sources,
        now: Callable[[], datetime],
        *,
        node: str = "/proc/1/root",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._processes = processes
        self._joins = joins
        self._sources = sources
        self._now = now
        self._node = node
        self._monotonic = monotonic
        self._memory = MemorySweep(processes)
        self._states: dict[str, _State] = {}
        self._members: dict[str, list[Member]] = {}
        self._opened: dict[str, list[Observation]] = {}
        self._looked = float("-inf")

    def begin(self, container: WatchedContainer) -> None:
        """Takes a container in, as early as possible: its first process is as it began.

        OSError where it is gone.
        """
        scene = Scene(container, self._node)
        places = ContainerPlaces(container, scene.mounts, scene.layers, scene.root)
        self._states[container.container_id] = _State(
            container,
            scene,
            places,
            ProcessSweep(self._processes, container, places),
            ImportSweep(container, scene, lambda e: self._sources.told(container, e)),
            self._monotonic(),
        )
        self._looked = float("-inf")

    def sweep(self, container: WatchedContainer) -> Iterator[Observation]:
        """One sweep over one container; OSError once it is gone."""
        if container.container_id not in self._states:
            self.begin(container)
        state = self._states[container.container_id]
        at = self._monotonic()
        elapsed, state.last = at - state.last, at
        self._look(at)
        members = self._members.get(container.container_id, [])
        self._remount(state)
        yield from self._entered(members, container)
        for seen in state.processes.run(members, self._now()):
            if seen is not None:
                yield seen
        yield from self._opened.pop(container.container_id, ())
        yield from state.imports.step(UPPER_ENTRIES)
        yield from self._trees(state, elapsed)

    def close(self) -> None:
        """Twice is fine."""
        for state in self._states.values():
            state.scene.close()
        self._states.clear()

    def _look(self, at: float) -> None:
        if at - self._looked < SHARED:
            return
        self._looked = at
        for name in [n for n, s in self._states.items() if at - s.last > _GONE]:
            self._states.pop(name).scene.close()
        self._members = self._processes.members([s.container for s in self._states.values()])
        self._opened = {}
        for found in self._memory.run(self._members):
            if found is not None:
                self._opened.setdefault(found[0], []).append(found[1])

    def _entered(
        self, members: Sequence[Member], container: WatchedContainer
    ) -> Iterator[Observation]:
        records = list(self._sources.records(container))
        own = list(self._sources.own_commands(container))
        for session in sessions(members):
            lineage = self._above(session)
            seen = self._joins.judge(lineage, container, records, own, self._now())
            if seen is None:
                continue
            login = self._processes.login(session.pid)
            if login is not None:  # set by the node's login, kept by all that comes of it
                seen = replace(
                    seen, evidence={**seen.evidence, "login uid on the node": str(login)}
                )
            yield seen

    def _above(self, session: Process) -> Lineage:
        return Lineage((session, *self._processes.parents(session.pid)), session)

    def _remount(self, state: _State) -> None:
        with suppress(OSError, MountInfoError):
            data = self._processes.file(state.container.pid, "mountinfo", MAX_MOUNTINFO)
            state.places.mounted(parse(data.decode("utf-8", "surrogateescape")))

    def _trees(self, state: _State, elapsed: float) -> Iterator[Observation]:
        for tree in self._sources.trees(state.container):
            sweep = state.trees.get(tree.path)
            if sweep is None:
                sweep = TreeSweep(tree, partial(Tree, state.container.root))
                state.trees[tree.path] = sweep
            rate = min(sweep.bytes_a_second(TREE_SECONDS), TREE_RATE)
            yield from sweep.step(int(rate * min(elapsed, 60.0)))
