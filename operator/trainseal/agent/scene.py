"""One container as the agent finds it: its root, mounts and layers, and the facts about a path.

All I/O of judging is here and in ``files``. Events name a path as the process that acted saw it;
``locate`` gives the container's own path for the same file, so that a bind mount made in a
namespace of one's own hides nothing.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from trainseal.agent import bytecode
from trainseal.agent.bytecode import Bytecode, Source, check_code, check_header, source_of
from trainseal.agent.files import Tree
from trainseal.agent.judge import Facts
from trainseal.agent.layers import Entry, Layers, LayersError, kind_of
from trainseal.agent.loaders import MOST_DIRECTORIES, MOST_NAMES, Loaders, find
from trainseal.agent.mounts import at_path, holding, overlay_of
from trainseal.agent.mounttable import mounts_of
from trainseal.agent.observed import Act, FileEvent, WatchedContainer
from trainseal.agent.runtimeleavings import MAX_BEGINNING, Left

_DELETED = " (deleted)"
#: New names that are remembered as new, at most.
_MAX_FRESH = 20_000
_MAX_COMPARED = 1_000
#: Where the path of an event leads nowhere, its file is looked for among so many.
_MOST_CANDIDATES = 50_000

Identity = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Located:
    """Where the file of an event is in the container; ``own`` is false where no path leads there
    and ``path`` is what the process saw. ``linked``: which file of the upper layer it is, where
    it has other names beside ``path``.
    """

    path: str
    own: bool = True
    linked: Identity | None = None


class Scene:
    """Opens the container's root. Close it. ``blind`` says what cannot be seen here."""

    def __init__(self, container: WatchedContainer, node: str) -> None:
        """``node`` is where the node's root directory is. OSError where the container is gone."""
        self._container = container
        self.blind: list[tuple[str, str]] = []
        self.root = Tree(container.root)
        self.layers: Layers | None = None
        self.fresh: set[str] = set()
        #: The names in code and config mounts as they were at first; None until they are known.
        self.known: frozenset[str] | None = None
        self._compared: dict[tuple[int, ...], bool | None] = {}
        try:
            self.mounts = mounts_of(container.pid)
            self.layers = self._layers(node)
            self.loaders: Loaders = find(
                self.root, container.env, (m.path for m in self.mounts if m.path != "/")
            )
            if not self.loaders.whole and not container.added:
                words = (
                    f"the container has more than {MOST_DIRECTORIES} directories or {MOST_NAMES} "
                    "names near the top of its root: of those that code is imported from some may "
                    "not be known; what is made, moved and removed there is found by walking, with "
                    "nobody named"
                )
                self.blind.append(("loaders", words))
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Twice is fine."""
        self.root.close()
        if self.layers is not None:
            self.layers.close()

    def _layers(self, node: str) -> Layers | None:
        if self._container.added:
            return None  # its own files are nobody's difference
        mount = at_path(self.mounts, "/")
        overlay = overlay_of(mount) if mount is not None else None
        if overlay is None:
            kind = mount.kind if mount is not None else "unknown"
            words = (
                f"the container's root is no overlay but {kind}: new and signed files look alike"
            )
            self.blind.append(("layers", words))
            return None
        try:
            return Layers(overlay, node)
        except LayersError as error:
            self.blind.append(("layers", f"{error}: new and signed files look alike"))
            return None

    # Where ----------------------------------------------------------------------------------------

    def locate(self, fd: int) -> Located:
        """The container's own path of the file that ``fd`` is open on."""
        seen = os.readlink(f"/proc/self/fd/{fd}")  # noqa: PTH115 text only
        status = os.fstat(fd)
        wanted = (status.st_dev, status.st_ino)
        if self._is(seen, wanted):
            return Located(seen, linked=self._linked(seen, status))
        if seen.endswith(_DELETED):
            seen = seen.removesuffix(_DELETED)
            mount = holding(self.mounts, seen)
            if status.st_nlink == 0 and mount is not None and mount.device == status.st_dev:
                return Located(seen)
        for path in self._candidates(seen):
            if self._is(path, wanted):
                return Located(path, linked=self._linked(path, status))
        return Located(seen, own=False)

    def _linked(self, path: str, status: os.stat_result) -> Identity | None:
        if status.st_nlink < 2 or not stat.S_ISREG(status.st_mode) or self.layers is None:
            return None
        if self._container.mount_of(path) is not None or self.covered(path):
            return None
        upper = self.layers.upper.status(path)
        return None if upper is None else (upper.st_dev, upper.st_ino)

    def _is(self, path: str, wanted: Identity) -> bool:
        status = self.root.status(path)
        return status is not None and (status.st_dev, status.st_ino) == wanted

    def _candidates(self, seen: str) -> Iterator[str]:
        """Ends of the path, below the root and below each mount; then all of the upper layer."""
        for mount in self._container.mounts:
            for end in _ends(seen):
                yield f"{mount.path}{end}"
        yield from _ends(seen)
        if self.layers is not None:
            for entry in islice(self.layers.walk(), _MOST_CANDIDATES):
                yield entry.path

    # What -----------------------------------------------------------------------------------------

    def holds_code(self, path: str) -> bool:
        """Whether the image or a signed mount has something there, or code is loaded from there."""
        loaders = self.loaders
        if loaders.imports(path) or loaders.in_tree(f"{path}/"):
            return True
        if path in loaders.libraries or path in loaders.programs:
            return True
        if not self.signed(path):
            return False
        layers = self.layers if self._container.mount_of(path) is None else None
        return layers is None or layers.image_has_in(path)

    def added(self, path: str) -> None:
        """Remembers that the name is new."""
        if len(self.fresh) < _MAX_FRESH:
            self.fresh.add(path)

    def signed(self, path: str) -> bool:
        """Whether the image or a signed mount has the name."""
        role = self._container.mount_of(path)
        if role is not None and role.role in ("code", "config") and self.known is not None:
            return path in self.known or (
                path not in self.fresh and any(k.startswith(f"{path}/") for k in self.known)
            )
        if self.layers is None or role is not None:
            return path not in self.fresh
        return self.layers.image_tree(path) is not None

    def facts(self, event: FileEvent, *, from_beside: bool = False) -> Facts:
        """What is known about the file now."""
        path = event.path
        status = self.root.status(path)
        signed = self.signed(path)
        kind = kind_of(status) if status is not None else None
        mount = holding(self.mounts, path)
        role = self._container.mount_of(path)
        platform = role is None and mount is not None and mount.path != "/"
        upper = role is None and not platform and self.layers is not None
        written = self.layers.written(path) if upper and self.layers else path in self.fresh
        compare = signed and upper and kind == "file" and (written or event.act is Act.CLOSED)
        return Facts(
            kind=kind,
            signed=signed,
            written=written,
            same=self._same(path, status) if compare and status else None,
            links=status.st_nlink if status is not None and kind == "file" else 1,
            imports=self.loaders.imports(path) or (role is not None and role.role == "code"),
            from_beside=from_beside,
            platform=platform,
            memory=platform and mount is not None and mount.kind == "tmpfs",
            writable=platform and mount is not None and not mount.read_only,
            emptied=event.directory
            and upper
            and self.layers is not None
            and self.layers.upper.opaque(path),
            attributes=self._attributes(path, status, event.act),
            bytecode=self._bytecode(path) if kind == "file" and path.endswith(".pyc") else None,
        )

    def _same(self, path: str, status: os.stat_result) -> bool | None:
        key = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        if key not in self._compared:
            if len(self._compared) >= _MAX_COMPARED:
                self._compared.clear()
            self._compared[key] = self._compare(path, status)
        return self._compared[key]

    def _compare(self, path: str, status: os.stat_result) -> bool | None:
        tree = self.layers.image_tree(path) if self.layers is not None else None
        signed = tree.status(path) if tree is not None else None
        if tree is None or signed is None:
            return None
        if signed.st_size != status.st_size:
            return False
        ours, theirs = tree.digest(path), self.root.digest(path)
        if ours is None or theirs is None or not ours.startswith("sha256:"):
            return None
        return ours == theirs

    def _attributes(self, path: str, status: os.stat_result | None, act: Act) -> dict[str, str]:
        if act is not Act.ATTRIBUTES or status is None:
            return {}
        role = self._container.mount_of(path)
        tree = self.layers.image_tree(path) if self.layers is not None and role is None else None
        signed = tree.status(path) if tree is not None else None
        if signed is None:
            return {"mode, owner or times": _attributes_of(status)}
        pairs = {
            "mode": (f"{signed.st_mode & 0o7777:04o}", f"{status.st_mode & 0o7777:04o}"),
            "owner": (f"{signed.st_uid}:{signed.st_gid}", f"{status.st_uid}:{status.st_gid}"),
            "time": (str(signed.st_mtime_ns), str(status.st_mtime_ns)),
        }
        if kind_of(status) == "directory":
            del pairs["time"]  # changes with every name made in it
        return {
            name: f"signed {was}, now {now}" for name, (was, now) in pairs.items() if was != now
        }

    # Byte code ------------------------------------------------------------------------------------

    def _bytecode(self, path: str) -> Bytecode | None:
        data = self.root.read(path, bytecode.MAX_BYTECODE)
        if data is None:
            return Bytecode(False, "it cannot be read, or is too large")
        return check_header(data, self._source(path))

    def compiled(self, path: str) -> Bytecode:
        """The whole comparison, which compiles the source: slow."""
        data, source = self.root.read(path, bytecode.MAX_BYTECODE), self._source(path)
        if data is None:
            return Bytecode(False, "it cannot be read, or is too large")
        found = check_header(data, source)
        if found.matches is None and source is not None:
            return check_code(path, data, source)
        return found

    def _source(self, path: str) -> Source | None:
        name = source_of(path)
        status = self.root.status(name) if name is not None else None
        if name is None or status is None:
            return None
        data = self.root.read(name, bytecode.MAX_SOURCE)
        if data is None:
            return None
        signed = self.signed(name) and (
            self.layers is None or not self.layers.written(name) or bool(self._same(name, status))
        )
        return Source(data, int(status.st_mtime), signed)

    def covered(self, path: str) -> bool:
        """Whether a mount hides what the root itself has there."""
        mount = holding(self.mounts, path)
        return mount is not None and mount.path != "/"

    # The upper layer ------------------------------------------------------------------------------

    def upper_files(self) -> Iterator[tuple[str, Identity]]:
        """Its files, as ``Located.linked`` has them."""
        for entry in self.layers.walk() if self.layers is not None else ():
            if entry.kind == "file":
                yield entry.path, (entry.status.st_dev, entry.status.st_ino)

    def shown(self, path: str) -> bool:
        """Whether a name of the layer is the image's, and no mount hides it."""
        return self.signed(path) and not self.covered(path)

    def left(self, entry: Entry) -> Left:
        """What tells whether a runtime put an entry of the upper layer there."""
        target = self.root.link_target(entry.path) if entry.kind == "link" else None
        beside = f"{entry.path.rpartition('/')[0]}/{target}"
        beginning = b""
        if entry.kind == "file" and self.layers is not None:
            try:
                with self.layers.upper.regular(entry.path) as fd:
                    beginning = os.pread(fd, MAX_BEGINNING, 0)
            except OSError:
                pass
        return Left(
            entry=entry,
            beginning=beginning,
            target=target,
            target_covered=self._leads_to_mount(beside),
        )

    def _leads_to_mount(self, path: str) -> bool:
        for _ in range(4):
            if at_path(self.mounts, path) is not None:
                return True
            target = self.root.link_target(path)
            if target is None or "/" in target:
                return False
            path = f"{path.rpartition('/')[0]}/{target}"
        return False


def _ends(path: str) -> Iterator[str]:
    """``/a/b/c``, ``/b/c``, ``/c``."""
    at = 0
    while at >= 0:
        yield path[at:]
        at = path.find("/", at + 1)


def _attributes_of(status: os.stat_result) -> str:
    return f"now {status.st_mode & 0o7777:04o} {status.st_uid}:{status.st_gid}"
