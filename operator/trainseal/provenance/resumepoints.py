"""Which checkpoint of a run another may go on from: the last that is whole, signed and untainted.

Pure. A checkpoint is what lies in one directory right below the checkpoints mount (``step-20/…``),
from however many ranks; a file that lies in the mount itself is one with those that were completed
together with it. The rules:

1. What lies there is what manifests say, the last of each name, less what was removed since.
2. A checkpoint can be gone on from where each of its files stands in a manifest that the operator
   signed and that is not tainted, or was signed off; has a digest; and is on a claim.
3. One of which files went unlisted cannot: nobody could compare them.
4. Where a marker is named, one without a file of that name was cut short and is passed over.
5. Of those, the one that was completed last; never an older one *instead of saying why*: where the
   last is too large to be compared, there is none.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from trainseal.api.gateplan import MAX_RESUME_BYTES, MAX_RESUME_FILES
from trainseal.api.model import JsonObject, json_object, json_objects, metadata_name
from trainseal.provenance.canonical import canonical_bytes, digest

#: What a mount may name as a directory of its volume.
_FOLDER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._=+@-]*")


class NoPointError(ValueError):
    """There is nothing to go on from; the words say why."""


@dataclass(frozen=True, slots=True)
class Item:
    """A Checkpoint object of the run. ``good``: its signature was verified, and no taint bars."""

    obj: JsonObject = field(repr=False)
    good: bool


@dataclass(frozen=True, slots=True)
class Point:
    """A checkpoint. ``files`` are by path within ``folder``, which is empty for the mount itself;
    ``path`` is the mount's directory within the volume.
    """

    folder: str
    files: tuple[tuple[str, str], ...]
    checkpoints: tuple[str, ...]
    claim: str
    path: str
    claim_uid: str
    entries: tuple[JsonObject, ...] = field(repr=False)
    """Of each file, as its manifest has it."""

    @property
    def manifest(self) -> str:
        """Digest over paths and digests."""
        return digest([{"path": p, "digest": d} for p, d in self.files])

    @property
    def place(self) -> str:
        """Its directory within the volume."""
        return "/".join(part for part in (self.path, self.folder) if part)


@dataclass(slots=True)
class _Group:
    folder: str
    completed: str = ""
    wrong: str = ""
    files: dict[str, tuple[JsonObject, Item]] = field(default_factory=dict)


def latest(items: Sequence[Item], marker: str = "") -> Point:
    """What a run may be gone on from. Raises NoPointError."""
    groups = _groups([i for i in items if _volume(i).get("claim")])
    for group in groups:
        if marker and all(path.rpartition("/")[2] != marker for path in group.files):
            group.wrong = group.wrong or f"{group.folder or 'a file'} has no {marker} beside it"
    for group in sorted(groups, key=lambda g: (g.completed, g.folder), reverse=True):
        if not group.wrong:
            return _point(group)
    if not groups:
        raise NoPointError("it has no checkpoint on a claim that has a manifest")
    worst = max(groups, key=lambda g: (g.completed, g.folder))
    raise NoPointError(f"none of its checkpoints can be gone on from; of the last, {worst.wrong}")


def _groups(items: Sequence[Item]) -> list[_Group]:
    files: dict[str, tuple[JsonObject, Item]] = {}
    for item in sorted(items, key=_completed):
        spec = json_object(item.obj.get("spec"))
        removed = spec.get("removed")
        for path in removed if isinstance(removed, list) else []:
            files.pop(str(path), None)
        for file in json_objects(spec.get("files")):
            files[str(file.get("path"))] = (file, item)
    groups: dict[tuple[str, str], _Group] = {}
    for path, (file, item) in sorted(files.items(), key=lambda entry: entry[0]):
        folder = path.partition("/")[0] if "/" in path else ""
        key = (folder, "" if folder else metadata_name(item.obj))
        group = groups.setdefault(key, _Group(folder))
        group.completed = max(group.completed, _completed(item)[0])
        group.wrong = group.wrong or _wrong(path, file, item)
        group.files[path] = (file, item)
    return list(groups.values())


def _wrong(path: str, file: JsonObject, item: Item) -> str:
    if not item.good:
        return f"{path} is tainted and not signed off, or its manifest is not signed"
    if not file.get("digest"):
        return f"{path} was not read before its volume was taken off the node"
    if json_object(item.obj.get("spec")).get("unlisted"):
        return f"files that were written with {path} are not listed: there were too many"
    return ""


def _point(group: _Group) -> Point:
    cut = len(group.folder) + 1 if group.folder else 0
    entries = [group.files[path] for path in sorted(group.files)]
    files = tuple((str(f.get("path"))[cut:], str(f.get("digest"))) for f, _ in entries)
    size = sum(len(canonical_bytes({"path": p, "digest": d})) + 1 for p, d in files)
    if len(files) > MAX_RESUME_FILES or size > MAX_RESUME_BYTES:
        raise NoPointError(
            f"its last checkpoint {group.folder} has {len(files)} files ({size} bytes of names and "
            f"digests), expected at most {MAX_RESUME_FILES} ({MAX_RESUME_BYTES} bytes)"
        )
    if group.folder and not _FOLDER.fullmatch(group.folder):
        raise NoPointError(f"no pod can mount its last checkpoint by the name {group.folder!r:.80}")
    items = {metadata_name(i.obj): i for _, i in group.files.values()}
    volumes = {
        (str(_volume(i).get("claim")), str(_volume(i).get("path") or "")) for i in items.values()
    }
    uids = {_claim_uid(i) for i in items.values()}
    if len(volumes) != 1 or len(uids) != 1:
        raise NoPointError(f"its last checkpoint {group.folder} lies on more than one volume")
    ((claim, path),) = volumes
    newest = sorted(items, key=lambda n: _completed(items[n]), reverse=True)
    return Point(
        group.folder, files, tuple(newest), claim, path, uids.pop(), tuple(f for f, _ in entries)
    )


def _claim_uid(item: Item) -> str:
    attested = json_object(json_object(item.obj.get("status")).get("attested"))
    return str(attested.get("claimUID") or "")


def _volume(item: Item) -> JsonObject:
    return json_object(json_object(item.obj.get("spec")).get("volume"))


def _completed(item: Item) -> tuple[str, str]:
    return str(json_object(item.obj.get("spec")).get("completed")), metadata_name(item.obj)
