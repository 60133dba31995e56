"""What is known of the files in one pod's checkpoints mount, and which of them are complete. Pure.

Told what events say was written and what looks at the mount find, it says which files to hash and
which manifests to make. Times without a unit are monotonic seconds. The rules:

1. A file that somebody in the pod wrote is *complete* when it was closed and has been quiet since.
   Files that become complete together make one manifest. One that is written again and again gets
   the next manifest later and later.
2. What was there before the pod, and what others write on a shared volume, is not this pod's: no
   manifest, but a file that has one already, of whatever run, is held to it.
3. A file that has a manifest and was changed without an event is *suspect*. It is hashed once it
   is quiet; where its content is another, and no sealed pod's manifest explains it (the caller
   asks), it was replaced.
4. What changed while no events were told may have been written by anybody, and is called so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from trainseal.agent.checkpointvalues import (
    Batch,
    Completed,
    Key,
    Known,
    Replaced,
    Stamp,
    Written,
)
from trainseal.agent.checkpointwords import most_bytes
from trainseal.agent.observed import Lineage
from trainseal.api.checkpoint import MAX_FILES, MAX_PATH, Writer
from trainseal.provenance.fileforms import Judged

#: A closed file is left alone for so long before it is read; files then wait for one another.
QUIET, GATHER, LONGEST_GATHER = 2.0, 3.0, 60.0
#: A suspect file must have been left alone for so long: whoever writes it may tell in the end.
SUSPECT_QUIET = 60.0
#: Where another pod may have written it: so long its agent has for its manifest. A file whose last
#: change is older than this pod by more than clocks differ is none of this run's.
PATIENCE, CLOCKS_APART = 600.0, 60 * 10**9
#: Between two manifests of one file: this, then twice as long, and so on.
FIRST_PACE, LONGEST_PACE = 10.0, 300.0
#: Manifests of one pod: so many at once, then one in so many seconds.
BURST, REFILL = 60, 60.0
#: What found no room is told of so often.
UNLISTED_PACE = 600.0
MOST_FILES = 20_000
#: Bytes of the files of one object, at most; a character may take so many in JSON.
MOST_BYTES, _ESCAPED = 200 * 1024, 6
_MOST_READY = MOST_FILES
#: So many wait for no other.
_ENOUGH = 8 * MAX_FILES
#: By so much a network file system corrects a time; nanoseconds.
_CORRECTED = 2 * 10**9
_MOST_WINDOWS = 32


@dataclass(slots=True)
class _Work:
    writer: Writer
    lineage: Lineage | None
    since: float
    began: float
    #: The digest that it has unless somebody changed it.
    expected: str | None = None
    #: Nobody was seen to write it.
    suspect: bool = False
    patience: float = 0.0
    found: str | None = None
    judged: Judged | None = None


@dataclass(slots=True)
class _File:
    stamp: Stamp
    walk: int
    digest: str | None = None
    manifest: str = ""
    ours: bool = False
    work: _Work | None = None
    times: int = 0
    last: float = 0.0


class Book:
    """Of one pod. ``known`` are the manifests of its volume's files; ``started`` is when the pod's
    first container started, nanoseconds since 1970.
    """

    def __init__(self, known: Mapping[str, Known], started: int) -> None:
        self._known = dict(known)
        self._started = started
        self._files: dict[str, _File] = {}
        self._pending: dict[str, _File] = {}
        self._written: dict[Key, tuple[Written, int]] = {}
        self._copies: dict[Key, Completed] = {}
        self._windows: list[tuple[int, int]] = []
        self._walk = 0
        self._ready: list[Completed] = []
        self._removed: list[str] = []
        self._unlisted = 0
        self._ready_since = self._ready_last = 0.0
        self._tokens, self._refilled = float(BURST), 0.0
        self._counted = -UNLISTED_PACE

    # What is told ---------------------------------------------------------------------------------

    def unwatched(self, begin: int, end: int) -> None:
        """No events were told in this time; nanoseconds since 1970."""
        self._windows = [*self._windows, (begin, end)][-_MOST_WINDOWS:]

    def wrote(self, event: Written) -> None:
        """An event. Who tells it looks for the file then (``seen``)."""
        if len(self._written) < MOST_FILES:
            self._written[event.key] = event, self._walk
        else:
            self._unlisted += 1

    def missed(self, count: int) -> None:
        """So many files were written that nothing more can be said of."""
        self._unlisted += count

    def seen(self, path: str, stamp: Stamp, now: float) -> None:
        """A file as it is now."""
        event, _ = self._written.pop(stamp.key, (None, 0))
        file = self._files.get(path)
        if file is None:
            file = self._enter(path, stamp, event)
            if file is not None:
                self._judge(path, file, file.stamp, event, now)
            return
        file.walk = self._walk
        if file.stamp == stamp and (event is None or not self._news(file)):
            return  # at most it was opened for writing, and no more
        before, file.stamp = file.stamp, stamp
        self._judge(path, file, before, event, now)

    def begin_walk(self) -> None:
        """The whole mount will be looked at."""
        self._walk += 1

    def end_walk(self, *, whole: bool) -> None:
        """It was; where that was ``whole``, names that were not seen are gone."""
        if not whole:
            return
        self._written = {k: (e, w) for k, (e, w) in self._written.items() if w >= self._walk}
        for path in [p for p, f in self._files.items() if f.walk < self._walk]:
            file = self._files.pop(path)
            self._lost_sight(path, file)
            if file.manifest and file.ours:
                self._gone(path)
        for path, known in self._known.items():
            if known.ours:
                self._gone(path)
        self._known.clear()

    @property
    def unlocated(self) -> bool:
        """Whether something was written that no look has found under a name yet."""
        return bool(self._written)

    # What is to be done ---------------------------------------------------------------------------

    @property
    def busy(self) -> bool:
        """Whether a file waits to be read or told of."""
        return bool(self._pending or self._ready or self._written)

    def due(self, now: float, *, ending: bool = False) -> list[tuple[str, Stamp]]:
        """Files to be hashed now, in this order. ``ending``: what was written last comes first, and
        nothing waits but the suspect.
        """
        found = [
            (path, file.stamp)
            for path, file in self._pending.items()
            if (work := file.work) is not None and work.found is None
            if (ending and not work.suspect) or self._is_due(file, work, now)
        ]
        return sorted(found, key=lambda item: item[1].changed, reverse=ending)

    def hashed(
        self, path: str, stamp: Stamp, digest: str, now: float, judged: Judged | None = None
    ) -> Replaced | None:
        """The file had this content for as long as it had the stamp, and is what was judged."""
        file = self._pending.get(path)
        if file is None or file.work is None or file.stamp != stamp:
            return None
        work, before = file.work, file.digest
        work.judged = judged
        if before == digest:
            self._settled(path, file)
            return None
        if work.expected is not None and digest != work.expected:
            if before is None:  # the number of a file that is gone, given to another's
                self._settled(path, file)
                return None
            work.found = digest
            return Replaced(path, stamp, before, digest, file.manifest)
        self._complete(path, file, digest, now)
        if before is None or work.writer not in ("Session", "Outside", "Container"):
            return None
        manifest, unseen = file.manifest, work.writer == "Container"
        return Replaced(
            path, stamp, before, digest, manifest, work.lineage, sure=not unseen, unseen=unseen
        )

    def vanished(self, path: str) -> None:
        """The file is gone; a walk will tell where it went."""
        file = self._pending.get(path)
        if file is not None:
            self._lost_sight(path, file)
            file.stamp = replace(file.stamp, changed=0)

    def explained(self, path: str, stamp: Stamp, known: Known) -> None:
        """Another sealed pod's manifest has the content that was found."""
        file = self._asked(path, stamp)
        if file is not None and file.work is not None:
            file.digest, file.manifest, file.ours = file.work.found, known.manifest, known.ours
            self._settled(path, file)

    def unexplained(self, path: str, stamp: Stamp, now: float) -> bool:
        """No manifest has it: whether it is thereby sure that it was replaced. Else ask again."""
        file = self._asked(path, stamp)
        if file is None or file.work is None or file.work.found is None:
            return False
        work, found = file.work, file.work.found
        if now - work.began < work.patience:
            work.found, work.since = None, now
            return False
        work.writer = "Outside"
        self._complete(path, file, found, now)
        return True

    def later(self, path: str, stamp: Stamp, now: float) -> None:
        """Somebody in the pod still has it open for writing, or nobody could be asked."""
        file = self._asked(path, stamp)
        if file is not None and file.work is not None:
            file.work.found, file.work.since = None, now

    def batches(self, now: float, *, ending: bool = False) -> Iterator[Batch]:
        """The manifests to be made now."""
        self._tokens = min(BURST, self._tokens + (now - self._refilled) / REFILL)
        self._refilled = now
        if not ending and not self._gathered(now):
            return
        while (self._ready or self._unlisted) and (ending or self._tokens >= 1):
            self._tokens -= 1
            most = _fitting([_most_bytes(f) for f in self._ready[:MAX_FILES]], MOST_BYTES)
            files, self._ready = self._ready[:most], self._ready[most:]
            most = _fitting([_ESCAPED * len(p) for p in self._removed[:MAX_FILES]], MOST_BYTES // 4)
            removed, self._removed = self._removed[:most], self._removed[most:]
            unlisted, self._unlisted = self._unlisted, 0
            self._counted = now if unlisted else self._counted
            yield Batch(tuple(files), tuple(removed), unlisted)

    def give_up(self, now: float) -> None:
        """The volume is gone: what was not read gets a manifest without a digest, and what was
        never found under a name is counted.
        """
        self.missed(len(self._written))
        for path, file in list(self._pending.items()):
            if file.work is not None and not file.work.suspect:
                self._complete(path, file, None, now)
        self._pending.clear()
        self._written.clear()

    # How ------------------------------------------------------------------------------------------

    def _enter(self, path: str, stamp: Stamp, event: Written | None) -> _File | None:
        """A name that was not seen before; None where nothing more is to be said of it."""
        if len(self._files) >= MOST_FILES or not listable(path):
            self._unlisted += event is not None
            return None
        file = self._files[path] = _File(stamp, self._walk)
        known = self._known.pop(path, None)
        if known is None:
            return file
        file.digest, file.manifest, file.ours = known.digest, known.manifest, known.ours
        if (known.size, known.changed) != (stamp.size, stamp.changed // 1000):
            return file
        if known.digest is not None and known.ours:
            self._remember(Completed(path, stamp, known.digest, known.writer))
        return None

    def _news(self, file: _File) -> bool:
        """Whether an event on a file that looks as before says something new."""
        work = file.work
        return not file.manifest if work is None else work.expected is not None

    def _judge(self, path: str, file: _File, was: Stamp, event: Written | None, now: float) -> None:
        stamp, before = file.stamp, file.work
        if event is not None:
            work = _Work(event.writer, event.lineage, now, now)
        elif before is not None and before.expected is None and _still(file, was):
            work = replace(before, since=now)
        elif self._was_unwatched(stamp.changed):
            work = _Work("Unwatched", None, now, now)
        elif (copy := self._copies.get(stamp.key)) is not None and copy.path != path:
            work = _Work(copy.writer, copy.lineage, now, now, copy.digest)
            if copy.stamp == stamp and copy.judged is not None:  # its directory has another name
                work.judged = copy.judged
                file.work = work
                self._complete(path, file, copy.digest, now)
                return
        elif file.digest is not None:
            patience = self._patience(file)
            work = _Work("Outside", None, now, now, file.digest, suspect=True, patience=patience)
        else:
            file.work = None
            self._pending.pop(path, None)
            return
        file.work = work
        self._pending[path] = file

    def _patience(self, file: _File) -> float:
        before_us = file.stamp.changed < self._started - CLOCKS_APART
        return 0.0 if file.ours or before_us else PATIENCE

    def _was_unwatched(self, changed: int) -> bool:
        return any(begin <= changed <= end for begin, end in self._windows)

    def _is_due(self, file: _File, work: _Work, now: float) -> bool:
        quiet = QUIET
        if work.suspect and file.stamp.changed >= self._started - CLOCKS_APART:
            quiet = SUSPECT_QUIET
        pace = 0.0
        if file.times:
            pace = min(FIRST_PACE * 2.0 ** (file.times - 1), LONGEST_PACE)
        return now - work.since >= quiet and (not file.times or now - file.last >= pace)

    def _asked(self, path: str, stamp: Stamp) -> _File | None:
        file = self._pending.get(path)
        return file if file is not None and file.stamp == stamp else None

    def _complete(self, path: str, file: _File, digest: str | None, now: float) -> None:
        work = file.work
        if work is None:
            return
        done = Completed(path, file.stamp, digest, work.writer, work.lineage, work.judged)
        if len(self._ready) < _MOST_READY:
            if not self._ready:
                self._ready_since = now
            self._ready_last = now
            self._ready.append(done)
        else:
            self._unlisted += 1
        file.digest, file.manifest, file.ours = digest, "of this pod", True
        file.times, file.last = file.times + 1, now
        if digest is not None:
            self._remember(done)
        self._settled(path, file)

    def _remember(self, done: Completed) -> None:
        """By its number the file is known again under another name."""
        if len(self._copies) >= MOST_FILES:
            self._copies.clear()
        self._copies[done.stamp.key] = done

    def _settled(self, path: str, file: _File) -> None:
        file.work = None
        self._pending.pop(path, None)

    def _lost_sight(self, path: str, file: _File) -> None:
        """A name is gone; what was written under it is looked for under another."""
        work = file.work
        if work is not None and work.expected is None:
            event = Written(file.stamp.key, "", work.writer, work.lineage)
            self._written.setdefault(event.key, (event, self._walk))
        self._settled(path, file)

    def _gathered(self, now: float) -> bool:
        if self._unlisted and not self._ready:
            return now - self._counted >= UNLISTED_PACE
        waiting = any(f.work is not None and not f.work.suspect for f in self._pending.values())
        return bool(self._ready) and (
            len(self._ready) >= _ENOUGH
            or now - self._ready_since >= LONGEST_GATHER
            or (not waiting and now - self._ready_last >= GATHER)
        )

    def _gone(self, path: str) -> None:
        if len(self._removed) < _MOST_READY:
            self._removed.append(path)


def _still(file: _File, was: Stamp) -> bool:
    """Whether a file that waits to be read is still what its writer closed: one without a manifest
    may be written on; a network file system corrects its times a moment later.
    """
    now = file.stamp
    return not file.manifest or (
        now.size == was.size and abs(now.changed - was.changed) <= _CORRECTED
    )


def _most_bytes(file: Completed) -> int:
    """Of its entry in an object, as JSON: with a session, a user's name too."""
    name = _ESCAPED * 256 if file.writer == "Session" else 0
    judged = most_bytes(file.judged) if file.judged is not None else 0
    return 400 + name + judged + _ESCAPED * len(file.path)


def _fitting(sizes: Sequence[int], most: int) -> int:
    """How many of them, from the first, fit into so many bytes; one does in any case."""
    total = 0
    for number, size in enumerate(sizes):
        total += size
        if total > most and number:
            return number
    return len(sizes)


def listable(path: str) -> bool:
    """Whether a manifest can name the file: valid text without control characters, not too long."""
    return len(path) <= MAX_PATH and path.isprintable()
