"""Walking the upper layer of a container: what was there before the marks, what events missed.

However much is there, all of it is walked, a little at a time, in two lanes that have turns side by
side: directories of the image and those that code is imported from, as far as they are not large;
and the rest, so that a cache of many files puts off nothing but itself.

A walk knows what it has seen, so that nothing is told twice: neither what an earlier walk found nor
what an event has told already, nor what an event that is still in the queue will tell.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from trainseal.agent.layers import MAX_DEPTH, Entry, kind_of
from trainseal.agent.looks import Looks
from trainseal.agent.observed import (
    FOUND_BY,
    LOOKING,
    Act,
    FileEvent,
    Observation,
    WatchedContainer,
)
from trainseal.agent.runtimeleavings import left_by_runtime
from trainseal.agent.scene import Scene
from trainseal.api.evidenceitem import MAX_KEPT
from trainseal.api.findings import FindingId

#: Seconds from one turn to the next, at least, and times what the turn took.
_EVERY, _SHARE = 10.0, 300
#: Where no events give names.
_EVERY_BLIND = 1.0
#: A turn waits for a quiet moment, but no longer than this; seconds.
_PATIENCE = 60.0
#: What a turn takes: the first lane half of it, the other one what is left; seconds.
_STEP = 0.03
#: Entries of a lane that are walked at once, at the start and after events were lost.
_AT_ONCE = 50_000
#: Directories that are left to the rest; new ones within trees of code that are not.
_MOST_ASIDE, _MOST_NEW = 2_000, 2_000
_MOST_DIRECTORIES = 10_000
#: It is said if a walk over all of a lane takes longer; seconds, and it is said in steps.
SLOW = 600.0
#: What is younger is left to its events, once; seconds.
_YOUNG = 2.0
#: Entries that are remembered as seen; what is not is judged in each walk. Some are kept for the
#: first lane.
_MOST_REMEMBERED, _RESERVED = 100_000, 20_000
_MOST_YOUNG = 20_000

Judge = Callable[[FileEvent, datetime], list[Observation]]
_Signature = tuple[int, int, int, int]


@dataclass(slots=True)
class _Lane:
    """Walk after walk over a part of the layer; times are monotonic seconds."""

    looks: Looks
    young: set[str] = field(default_factory=set)
    walking: Generator[list[Observation]] | None = None
    #: Of the walk that goes on: when it began, and what it has looked at.
    began: float = 0.0
    entries: int = 0
    #: How long the last one took.
    took: float = 0.0

    @property
    def since(self) -> datetime:
        """What is found now was not there before: what was young was left to the next walk."""
        return self.looks.before(2)


class UpperWalk:
    """The walks of one container. ``next`` is when ``step`` wants to be called, monotonic."""

    def __init__(
        self,
        scene: Scene,
        container: WatchedContainer,
        judge: Judge,
        monotonic: Callable[[], float],
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``judge`` tells what an act that was not done before a time amounts to, and may call
        ``remember``. ``clock``: the file system's, seconds since 1970.
        """
        self._scene = scene
        self._container = container
        self._judge = judge
        self._monotonic = monotonic
        self._clock = clock
        #: By hashes of path and status: a dictionary of the texts would be thrice as large.
        self._seen: dict[int, int] = {}
        #: Names that changed while the marks were set: the runtime's own may be among them.
        self._starting: frozenset[str] = frozenset()
        self._since = float("inf")
        self._main = _Lane(Looks(container.started))
        self._rest = _Lane(Looks(container.started))
        #: What the walk that goes on leaves to the rest, and what the last one left; since when.
        self._aside: list[str] = []
        self._left: tuple[datetime, tuple[str, ...]] = (container.started, ())
        self._new = 0
        self._of_image: dict[str, bool] = {}
        #: Lanes that are walked without a pause.
        self._hurried: list[_Lane] = []
        self._told_deep = False
        self.next = 0.0

    @property
    def since(self) -> datetime:
        """What a walk finds now was not there before."""
        return min(self._main.since, self._rest.since)

    @property
    def slow(self) -> str | None:
        """In words, if a change that no event tells of is found late."""
        now = self._monotonic()
        took = max(
            max(lane.took, now - lane.began if lane.walking else 0.0)
            for lane in (self._main, self._rest)
        )
        if took <= SLOW:
            return None
        bound = SLOW
        while bound < took:
            bound *= 2
        return (
            f"what no event tells of in the layer of container {self._container.container}, but "
            f"after up to {bound / 60:.0f} minutes: it has many files"
        )

    def close(self) -> None:
        """Holds nothing open any more. Twice is fine."""
        for lane in (self._main, self._rest):
            if lane.walking is not None:
                lane.walking.close()
                lane.walking = None

    def expect_events(self) -> None:
        """From now on there may be events: what changes is left to them at first."""
        self._since = self._clock()

    def first(self) -> Iterator[Observation]:
        """The layer, before any event; what runtimes left there is passed over. What is too much
        for now comes with later steps.
        """
        for lane in (self._main, self._rest):
            lane.walking = self._walk(lane, at_start=True)
            for found in lane.walking:
                yield from found
                if lane.entries >= _AT_ONCE:
                    break
            else:
                lane.walking = None
        yield from self._deep()
        self._starting = frozenset(self._main.young | self._rest.young)
        self.next = self._monotonic() + _EVERY_BLIND

    def begin(self) -> None:
        """Walks at once: events were lost."""
        self.close()
        self._hurried = [self._main, self._rest]
        self.next = self._monotonic()

    def step(self, now: float, *, quiet: bool, blind: bool) -> Iterator[Observation]:
        """One turn, where it is time."""
        began = self._monotonic()
        if self._hurried:
            lane = self._hurried[0]
            yield from self._turn(lane, began + _STEP)
            if lane.walking is None or lane.entries >= _AT_ONCE:
                self._hurried.pop(0)
        elif now < self.next or (not quiet and now < self.next + _PATIENCE):
            return
        else:
            yield from self._turn(self._main, began + _STEP / 2)
            yield from self._turn(self._rest, began + _STEP)
        yield from self._deep()
        if self._hurried:
            self.next = now
            return
        young = self._main.young or self._rest.young
        every = _EVERY_BLIND if blind or young else _EVERY
        self.next = now + max(every, _SHARE * (self._monotonic() - began))

    def remember(self, path: str) -> None:
        """An event has told about it."""
        layers = self._scene.layers
        status = layers.upper.status(path) if layers is not None else None
        if status is not None:
            self._remember(path, status, _MOST_REMEMBERED - _RESERVED)

    def _remember(self, path: str, status: os.stat_result, most: int) -> None:
        if len(self._seen) < most or hash(path) in self._seen:
            self._seen[hash(path)] = hash(_signature(status))

    def _turn(self, lane: _Lane, until: float) -> Iterator[Observation]:
        """Goes on with a walk, or begins one, until it ends or it is time."""
        lane.walking = lane.walking or self._walk(lane)
        for found in lane.walking:
            yield from found
            if self._monotonic() >= until:
                return
        lane.walking = None

    def _walk(self, lane: _Lane, *, at_start: bool = False) -> Generator[list[Observation]]:
        layers = self._scene.layers
        if layers is None:
            return
        young, lane.young = lane.young, set()
        lane.began, lane.entries = self._monotonic(), 0
        if lane is self._main:
            self._aside, self._new = [], 0
            begun = datetime.fromtimestamp(self._clock(), UTC)
            walks = iter([layers.walk(put_off=self._put_off)])
        else:
            begun, roots = self._left
            walks = (layers.walk(root) for root in roots)
        lane.looks.begin(begun)
        for walk in walks:
            for entry in walk:
                lane.entries += 1
                yield self._found(entry, lane, young, at_start=at_start)
        if lane is self._main:
            self._left = begun, tuple(self._aside)
        lane.looks.end()
        lane.took = self._monotonic() - lane.began

    def _put_off(self, directory: str, names: int) -> bool:
        """Whether it is left to the rest: it is new, or has many ``names``."""
        if names == 0:
            if self._is_of_image(directory):
                return False
            trees = self._scene.loaders.trees
            if self._new < _MOST_NEW and any(f"{directory}/".startswith(f"{t}/") for t in trees):
                self._new += 1
                return False
        if len(self._aside) >= _MOST_ASIDE:
            return False
        if names:
            self._aside = [path for path in self._aside if not path.startswith(f"{directory}/")]
        self._aside.append(directory)
        return True

    def _is_of_image(self, directory: str) -> bool:
        found = self._of_image.get(directory)
        if found is None:
            layers = self._scene.layers
            found = layers is not None and layers.image_tree(directory) is not None
            if len(self._of_image) < _MOST_DIRECTORIES:
                self._of_image[directory] = found
        return found

    def _deep(self) -> Iterator[Observation]:
        """Says once that a part of the layer is out of reach."""
        deep = self._scene.layers.too_deep if self._scene.layers is not None else None
        if deep is None or self._told_deep:
            return
        self._told_deep = True
        words = (
            f"what lies in {deep[:500]} is not looked at: it is more than {MAX_DEPTH} directories "
            "deep, or its path is too long"
        )
        yield Observation(FindingId.WATCH_BLIND, words, subject="depth")

    def _found(
        self, entry: Entry, lane: _Lane, young: AbstractSet[str], *, at_start: bool
    ) -> list[Observation]:
        path = entry.path
        if self._seen.get(hash(path)) == hash(_signature(entry.status)):
            return []
        if self._scene.covered(path):
            return []
        if path not in young and self._is_young(entry, lane, at_start=at_start):
            lane.young.add(path)
            return []
        reserved = 0 if lane is self._main else _RESERVED
        self._remember(path, entry.status, _MOST_REMEMBERED - reserved)
        starting = at_start or path in self._starting
        if starting and left_by_runtime(self._scene.left(entry), self._container.started):
            return []
        told = self._told(entry, lane.since)
        return [replace(one, evidence={**one.evidence, FOUND_BY: LOOKING}) for one in told]

    def _is_young(self, entry: Entry, lane: _Lane, *, at_start: bool) -> bool:
        """Whether its events may not have been read yet; before the marks there were none."""
        changed = entry.status.st_ctime
        age = self._clock() - changed
        young = changed >= self._since if at_start else 0 <= age < _YOUNG
        return young and len(lane.young) < _MOST_YOUNG

    def _told(self, entry: Entry, since: datetime) -> list[Observation]:
        directory = entry.kind == "directory"
        for act in self._acts_of(entry):
            found = self._judge(FileEvent(act, entry.path, 0, directory), since)
            if found:
                return found
        if entry.kind == "file" and self._unseen(entry):
            words = (
                f"{entry.path} was put into the container's layer on the node; the container does "
                "not see it yet"
            )
            layers = self._scene.layers
            content = layers.upper.content(entry.path, MAX_KEPT) if layers else None
            evidence = {"digest": content.digest if content else "not a file"}
            return [
                Observation(
                    FindingId.FILE_CHANGED,
                    words,
                    entry.path,
                    evidence=evidence,
                    content=content,
                    not_before=since,
                )
            ]
        return []

    def _unseen(self, entry: Entry) -> bool:
        """Whether the container still sees the image's file: an overlay that has looked a name up
        goes on showing what it found, until the kernel forgets it. What came there through the
        overlay has one time of change in both.
        """
        layers, seen = self._scene.layers, self._scene.root.status(entry.path)
        if layers is None or seen is None or not self._scene.signed(entry.path):
            return False
        now = layers.upper.status(entry.path)  # once more: it may be written to meanwhile
        there = {entry.status.st_ctime_ns, now.st_ctime_ns if now is not None else 0}
        return seen.st_ctime_ns not in there

    def _acts_of(self, entry: Entry) -> Iterable[Act]:
        if entry.kind == "removed":
            return (Act.DELETED,)
        if entry.kind == "directory":
            return (Act.DELETED,) if entry.opaque else (Act.ATTRIBUTES,)
        if self._scene.signed(entry.path) and entry.kind == "file":
            return (Act.CLOSED, Act.ATTRIBUTES)
        return (Act.CREATED,)


def _signature(status: os.stat_result) -> _Signature:
    if kind_of(status) == "removed":
        return 0, 0, 0, 0  # overlays link one inode to all removed names
    return status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
