"""What of a container's layer makes it another than its image, excepted or not: pass after pass.

For the comparison of ranks. Counted are files of the image whose content is another, or that are
gone, and new files that code is loaded from by their name. Not counted: what may change as it likes
(mounts for writing), what runtimes leave before the start, other new files (logs, locks and
compilers' caches are each rank's own), byte code whose header names its source as it is. A file
whose content is another again and again counts as ``CHANGING``, whatever it says.

A pass begins a minute after the last one ended, or later the more there is to look at; it looks
into those files only that are not as they were. So a container costs a 5,000th of one core at most,
and with tens of thousands of files in its layer it takes hours to be compared again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import islice

from trainseal.agent.files import MAX_HASHED
from trainseal.agent.judge import unjudged
from trainseal.agent.layers import Entry, Layers
from trainseal.agent.observed import Act, FileEvent, WatchedContainer
from trainseal.agent.runtimeleavings import left_by_runtime
from trainseal.agent.scene import Scene

CHANGING = "changing all the time"
#: A file counts as one after it was another so often.
_OFTEN = 3
#: Seconds from one pass to the next: at least, and for each entry.
_EVERY, _PER_ENTRY = 60.0, 0.2
#: Bytes that one step looks into, and what a look costs beside them.
_BYTES, _LOOK = 64 * 1024 * 1024, 64 * 1024
#: With more entries or differences than this the layer is not compared.
_MOST_WALKED, _MOST = 50_000, 20_000

_Signature = tuple[str, int, int, int, int]


class LayerProfile:
    """The layer of one container. ``known`` are paths with what became of them, as the last pass
    saw them; None before the first has ended, and where the layer cannot be read or is too large.
    """

    def __init__(self, container: WatchedContainer, scene: Scene) -> None:
        self._container = container
        self._scene = scene
        self._seen: dict[str, tuple[_Signature, str | None]] = {}
        self._changes: Counter[str] = Counter()
        self._work: Iterator[int] | None = None
        self._next = 0.0
        self.known: Mapping[str, str] | None = None

    def step(self, now: float) -> Iterator[None]:
        """Goes on with a pass, or begins one where it is time. Each item is a place to pause."""
        layers = self._scene.layers
        if layers is None or (self._work is None and now < self._next):
            return
        if self._work is None:
            self._work = self._pass(layers, now)
        left = _BYTES
        for spent in self._work:
            yield
            left -= spent
            if left <= 0:
                return
        self._work = None

    def _pass(self, layers: Layers, now: float) -> Iterator[int]:
        known = self.known or {}
        found: dict[str, str] = {}
        seen: dict[str, tuple[_Signature, str | None]] = {}
        entries = 0
        for entry in islice(layers.walk(), _MOST_WALKED):
            entries += 1
            signature = _signature(entry)
            before = self._seen.get(entry.path)
            spent = 0
            if before is None or before[0] != signature:
                value, spent = self._looked_at(entry, layers, before)
                before = (signature, value)
            if len(seen) < _MOST_WALKED:
                seen[entry.path] = before
            if before[1] is not None:
                found[entry.path] = before[1]
            yield spent
        self._seen = seen
        self._changes = Counter({p: n for p, n in self._changes.items() if p in seen})
        self._next = now + max(_EVERY, entries * _PER_ENTRY)
        if entries >= _MOST_WALKED or len(found) > _MOST:
            self.known = None
            return
        lasting = {p: v for p, v in known.items() if found.get(p) == v}
        self.known = {**lasting, **found}  # what came last is last

    def _looked_at(
        self, entry: Entry, layers: Layers, before: tuple[_Signature, str | None] | None
    ) -> tuple[str | None, int]:
        path = entry.path
        if self._changes[path] >= _OFTEN:
            return CHANGING, 0
        value, spent = self._value(entry, layers)
        if value is None or left_by_runtime(self._scene.left(entry), self._container.started):
            return None, spent
        if before is not None and before[1] is not None and before[1] != value:
            self._changes[path] += 1
        return (CHANGING if self._changes[path] >= _OFTEN else value), spent

    def _value(self, entry: Entry, layers: Layers) -> tuple[str | None, int]:
        """What became of it, and what it cost to say so."""
        path, scene = entry.path, self._scene
        if unjudged(path, self._container) or scene.covered(path):
            return None, 0
        if entry.kind == "directory":
            return ("emptied" if entry.opaque and scene.signed(path) else None), 0
        if entry.kind == "removed":
            return "removed", 0
        image = layers.image_tree(path)
        if image is None and not scene.loaders.imports(path):
            return None, 0
        if entry.kind == "link":
            return f"-> {scene.root.link_target(path)}", 0
        if entry.kind != "file":
            return None, 0
        spent = _LOOK + min(entry.status.st_size, MAX_HASHED)
        if path.endswith(".pyc"):
            compared = scene.facts(FileEvent(Act.CREATED, path, 0)).bytecode
            if compared is None or compared.matches is not False:
                return None, spent
        digest = layers.upper.digest(path)
        signed = image.status(path) if image is not None else None
        if image is not None and signed is not None and signed.st_size == entry.status.st_size:
            spent *= 2
            if digest is not None and digest.startswith("sha256:"):
                return (None if image.digest(path) == digest else digest), spent
        return digest, spent


def _signature(entry: Entry) -> _Signature:
    status = entry.status
    if entry.kind == "removed":  # overlays link one inode to all removed names
        return entry.kind, 0, 0, 0, 0
    if entry.kind == "directory":  # changes with every name made in it
        return entry.kind, int(entry.opaque), 0, 0, 0
    return entry.kind, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
