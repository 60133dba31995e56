"""One pod's checkpoints mount, looked at turn by turn: a book, and the files it is about.

``enter``, ``turn`` and ``finish`` do I/O and are called from one thread; ``tell``, ``left`` and the
questions are for the event loop.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field

from prometheus_client import Counter

from trainseal.agent.checkpointbook import Book
from trainseal.agent.checkpointmount import CheckpointMount, GoneError, Hashing, open_for_writing
from trainseal.agent.checkpointvalues import Batch, Known, Replaced, Stamp, Written
from trainseal.agent.observed import WatchedContainer

_log = logging.getLogger(__name__)
_UNREAD = Counter("trainseal_agent_checkpoints_unread_total", "Files gone before they were read.")

#: The whole mount is looked at so often, so many names a turn; where something was written that has
#: no name yet, or at the end, more.
WALK_SECONDS, NAMES, NAMES_SOUGHT = 30.0, 100, 5000
#: Bytes of a turn once the pod's containers have ended: their processors are free.
AT_END = 256 * 1024 * 1024
_MOST_EVENTS = 20_000
_EVENTS_A_TURN = 2000
#: Bytes read in one go, with the volume held open; what a file costs beside its bytes.
_PART, _FILE_COST = 4 * 1024 * 1024, 16 * 1024
_PORTION = 1000


@dataclass(frozen=True, slots=True)
class Unwatched:
    """A time in which no events were told, in nanoseconds since 1970."""

    begin: int
    end: int


@dataclass(slots=True)
class Turn:
    """What one turn gave; ``spent`` in bytes read."""

    batches: list[Batch] = field(default_factory=list)
    replaced: list[Replaced] = field(default_factory=list)
    spent: int = 0


class PodFiles:
    """``node`` is where the node's root directory is; ``started`` when the pod's first container
    started, nanoseconds since 1970. ``over``: nothing more is to come.
    """

    def __init__(self, node: str, started: int) -> None:
        self._node = node
        self._started = started
        self._mounts: dict[str, tuple[int, CheckpointMount]] = {}
        self._gone: set[str] = set()
        self._events: deque[Written | Unwatched] = deque()
        self._missed = 0
        self._walk: Generator[tuple[str, Stamp] | None, None, bool] | None = None
        self._next_walk = 0.0
        self._due: deque[tuple[str, Stamp]] = deque()
        self._hashing: Hashing | None = None
        self._seen_to_end = False
        self.book: Book | None = None
        self.over = False

    # From the event loop --------------------------------------------------------------------------

    def tell(self, event: Written | Unwatched) -> bool:
        """Something was written, or may have been; False where there is no room for it."""
        if len(self._events) >= _MOST_EVENTS:
            self._missed += isinstance(event, Written)
            return False
        self._events.append(event)
        return True

    def left(self, container_id: str) -> None:
        """A container has ended."""
        self._gone.add(container_id)

    def knows(self, known: Mapping[str, Known]) -> None:
        """What has a manifest already; the first turn comes after it."""
        self.book = Book(known, self._started)

    @property
    def written(self) -> bool:
        """Whether something was written that no turn has looked at."""
        return any(isinstance(event, Written) for event in self._events)

    def idle(self, now: float, *, last: bool) -> bool:
        """Whether a turn would do nothing. ``last``: the pod is no more."""
        waits = self._walk is None and now < self._next_walk and not self._events
        return self.book is None or (waits and not last and not self.book.busy)

    # From the thread ------------------------------------------------------------------------------

    def enter(self, container: WatchedContainer, path: str) -> None:
        """A container that has the mount at ``path``. One that is gone already is passed over."""
        try:
            mount = CheckpointMount(container.pid, path, self._node)
        except OSError as error:
            _log.warning("checkpoints of %s: %s", container.pod, error)
            return
        self._mounts[container.container_id] = container.pid, mount

    def turn(self, now: float, budget: int, *, last: bool = False) -> Turn:
        """Looks, walks and hashes, about ``budget`` bytes. ``last`` as in ``idle``."""
        found, book, mount = Turn(), self.book, self._mount()
        if book is None:
            return found
        if self._missed:
            book.missed(self._missed)
            self._missed = 0
        ended = mount is None or mount.ended
        try:
            if mount is None:
                raise GoneError(2, "no container with the mount was seen")
            self._look(book, mount, now)
            self._go_on_walking(book, mount, now)
            most = AT_END if mount.ended else budget
            while found.spent < most and self._hash(book, mount, now, found):
                pass
            ended = mount.ended
            self.over = last and ended and self._walk is None and not self._events and not book.busy
        except GoneError:
            self._give_up(book, now)
            ended, self.over = True, last
        except OSError as error:
            _log.info("checkpoints: %s", error)
            self._walk = None
        found.batches += book.batches(now, ending=ended)
        return found

    def finish(self, now: float) -> Turn:
        """The time for what was written last is over."""
        found = Turn()
        if self.book is not None:
            self._give_up(self.book, now)
            found.batches += self.book.batches(now, ending=True)
        self.over = True
        return found

    def held(self, stamp: Stamp) -> bool:
        """Whether a process of the pod can still write to the file."""
        living = [pid for pid, mount in self._mounts.values() if not mount.ended]
        return any(open_for_writing(pid, stamp.key) for pid in living)

    # How ------------------------------------------------------------------------------------------

    def _mount(self) -> CheckpointMount | None:
        """The way in: through a container that lives, else as the last one had it."""
        for container_id in tuple(self._gone):
            if container_id in self._mounts:
                self._mounts[container_id][1].ended = True
        mounts = [mount for _, mount in self._mounts.values()]
        return next((m for m in reversed(mounts) if not m.ended), mounts[-1] if mounts else None)

    def _look(self, book: Book, mount: CheckpointMount, now: float) -> None:
        for _ in range(min(len(self._events), _EVENTS_A_TURN)):
            event = self._events.popleft()
            if isinstance(event, Unwatched):
                book.unwatched(event.begin, event.end)
                continue
            book.wrote(event)
            stamp = mount.look(event.path) if event.path else None
            if stamp is not None and stamp.key == event.key:
                book.seen(event.path, stamp, now)

    def _go_on_walking(self, book: Book, mount: CheckpointMount, now: float) -> None:
        sought = book.unlocated
        if mount.ended and not self._seen_to_end:
            # Once more from the start: what was renamed last has no event.
            self._walk, self._next_walk, self._seen_to_end = None, now, True
            self._due.clear()
        if self._walk is None:
            if now < self._next_walk and not sought:
                return
            book.begin_walk()
            self._walk = mount.walk()
            self._next_walk = now + WALK_SECONDS
        for _ in range(NAMES_SOUGHT if sought or mount.ended else NAMES):
            try:
                item = next(self._walk)
            except StopIteration as end:
                book.end_walk(whole=bool(end.value))
                self._walk = None
                return
            if item is not None:
                book.seen(*item, now)

    def _hash(self, book: Book, mount: CheckpointMount, now: float, found: Turn) -> bool:
        """Reads a part of a file; whether there was one."""
        if self._hashing is None:
            if not self._due:  # in portions: to sort thousands for each file would take its time
                self._due.extend(book.due(now, ending=mount.ended)[:_PORTION])
            if not self._due:
                return False
            self._hashing = Hashing(*self._due.popleft())
        hashing = self._hashing
        found.spent += _FILE_COST + hashing.step(mount, _PART)
        if not hashing.done:
            return True
        self._hashing = None
        if hashing.digest is not None:
            replaced = book.hashed(hashing.path, hashing.stamp, hashing.digest, now, hashing.judged)
            found.replaced += [replaced] if replaced is not None else []
            return True
        stamp = mount.look(hashing.path)
        if stamp is None or stamp == hashing.stamp:
            book.vanished(hashing.path)
        else:
            book.seen(hashing.path, stamp, now)
        return True

    def _give_up(self, book: Book, now: float) -> None:
        _UNREAD.inc(len(book.due(now, ending=True)))
        while self._events:
            book.missed(isinstance(self._events.popleft(), Written))
        book.give_up(now)
        self._due.clear()
        self._walk = self._hashing = None
        self._next_walk = now + WALK_SECONDS
