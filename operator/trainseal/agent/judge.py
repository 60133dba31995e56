"""What an act on a file amounts to. Pure.

The rules, in order:

1. What runs must be the image's or the signed code's: a program from a writable mount, from memory
   or written since the container was made is foreign, whoever runs it.
2. Where the trainer may write (scratch, checkpoints, ``/dev``, ``/proc``, ``/sys``, the platform's
   own mounts) nothing else is a difference.
3. A name that the image or a signed mount has: changed, removed, replaced, its attributes.
4. A new name: moved or linked from elsewhere, byte code, something that is imported or loaded,
   any other file.

A file that is gone again when it is looked at is judged all the same: it was there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trainseal.agent.bytecode import Bytecode, partial, source_of
from trainseal.agent.layers import Kind
from trainseal.agent.observed import Act, FileEvent, Observation, WatchedContainer
from trainseal.api.findings import FindingId

_SYSTEM = ("/dev", "/proc", "/sys")


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of the file beside the event.

    ``kind``: what is there now, None for nothing. ``signed``: the image or a signed mount has the
    name. ``written``: put there since the container was made. ``same``: the content is the signed
    one; None where there is nothing to compare with. ``from_beside``: renamed from a new name in
    the same directory, as editors do. ``platform``: in a mount without a role. ``memory``: of
    those, a file system in memory; ``writable``: one that can be written to. ``emptied``: a
    directory whose signed content is hidden. ``attributes``: those that are not as signed, in
    words. ``hidden``: no path of the container leads to the file, the path is another view's and
    excuses nothing.
    """

    kind: Kind | None = "file"
    signed: bool = False
    written: bool = False
    same: bool | None = None
    links: int = 1
    imports: bool = False
    from_beside: bool = False
    platform: bool = False
    memory: bool = False
    writable: bool = False
    emptied: bool = False
    hidden: bool = False
    bytecode: Bytecode | None = None
    attributes: Mapping[str, str] = field(default_factory=dict)


def judge(event: FileEvent, container: WatchedContainer, facts: Facts) -> Observation | None:
    """The difference that the act makes, None where it makes none."""
    if facts.hidden:
        return _hidden(event)
    if event.act is Act.EXECUTED:
        return _executed(event, container, facts)
    if unjudged(event.path, container) or facts.platform:
        return None
    if event.act is Act.ATTRIBUTES:
        return _attributes(event, facts)
    if event.act in (Act.DELETED, Act.MOVED_FROM):
        return _gone(event, facts)
    if event.directory:
        return None  # what is in it is judged by itself
    return _content(event, facts)


def unjudged(path: str, container: WatchedContainer) -> bool:
    """Whether files may change there as they like."""
    mount = container.mount_of(path)
    if mount is not None:
        return mount.writable
    return any(path == top or path.startswith(f"{top}/") for top in _SYSTEM)


def _hidden(event: FileEvent) -> Observation:
    ran = event.act is Act.EXECUTED
    return Observation(
        FindingId.EXEC_FOREIGN if ran else FindingId.FILE_CHANGED,
        f"a file of the container was {event.act} through another view of it: {event.path}",
        # It is no path of the container: no exception for a place may cover it.
        evidence={"seen as": event.path},
        subject=event.path,
    )


def _executed(event: FileEvent, container: WatchedContainer, facts: Facts) -> Observation | None:
    mount = container.mount_of(event.path)
    if mount is not None and mount.writable:
        where = f"from the {mount.role} mount {mount.path}"
    elif facts.memory:
        where = "from a file system in memory"
    elif facts.writable:
        where = "from a writable mount of the runtime's"
    elif facts.platform:
        return None
    elif facts.written and not (facts.signed and facts.same):
        where = "that was written after the container was made"
    else:
        return None
    return Observation(
        FindingId.EXEC_FOREIGN,
        f"a program ran {where}: {event.path}",
        path=event.path,
        # Who runs it is its caller still, or the program already: a sweep sees the latter.
        subject=event.path,
    )


def _attributes(event: FileEvent, facts: Facts) -> Observation | None:
    if not (facts.signed and facts.kind and facts.attributes):
        return None
    return Observation(
        FindingId.FILE_ATTRIBUTES,
        f"{', '.join(facts.attributes)} changed: {event.path}",
        path=event.path,
        evidence=facts.attributes,
    )


def _gone(event: FileEvent, facts: Facts) -> Observation | None:
    if not facts.signed or (facts.kind is not None and not facts.emptied):
        return None
    what = "content of the directory " if facts.emptied else ""
    how = "moved away" if event.act is Act.MOVED_FROM else "removed"
    return Observation(FindingId.FILE_REMOVED, f"{what}{event.path} was {how}", path=event.path)


def _content(event: FileEvent, facts: Facts) -> Observation | None:
    path, act = event.path, event.act
    if partial(path):
        return None  # no name that Python loads; judged under the name it gets
    if act is Act.CREATED and facts.links > 1:
        return _brought(path, "linked")
    if act is Act.MOVED_TO and not facts.from_beside:
        return _brought(path, "moved")
    if facts.bytecode is not None:
        return _bytecode(path, facts.bytecode)
    if facts.signed:
        return _changed(path, act, facts)
    gone = "" if facts.kind else "; it is gone again"
    if facts.imports:
        return Observation(
            FindingId.IMPORT_CHANGED, f"{path} is new, and code is loaded from it{gone}", path=path
        )
    return Observation(FindingId.FILE_CREATED, f"{path} is new{gone}", path=path)


def _brought(path: str, how: str) -> Observation:
    return Observation(
        FindingId.FILE_RENAMED, f"a file from elsewhere was {how} to {path}", path=path
    )


def _changed(path: str, act: Act, facts: Facts) -> Observation | None:
    if act is Act.CLOSED:
        if facts.same:
            return None
        # No write was seen under this name: a mapping, or one that was moved here meanwhile.
        how = "changed" if facts.same is False else "open for writing"
    elif act is Act.WRITTEN:
        how = "written, and is as it was again" if facts.same else "written"
    else:
        how = "replaced"
    if facts.kind is None:
        how += ", and is gone"
    return Observation(FindingId.FILE_CHANGED, f"{path} was {how}", path=path)


def _bytecode(path: str, found: Bytecode) -> Observation | None:
    if found.matches is None:
        return None
    finding = FindingId.BYTECODE_WRITTEN if found.matches else FindingId.BYTECODE_MISMATCH
    return Observation(
        finding,
        f"{path}: {found.why}",
        path=path,
        evidence={"source": source_of(path) or "none", "comparison": found.why},
    )
