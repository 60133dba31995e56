"""Walking the upper layer of a container: what was there before the marks, what events missed.

A walk goes on for a bounded time a call and knows what it has seen, so that nothing is told twice:
neither what an earlier walk found nor what an event has told already, nor what an event that is
still in the queue will tell.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from trainseal.agent.layers import Entry, kind_of
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

#: Seconds from one walk to the next, at least, and times what the walk took.
_EVERY, _SHARE = 10.0, 300
#: Where no events give names.
_EVERY_BLIND = 1.0
#: A walk waits for a quiet moment, but no longer than this; seconds.
_PATIENCE = 60.0
#: So much of a walk at a time; seconds.
_STEP = 0.03
#: What is younger is left to its events, once; seconds.
_YOUNG = 2.0
_MOST_REMEMBERED = 50_000

Judge = Callable[[FileEvent, datetime], list[Observation]]
_Signature = tuple[int, int, int, int]


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
        self._seen: dict[str, _Signature] = {}
        self._young: set[str] = set()
        #: Names that changed while the marks were set: the runtime's own may be among them.
        self._starting: frozenset[str] = frozenset()
        self._since = float("inf")
        self._looks = Looks(container.started)
        self._walking: Iterator[list[Observation]] | None = None
        self._spent = 0.0
        self.next = 0.0

    @property
    def since(self) -> datetime:
        """What a walk finds now was not there before: what was young was left to the next one."""
        return self._looks.before(2)

    def expect_events(self) -> None:
        """From now on there may be events: what changes is left to them at first."""
        self._since = self._clock()

    def first(self) -> Iterator[Observation]:
        """The whole layer, before any event; what runtimes left there is passed over."""
        for found in self._walk(at_start=True):
            yield from found
        self._starting = frozenset(self._young)
        self.next = self._monotonic() + _EVERY_BLIND

    def begin(self) -> None:
        """Walks at once: events were lost."""
        self._walking, self._spent = self._walk(), 0.0
        self.next = self._monotonic()

    def step(self, now: float, *, quiet: bool, blind: bool) -> Iterator[Observation]:
        """Goes on with a walk, or begins one where it is time."""
        if self._walking is None:
            if now < self.next or (not quiet and now < self.next + _PATIENCE):
                return
            self.begin()
        began = self._monotonic()
        for found in self._walking or ():
            yield from found
            if self._monotonic() - began > _STEP:
                break
        else:
            self._walking = None
        took = self._monotonic() - began
        self._spent += took
        if self._walking is not None:
            self.next = now
            return
        every = _EVERY_BLIND if blind or self._young else _EVERY
        self.next = now + max(every, _SHARE * self._spent)

    def remember(self, path: str) -> None:
        """An event has told about it."""
        layers = self._scene.layers
        status = layers.upper.status(path) if layers is not None else None
        if status is not None and len(self._seen) < _MOST_REMEMBERED:
            self._seen[path] = _signature(status)

    def _walk(self, *, at_start: bool = False) -> Iterator[list[Observation]]:
        layers = self._scene.layers
        if layers is None:
            return
        young, self._young = self._young, set()
        self._looks.begin(datetime.fromtimestamp(self._clock(), UTC))
        for entry in layers.walk():
            path = entry.path
            if self._seen.get(path) == _signature(entry.status) or self._scene.covered(path):
                yield []
                continue
            if path not in young and self._is_young(entry, at_start=at_start):
                self._young.add(path)
                continue
            if len(self._seen) < _MOST_REMEMBERED:
                self._seen[path] = _signature(entry.status)
            starting = at_start or path in self._starting
            if starting and left_by_runtime(self._scene.left(entry), self._container.started):
                continue
            told = self._told(entry)
            yield [replace(one, evidence={**one.evidence, FOUND_BY: LOOKING}) for one in told]
        self._looks.end()

    def _is_young(self, entry: Entry, *, at_start: bool) -> bool:
        """Whether its events may not have been read yet; before the marks there were none."""
        changed = entry.status.st_ctime
        age = self._clock() - changed
        young = changed >= self._since if at_start else 0 <= age < _YOUNG
        return young and len(self._young) < _MOST_REMEMBERED

    def _told(self, entry: Entry) -> list[Observation]:
        directory = entry.kind == "directory"
        for act in self._acts_of(entry):
            found = self._judge(FileEvent(act, entry.path, 0, directory), self.since)
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
                    not_before=self.since,
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
