"""What the parts that keep manifests of checkpoints hand to each other. Values only."""

from __future__ import annotations

from dataclasses import dataclass

from trainseal.agent.observed import Lineage
from trainseal.api.checkpoint import Writer
from trainseal.provenance.fileforms import Judged

Key = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Stamp:
    """A file as ``stat`` has it; ``changed`` is its ctime, nanoseconds since 1970: no program can
    set that. Two stamps are equal where nobody wrote to the file in between.
    """

    device: int
    inode: int
    size: int
    changed: int

    @property
    def key(self) -> Key:
        """Identifies the file whatever its name."""
        return self.device, self.inode


@dataclass(frozen=True, slots=True)
class Written:
    """An event: a file that was open for writing was closed. ``path`` within the mount, as then."""

    key: Key
    path: str
    writer: Writer
    lineage: Lineage | None = None


@dataclass(frozen=True, slots=True)
class Known:
    """What a manifest says of a file. ``changed`` in microseconds; ``ours``: of this very pod."""

    digest: str | None
    size: int
    changed: int
    manifest: str
    ours: bool = False
    writer: Writer = "Trainer"


@dataclass(frozen=True, slots=True)
class Completed:
    """A file for a manifest. Without a digest it could not be read any more; ``judged`` is what
    its bytes are, None where it was not looked at.
    """

    path: str
    stamp: Stamp
    digest: str | None
    writer: Writer
    lineage: Lineage | None = None
    judged: Judged | None = None


@dataclass(frozen=True, slots=True)
class Replaced:
    """A file whose content is not what its manifest says. ``sure``: somebody was seen to do it;
    else the caller asks whether another pod's manifest explains it, and answers. ``unseen``: who
    did it was gone before they could be looked at, and may be the trainer's own: it counts where
    an access names the file.
    """

    path: str
    stamp: Stamp
    signed: str
    found: str
    manifest: str
    lineage: Lineage | None = None
    sure: bool = False
    unseen: bool = False


@dataclass(frozen=True, slots=True)
class Batch:
    """The files of one manifest, names that are gone, and how many found no room."""

    files: tuple[Completed, ...]
    removed: tuple[str, ...] = ()
    unlisted: int = 0
