"""The eyes on one container: marks, a walk of what was there before them, and then events.

``open``, then ``read`` whenever a descriptor of ``filenos`` is readable, ``close`` in the end. Who
acted is asked for at the moment of reading: processes end.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime

from trainseal.agent.checkpointevents import CheckpointWrites, WriteListener
from trainseal.agent.fanotify import (
    ATTRIB,
    CLOSE_WRITE,
    CREATE,
    DELETE,
    MODIFY,
    ONDIR,
    OPEN_EXEC,
    Q_OVERFLOW,
    Capabilities,
    DecodeError,
    Event,
    Group,
)
from trainseal.agent.judge import unjudged
from trainseal.agent.latermounts import LaterMounts
from trainseal.agent.layers import kind_of
from trainseal.agent.linkednames import LinkedNames
from trainseal.agent.marks import file_marks, name_roots
from trainseal.agent.memorywrites import MemoryWrites
from trainseal.agent.mounts import Mount, at_path
from trainseal.agent.mounttable import MountTable
from trainseal.agent.names import NameMarks
from trainseal.agent.observed import Act, Lineage, Observation, WatchedContainer
from trainseal.agent.origins import ContainerPlaces
from trainseal.agent.scene import Scene
from trainseal.agent.scripts import MOST, StartedScripts
from trainseal.agent.touches import Touch
from trainseal.agent.touchjudge import TouchJudge
from trainseal.agent.upperwalk import UpperWalk
from trainseal.agent.wakeups import Wakeups
from trainseal.agent.witnesses import Witnesses
from trainseal.api.findings import FindingId

LineageOf = Callable[[int], Lineage | None]
#: The most reads of the queues a call: some 500 files, and the names that belong to them.
_FILE_READS, _NAME_READS = 2, 32
#: More calls than this within a second, and the queues are left alone for a while: so many seconds
#: for each event that was read, which is longest where they come thick (from 250 a second).
_CALLS = 20
_REST_PER_EVENT, _SHORT_REST, _REST = 0.004, 0.005, 0.05
#: No look at a program that was started comes sooner after another look; seconds.
_LEAST = 0.002
#: Byte code that is left is compared after this; seconds.
_LATER = 1.0
_MOST_REMEMBERED = 20_000
_WRITES = {MODIFY: Act.WRITTEN, CLOSE_WRITE: Act.CLOSED, OPEN_EXEC: Act.EXECUTED}
_NAMES = {CREATE: Act.CREATED, DELETE: Act.DELETED, ATTRIB: Act.ATTRIBUTES, **_WRITES}

_Batch = dict[tuple[str, int], Touch]


class Eyes:
    """See the module. ``must_walk`` tells sweeps that events were lost; they set it back."""

    def __init__(
        self,
        container: WatchedContainer,
        capabilities: Capabilities,
        lineage: LineageOf,
        *,
        node: str = "/proc/1/root",
        monotonic: Callable[[], float] = time.monotonic,
        writes: WriteListener | None = None,
        pulse: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """``node`` is where the node's root directory is. OSError where the container is gone.

        ``writes`` is told of checkpoints. ``pulse`` says since when what is ready now can have
        come, and no earlier than it says came anything that is read from an empty queue.
        """
        self._container = container
        self._capabilities = capabilities
        self._witnesses = Witnesses(lineage, monotonic)
        self._monotonic = monotonic
        self._pulse = pulse
        #: What is in the queues came since then; whether something may have been left there.
        self._since, self._behind = pulse(), True
        self._scene = scene = Scene(container, node)
        self._places = ContainerPlaces(container, scene.mounts, scene.layers, scene.root)
        self._mounts = LaterMounts(container, scene.mounts, scene.holds_code)
        self._scripts = StartedScripts(self._places, self._witnesses.of, _directory)
        self._checkpoints = CheckpointWrites(container, writes)
        self._files: Group | None = None
        self._names: NameMarks | None = None
        self._memory: MemoryWrites | None = None
        self._table: MountTable | None = None
        self._wakeups: Wakeups | None = None
        self._linked = LinkedNames(scene.upper_files, scene.shown, monotonic)
        self._judge = TouchJudge(container, scene, monotonic)
        self._walk = UpperWalk(scene, container, self._judge.found, monotonic)
        self._settling: dict[tuple[str, int], tuple[float, Touch]] = {}
        self._calls: deque[float] = deque(maxlen=_CALLS)
        self._events = 0
        self.must_walk = False

    def open(self) -> list[Observation]:
        """Sets the marks, then walks what was written before them. OSError: no mark at all.

        Of a container that ends meanwhile it says that marks are missing: who asked knows better.
        """
        self._walk.expect_events()
        self._checkpoints.begin(self._scene.root)
        found = [*self._mark_files(), *self._mark_names(), *self._mark_memory()]
        groups = (self._files, self._names and self._names.group, self._memory)
        queues = [group.fileno() for group in groups if group]
        found += self._watch_mounts()
        self._wakeups = Wakeups(queues, self._table.wakes if self._table else ())
        found += [_blind(subject, words) for subject, words in self._scene.blind]
        found += self._walk.first()
        self._schedule()
        return found

    def filenos(self) -> tuple[int, ...]:
        """Readable where there is something to read."""
        return (self._wakeups.fileno(),) if self._wakeups else ()

    def close(self) -> None:
        """Takes the marks away. Twice is fine."""
        if self._wakeups is not None:
            self._wakeups.close()
            self._wakeups = None
        if self._files is not None:
            self._files.close()
        if self._names is not None:
            self._names.close()
        self._walk.close()
        if self._memory is not None:
            self._memory.close()
        if self._table is not None:
            self._table.close()
        self._scene.close()

    @property
    def lacking(self) -> tuple[str, ...]:
        """In words, what is not seen here now, or late."""
        slow = self._walk.slow
        return (slow,) if slow else ()

    def ignore(self, path: str) -> None:
        """Reports no more writes to this file, whatever its name becomes. OSError."""
        if self._files is not None:
            with self._scene.root.regular(path) as fd:
                self._files.ignore(MODIFY | CLOSE_WRITE, fd)

    # Marks ----------------------------------------------------------------------------------------

    def _mark_files(self) -> Iterator[Observation]:
        if not self._capabilities.files:
            return
        self._files = Group(names=False)
        for mark in file_marks(self._container, self._scene.mounts):
            status = self._scene.root.status(mark.path)
            if status is not None and kind_of(status) not in ("file", "directory"):
                continue  # a device or a socket: to open it would do something, and it runs nothing
            try:
                fd = self._scene.root.open(mark.path, os.O_RDONLY | os.O_NONBLOCK)
                try:
                    self._files.mark(mark.kind, mark.mask, fd)
                finally:
                    os.close(fd)
            except OSError as error:
                if mark.path == "/":
                    raise
                yield _blind(f"mark {mark.path}", f"{mark.path} is not watched: {error.strerror}")

    def _mark_names(self) -> Iterator[Observation]:
        words = "names made, moved and removed are found by walking, and nobody is named"
        if not self._capabilities.names:
            return
        self._names = NameMarks(self._scene.root)
        scene = self._scene
        try:
            listed = self._names.cover(name_roots(self._container, scene.mounts, scene.loaders))
        except OSError as error:
            self._names.close()
            self._names = None
            yield _blind("names", f"{words}: {error.strerror} (overlays need Linux 6.6)")
            return
        scene.known = frozenset(listed) if len(listed) <= _MOST_REMEMBERED else None
        if self._names.missed:
            some = ", ".join(self._names.uncovered)
            yield _blind("directories", f"{self._names.missed} directories have no mark: {some}")

    def _mark_memory(self) -> Iterator[Observation]:
        proc = at_path(self._scene.mounts, "/proc")
        if not self._capabilities.files or proc is None or proc.kind != "proc":
            return
        try:
            self._memory = MemoryWrites(self._container, self._scene.root)
        except OSError as error:
            words = f"who writes into a process's memory is seen if it is held: {error.strerror}"
            yield _blind("memory", words)

    def _watch_mounts(self) -> Iterator[Observation]:
        try:
            self._table = MountTable(self._container.pid)
            yield from self._look_at(self._table.read())
        except OSError as error:
            yield _mounts_unseen(error)

    # Events ---------------------------------------------------------------------------------------

    def read(self, *, final: bool = False) -> list[Observation]:
        """What happened since; bounded, and what is put off comes with a later call.

        ``final``: nothing is put off, the container has ended.
        """
        if self._wakeups is None:
            return []
        self._wakeups.begin()
        self._judge.begin()
        now = self._monotonic()
        self._calls.append(now)
        self._events = 0
        if not self._behind:
            self._since = self._pulse()
        self._behind = False
        found: list[Observation] = []
        batch: _Batch = {}
        known: dict[int, Lineage | None] = {}
        # Names second: a file is made before it is written, so what made it is in the same batch.
        lost = self._take(self._files, _FILE_READS, lambda e: self._file_event(e, batch, known))
        if self._names is not None:
            names = self._names.group
            lost |= self._take(names, _NAME_READS, lambda e: self._name_event(e, batch, known))
        quiet = not batch
        for linked in self._linked.look(now, final=final):
            batch.setdefault((linked.path, linked.pid), linked).join(linked)
        renamed = {touch.path for touch in batch.values() if touch.followed}
        for key, (due, put_off) in list(self._settling.items()):
            if final or due <= now or key in batch or key[0] in renamed:
                del self._settling[key]
                batch.setdefault(key, put_off).join(put_off)
        seen_at_it = {touch.path for touch in batch.values() if not touch.found}
        for key, touch in batch.items():
            if touch.found and touch.path in seen_at_it:
                continue
            touch.followed |= touch.path in renamed
            due = now if final else self._judge.due(key, touch, now)
            if due > now and len(self._settling) < _MOST_REMEMBERED:
                self._settling[key] = due, touch
            else:
                found += self._judged(key, touch, now)
        if self._memory is not None:
            seen, overflow = self._memory.take(self._witnesses.of)
            since = self._since  # the first write tells itself
            found += [self._judge.finished(replace(o, not_before=since), o.lineage) for o in seen]
            lost |= overflow
            self._behind |= self._memory.behind
        if lost:
            found += self._after_loss()
        found += self._look_at_mounts()
        for script, by in self._scripts.look(now):
            found.append(self._judge.finished(script, by))
        if self._scripts.missed:
            words = (
                f"more than {MOST} interpreters were started in a moment: what the others read as "
                "their program is seen of those alone that still run at the next sweep"
            )
            found.append(_blind("interpreters", words))
            self._scripts.missed = 0
        found += self._walk.step(now, quiet=quiet, blind=self._names is None)
        found += self._judge.compare_bytecode()
        self._schedule()
        return found

    def _take(self, group: Group | None, reads: int, one: Callable[[Event], None]) -> bool:
        """Hands over what is queued; whether something was lost."""
        if group is None:
            return False
        lost = False
        for _ in range(reads):
            try:
                with group.taken() as events:
                    self._events += len(events)
                    for event in events:
                        lost = lost or bool(event.mask & Q_OVERFLOW)
                        if event.pid != os.getpid():
                            one(event)
                    if not events:
                        return lost
            except (OSError, DecodeError):
                lost = True
        self._behind = True  # there may be more
        return lost

    def _file_event(self, event: Event, batch: _Batch, known: dict[int, Lineage | None]) -> None:
        if event.fd < 0:
            return
        if event.mask & OPEN_EXEC:
            self._who(event.pid, known)
        with suppress(OSError):
            if event.mask & CLOSE_WRITE:
                taken = self._checkpoints.take(event.fd, lambda: self._who(event.pid, known))
                if taken and not event.mask & OPEN_EXEC:
                    return
            where = self._scene.locate(event.fd)
            if event.mask & OPEN_EXEC:
                now = self._monotonic()
                self._scripts.executed(event.pid, where.path, now, self._since)
            if where.own and not event.mask & OPEN_EXEC and unjudged(where.path, self._container):
                return
            touch = self._touch(where.path, event.pid, batch, known)
            touch.own = where.own
            touch.acts.update(act for bit, act in _WRITES.items() if event.mask & bit)
            if where.linked is not None and event.mask & (MODIFY | CLOSE_WRITE):
                self._linked.written(where.linked, touch)

    def _name_event(self, event: Event, batch: _Batch, known: dict[int, Lineage | None]) -> None:
        names = self._names
        if names is None:
            return
        directory = bool(event.mask & ONDIR)
        old = names.path_of(event.old) if event.old else None
        new = names.path_of(event.new) if event.new else None
        path = names.path_of(event.named) if event.named else None
        if path is not None:
            touch = self._touch(path, event.pid, batch, known)
            touch.directory = directory
            touch.acts.update(act for bit, act in _NAMES.items() if event.mask & bit)
            if event.mask & CREATE:
                self._appeared(touch, Act.CREATED, batch, known)
        if old is not None:
            touch = self._touch(old, event.pid, batch, known)
            touch.directory = directory
            touch.acts.add(Act.MOVED_FROM)
            touch.followed = new is not None
            if directory:
                names.vanished(old)
        if new is not None:
            touch = self._touch(new, event.pid, batch, known)
            touch.directory = directory
            touch.acts.add(Act.MOVED_TO)
            touch.beside = old is not None and _beside(old, new) and not self._scene.signed(old)
            self._appeared(touch, Act.MOVED_TO, batch, known)

    def _appeared(
        self, touch: Touch, act: Act, batch: _Batch, known: dict[int, Lineage | None]
    ) -> None:
        self._scene.added(touch.path)
        if touch.directory and self._names is not None:
            for path in self._names.appeared(touch.path):
                self._scene.added(path)
                inner = self._touch(path, touch.pid, batch, known)
                inner.found = not inner.acts
                inner.acts.add(act)

    def _touch(self, path: str, pid: int, batch: _Batch, known: dict[int, Lineage | None]) -> Touch:
        found = batch.get((path, pid))
        if found is None:
            found = batch[path, pid] = Touch(path, pid, self._since, self._who(pid, known))
        return found

    def _who(self, pid: int, known: dict[int, Lineage | None]) -> Lineage | None:
        if pid not in known:
            known[pid] = self._witnesses.of(pid)
        return known[pid]

    def _judged(self, key: tuple[str, int], touch: Touch, now: float) -> list[Observation]:
        if next(touch.telling(), None) is not None:
            self._walk.remember(touch.path)
        return self._judge.judged(key, touch, now, self._walk.since)

    # Mounts and losses ----------------------------------------------------------------------------

    def _look_at_mounts(self) -> Iterator[Observation]:
        """What is mounted since; that it cannot be known costs no event that was read."""
        try:
            mounts = self._table.news() if self._table is not None else None
        except OSError as error:
            yield _mounts_unseen(error)
            return
        if mounts is not None:
            yield from self._look_at(mounts)

    def _look_at(self, mounts: Sequence[Mount]) -> Iterator[Observation]:
        """What of them is new."""
        self._places.mounted(mounts)
        for seen in self._mounts.look(mounts):
            yield self._judge.finished(replace(seen, not_before=self._since), None)

    def _after_loss(self) -> list[Observation]:
        self.must_walk = True
        self._checkpoints.lost()
        words = "events of the container's files were lost; all was compared again"
        found = [
            Observation(FindingId.WATCH_OVERFLOW, words, subject="files", not_before=self._since)
        ]
        if self._names is not None:  # directories made meanwhile have no marks
            scene = self._scene
            with suppress(OSError):
                self._names.cover(name_roots(self._container, scene.mounts, scene.loaders))
        self._walk.begin()
        return found

    # Time -----------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if self._wakeups is None:
            return
        now = self._monotonic()
        # Programs may be over within milliseconds: who started one does not wait for the rest.
        script = self._scripts.next
        most = max(script - now, _LEAST) if script is not None else math.inf
        if len(self._calls) == _CALLS and now - self._calls[0] < 1.0:
            rest = min(max(self._events * _REST_PER_EVENT, _SHORT_REST), _REST)
            self._wakeups.wake_in(min(rest, most), rest=True)
            return
        times = [self._walk.next]
        times += [due for due, _ in self._settling.values()]
        if self._judge.behind:
            times.append(now + _LATER)
        if self._linked.next is not None:
            times.append(self._linked.next)
        self._wakeups.wake_in(min(max(min(times) - now, _REST), most), rest=False)


def _directory(pid: int) -> str | None:
    with suppress(OSError):
        return os.readlink(f"/proc/{pid}/cwd")  # noqa: PTH115 text only
    return None


def _beside(old: str, new: str) -> bool:
    return old.rpartition("/")[0] == new.rpartition("/")[0]


def _mounts_unseen(error: OSError) -> Observation:
    return _blind("mounts", f"what is mounted later is not seen: {error.strerror or error}")


def _blind(subject: str, words: str) -> Observation:
    return Observation(FindingId.WATCH_BLIND, words, subject=subject)
