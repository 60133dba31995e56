"""What the agent's parts hand to each other: the watched container, an event, what it amounts to.

Values only. Paths are as the container sees them unless said otherwise; pids are the node's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Literal

from trainseal.agent.files import Content
from trainseal.api.findings import FindingId

Role = Literal["code", "config", "data", "checkpoints", "scratch"]


@dataclass(frozen=True, slots=True)
class RoleMount:
    """A mount of the sealed pod with its role; ``path`` in the container."""

    path: str
    role: Role
    name: str

    @property
    def writable(self) -> bool:
        """Whether the trainer may write there."""
        return self.role in ("checkpoints", "scratch")


@dataclass(frozen=True, slots=True)
class WatchedContainer:
    """A running container of a sealed pod on this node.

    ``pid`` is its first process. ``env`` holds the sealed variables; None stands for a value that
    is only known at run time (a field or Secret reference). ``started`` is when the first process
    started. ``added``: it is none of the signed template's, a platform added it.
    """

    namespace: str
    pod: str
    pod_uid: str
    seal: str
    container: str
    container_id: str
    pid: int
    started: datetime
    mounts: tuple[RoleMount, ...]
    env: Mapping[str, str | None]
    added: bool = False

    @property
    def root(self) -> str:
        """Its root directory, from the agent's own view."""
        return f"/proc/{self.pid}/root"

    def mount_of(self, path: str) -> RoleMount | None:
        """The innermost role mount that ``path`` lies in."""
        inside = [m for m in self.mounts if path == m.path or path.startswith(f"{m.path}/")]
        return max(inside, key=lambda m: len(m.path), default=None)


class Act(StrEnum):
    """What was done to a file."""

    WRITTEN = "written"
    #: Closed by someone who could write: a shared mapping may have changed it without a write.
    CLOSED = "closed after being open for writing"
    CREATED = "created"
    DELETED = "deleted"
    MOVED_FROM = "moved away"
    MOVED_TO = "moved or linked here"
    ATTRIBUTES = "attributes changed"
    EXECUTED = "executed"


@dataclass(frozen=True, slots=True)
class FileEvent:
    """One act on one file, seen in one container. ``pid`` may be gone already."""

    act: Act
    path: str
    pid: int
    directory: bool = False


@dataclass(frozen=True, slots=True)
class Process:
    """A process as it was when it was looked at.

    ``started`` identifies it together with ``pid``. ``container_id`` is that of its cgroup, None
    outside of containers. ``executable`` is the target of ``/proc/PID/exe``.
    """

    pid: int
    parent: int
    started: datetime
    executable: str
    command: tuple[str, ...]
    uid: int
    container_id: str | None


@dataclass(frozen=True, slots=True)
class Lineage:
    """A process, its parents up to where its container begins, and how it came in.

    ``session`` is the first process of the exec session (or of whatever else entered) that
    ``chain[0]`` descends from; None for descendants of the container's first process.
    """

    chain: tuple[Process, ...]
    session: Process | None = None


@dataclass(frozen=True, slots=True)
class Profile:
    """What a container has beside what was sealed, excepted or not, as names and values; for the
    controller, which compares the ranks of a role with each other.

    ``files``: of the container's layer; None while they are not known. ``code``: seen since the
    start. ``environment``: of the first process. What came last is last.
    """

    files: Mapping[str, str] | None
    code: Mapping[str, str]
    environment: Mapping[str, str]


#: Name in the evidence of what was found by looking, and text: whoever did it did not do it in the
#: container while its events were told, or did it where there are none.
FOUND_BY = "found by"
LOOKING = "looking at the container's layer; no event told of it"
READING = "reading the signed files again"
MOUNTED = "the container's table of mounts; mounting takes rights on the node"
HASHING = "reading the checkpoints again; no event told of it"


@dataclass(frozen=True, slots=True)
class Observation:
    """A difference that was seen, before policies are asked about it."""

    finding: FindingId
    message: str
    path: str | None = None
    lineage: Lineage | None = None
    evidence: Mapping[str, str] = field(default_factory=dict)
    difference: str | None = None
    #: What tells this finding from others of its id; by default path and executable.
    subject: str | None = None
    #: The file as it was read for this; None where it was not, or not kept.
    content: Content | None = field(default=None, repr=False, compare=False)
    #: A link of the kernel's to the file, for one that has no path any more.
    source: str | None = field(default=None, compare=False)
    #: When it was surely not so yet; None where nobody can say.
    not_before: datetime | None = field(default=None, compare=False)
