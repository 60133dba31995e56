"""All sweeps over the node's containers, in the order in which a watch wants to know.

One look at the node's processes serves all containers. What is kept of a container between two
sweeps, its open root among it, goes when it is no longer among those that are swept.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial

from trainseal.agent.files import Tree
from trainseal.agent.looks import Looks
from trainseal.agent.mounts import MAX_MOUNTINFO, Mount
from trainseal.agent.mounttable import parsed
from trainseal.agent.observed import Lineage, Observation, Profile, WatchedContainer
from trainseal.agent.origins import ContainerPlaces
from trainseal.agent.processes import Member, Processes, sessions
from trainseal.agent.profiles import Gathering
from trainseal.agent.scene import Scene
from trainseal.agent.sessions import Command, Sessions
from trainseal.agent.sweep_gpus import GpuSweep
from trainseal.agent.sweep_layer import LayerProfile
from trainseal.agent.sweep_memory import MemorySweep
from trainseal.agent.sweep_processes import MAPPED, MAPPINGS_LATE, SWEEPS_LATE, ProcessSweep
from trainseal.agent.sweep_tree import SignedTree, TreeSweep
from trainseal.api.accessrecord import AccessRecord

_log = logging.getLogger(__name__)
#: A signed tree is read again within this; seconds.
TREE_SECONDS = 600.0
#: But not faster than this, whatever its size; bytes a second.
TREE_RATE = 8 * 1024 * 1024
#: Nor in smaller parts than this; bytes a sweep. A usual config is read whole in each.
TREE_PART = 64 * 1024
_LONGEST = 60.0

#: What is seen of a container: a difference, or what its peers are compared with.
Seen = tuple[WatchedContainer, Observation | Profile]


@dataclass(frozen=True, slots=True)
class Sources:
    """What sweeps ask others for, each by container.

    The records on its pod; the sealed commands of its probes and hooks; its signed trees.
    ``current``: whether the node's records are what the API server has.
    """

    records: Callable[[WatchedContainer], Iterable[AccessRecord]]
    own_commands: Callable[[WatchedContainer], Iterable[Command]] = lambda _: ()
    trees: Callable[[WatchedContainer], Sequence[SignedTree]] = lambda _: ()
    current: Callable[[], bool] = lambda: True


def part_of_tree(rate: int, elapsed: float) -> int:
    """How much of a tree one sweep reads, in bytes: ``rate`` is what would read it in time, in
    bytes a second, ``elapsed`` the seconds since the last sweep.
    """
    return max(int(min(rate, TREE_RATE) * min(elapsed, _LONGEST)), TREE_PART)


class Sweeps:
    """``node`` is where the node's root directory is, for reading layers; without ``gpus`` they
    are not looked at.
    """

    def __init__(
        self,
        processes: Processes,
        joins: Sessions,
        sources: Sources,
        now: Callable[[], datetime],
        *,
        gpus: GpuSweep | None = None,
        node: str = "/proc/1/root",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._gpus = gpus
        self._processes = processes
        self._joins = joins
        self._sources = sources
        self._now = now
        self._node = node
        self._monotonic = monotonic
        self._memory = MemorySweep(processes)
        self._states: dict[str, _State] = {}
        self._looks: dict[str, Looks] = {}
        #: What is being looked at, in words; may be read from any thread.
        self.at = ""

    def look(self, containers: Sequence[WatchedContainer]) -> Iterator[Seen | None]:
        """One sweep over all of them. None now and then: a place to pause."""
        by_id = {c.container_id: c for c in containers}
        for gone in self._states.keys() - by_id.keys():
            self._states.pop(gone).close()
        self._looks = {i: self._looks.get(i) or Looks(c.started) for i, c in by_id.items()}
        for looks in self._looks.values():
            looks.begin(self._now())
        whole = set(by_id)
        self.at = "the node's processes"
        members = self._processes.members(containers)
        yield None
        for container in containers:
            self.at = f"{container.namespace}/{container.pod} {container.container}"
            found = members[container.container_id]
            for seen in self._entered(found, container):
                yield container, seen
            try:
                for more in self._state(container).run(found, self._now(), self._monotonic()):
                    yield None if more is None else (container, more)
            except OSError as error:  # it ended meanwhile
                whole.discard(container.container_id)
                _log.info("sweep of %s: %s", container.pod, error)
        own = {m.pid for found in members.values() for m in found}
        self.at = "the node's open files"
        for held in self._memory.run(members):
            yield None if held is None else (by_id[held[0]], self._of_memory(*held, own))
        self.at = "the node's GPUs"
        if self._gpus is not None:
            for where, intruding in self._gpus.run(by_id, members):
                yield by_id[where], intruding
        for container_id in whole:
            self._looks[container_id].end()

    def close(self) -> None:
        """Twice is fine."""
        for state in self._states.values():
            state.close()
        self._states.clear()
        if self._gpus is not None:
            self._gpus.close()

    def _state(self, container: WatchedContainer) -> _State:
        state = self._states.get(container.container_id)
        if state is None:
            state = _State(
                self._processes,
                container,
                self._sources,
                self._node,
                self._monotonic(),
                self._looks[container.container_id],
            )
            self._states[container.container_id] = state
        return state

    def _entered(
        self, members: Sequence[Member], container: WatchedContainer
    ) -> Iterator[Observation]:
        found = sessions(members)
        if not found:
            return
        current = self._sources.current()  # before the records: they are not behind what it says
        records = list(self._sources.records(container))
        own = list(self._sources.own_commands(container))
        for session in found:
            lineage = Lineage((session, *self._processes.parents(session.pid)), session)
            seen = self._joins.judge(lineage, container, records, own, self._now(), current=current)
            if seen is None:
                continue
            login = self._processes.login(session.pid)
            if login is not None:  # set by the node's login, kept by all that comes of it
                seen = replace(
                    seen, evidence={**seen.evidence, "login uid on the node": str(login)}
                )
            # It may descend from one that came before it, and is gone.
            before = self._looks[container.container_id].before()
            yield replace(seen, not_before=min(before, session.started))

    def _of_memory(
        self, container_id: str, seen: Observation, own: AbstractSet[int]
    ) -> Observation:
        """Of what is looked at in turns nobody knows since when it was so."""
        holder = seen.lineage.chain[0].pid if seen.lineage and seen.lineage.chain else 0
        if holder not in own or self._memory.in_turns(holder):
            return seen
        return replace(seen, not_before=self._looks[container_id].before())


class _State:
    """What is kept of one container. OSError where it is gone."""

    def __init__(
        self,
        processes: Processes,
        container: WatchedContainer,
        sources: Sources,
        node: str,
        now: float,
        looks: Looks,
    ) -> None:
        self._looks = looks
        self._container = container
        self._sources = sources
        self._processes = processes
        self._last = now
        self._trees: dict[str, tuple[TreeSweep, Looks]] = {}
        mounts = self._mounts()
        self._scene = Scene(container, node)  # whose layers cannot be read: the eyes say so
        try:
            root, layers = self._scene.root, self._scene.layers
            self._places = ContainerPlaces(container, mounts, layers, root)
            self._sweep = ProcessSweep(processes, container, self._places)
            self._layer = LayerProfile(container, self._scene)
            self._gathering = Gathering(container)
            self._profile: Profile | None = None
        except BaseException:
            self.close()
            raise

    def run(
        self, members: Sequence[Member], now: datetime, at: float
    ) -> Iterator[Observation | Profile | None]:
        """One sweep; at its end the profile if it changed. OSError once the container is gone."""
        elapsed, self._last = at - self._last, at
        self._places.mounted(self._mounts())
        for seen in self._sweep.run(members, now):
            yield from self._gathered(None if seen is None else self._dated(seen))
        yield from self._layer.step(at)
        for tree in self._sources.trees(self._container):
            if tree.path not in self._trees:
                new = TreeSweep(tree, partial(Tree, self._container.root))
                self._trees[tree.path] = new, Looks(self._container.started)
                self._trees[tree.path][1].begin(now)
            sweep, looks = self._trees[tree.path]
            left = part_of_tree(sweep.bytes_a_second(TREE_SECONDS), elapsed)
            while left > 0:
                part = min(left, 1024 * 1024)
                left -= part
                passes = sweep.passes
                for found in sweep.step(part):
                    yield from self._gathered(replace(found, not_before=looks.before()))
                if sweep.passes > passes:
                    looks.end()
                    looks.begin(now)
                yield None
        profile = self._gathering.profile(self._layer.known, self._sweep.first)
        if profile != self._profile:
            self._profile = profile
            yield profile

    def _dated(self, seen: Observation) -> Observation:
        late = MAPPINGS_LATE if seen.finding in MAPPED else SWEEPS_LATE
        return replace(seen, not_before=self._looks.before(late))

    def _gathered(self, seen: Observation | None) -> Iterator[Observation | None]:
        if seen is not None:
            path = seen.path or ""
            named = self._places.in_image(path) or self._scene.loaders.imports(path)
            self._gathering.saw(seen, self._places.origin(path), named=named)
        yield seen

    def close(self) -> None:
        """Twice is fine."""
        self._scene.close()

    def _mounts(self) -> tuple[Mount, ...]:
        return parsed(self._processes.file(self._container.pid, "mountinfo", MAX_MOUNTINFO))
