"""EvidenceItem: what a finding was made from; written once by the agent of the node, never changed.

A DriftReport says what was found. This holds what a pod's end would take away: the file's bytes as
they were read for the finding, and the processes with their environment, secrets masked, and the
files they had mapped. It is named by the pod, its UID and the finding's key. It has no owner
reference: evidence outlives the job.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from trainseal.api.driftreport import FindingKey, FindingName, PodIdentity
from trainseal.api.model import Count, Digest, DnsSubdomain, Model, Resource, ShortText, Text

PLURAL = "evidenceitems"

#: Of a whole object as JSON. The builder keeps it; the fields' own bounds add up to more.
MAX_BYTES = 256 * 1024
MAX_PROCESSES = 64
MAX_WORDS = 32
MAX_VARIABLES = 256
MAX_MAPS = 256
#: Bytes of the file, unpacked.
MAX_KEPT = 512 * 1024
#: Characters of base64.
MAX_CONTENT = 192 * 1024


class FindingReference(Model):
    """A finding of the pod's DriftReport."""

    id: FindingName
    """What was seen, such as `file.changed`."""
    key: FindingKey
    """Which finding of that id it is."""


class FileEvidence(Model):
    """The file that the finding is about."""

    path: Text
    """As the container sees it."""
    state: Literal["Kept", "Gone", "Unreadable", "NotAFile"]
    """`Kept`: it was read. `Gone`: it was away when it was looked at. `NotAFile`: a directory, a
    link or a device has its name."""
    digest: Digest | None = None
    """Of the whole file as it was read; absent where it has more than 64 MiB."""
    found_digest: Digest | None = None
    """The digest in the finding, where it is another: the file changed between the two looks."""
    signed_digest: Digest | None = None
    """Of the file as the image or the signed tree has it."""
    size: Count | None = None
    """Bytes of the whole file."""
    mode: Annotated[str, StringConstraints(pattern=r"^[0-7]{4}$", max_length=4)] | None = None
    """Its permissions, in octal."""
    unsteady: bool | None = None
    """It was written to while it was read: the bytes are no one state of it."""
    content: (
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]*={0,2}$", max_length=MAX_CONTENT)]
        | None
    ) = None
    """The bytes as they were read, secrets in them included: gzip, then base64."""
    content_size: int | None = Field(default=None, ge=0, le=MAX_KEPT)
    """How many bytes of the file `content` holds, from its beginning."""
    truncated: bool | None = None
    """The file has more bytes than `content` holds."""


class Variable(Model):
    """A variable of a process's environment."""

    name: ShortText
    """Its name; where that is no plain name, how long it is."""
    value: Text
    """Its value where that is known to be harmless or decides which code is loaded; else how long
    it is, as `(8 characters)`."""


class MappedFile(Model):
    """A file, or memory that code can run from, in a process's memory."""

    path: Text
    """As the kernel shows it; `(anonymous)`: executable memory without a file."""
    rights: Annotated[str, StringConstraints(pattern=r"^[r-][w-][x-][ps]$", max_length=4)]
    """What any of its mappings allows, as in `/proc/PID/maps`; `s` where one is shared."""


class ProcessEvidence(Model):
    """A process, as it was when evidence was taken."""

    pid: int = Field(ge=0, le=2**22)
    """In the node's own PID namespace."""
    parent: int = Field(ge=0, le=2**22)
    """Its parent's."""
    started_at: datetime
    """When it started: with `pid` it identifies the process."""
    executable: Text
    """`/proc/PID/exe`, as the container sees it."""
    command: list[Text] | None = Field(default=None, max_length=MAX_WORDS)
    """The command line's first words, secrets masked."""
    uid: int | None = Field(default=None, ge=0, le=2**32 - 1, description="Effective user id.")
    acting: bool | None = None
    """It did what was found, or is a parent of who did."""
    ended: bool | None = None
    """It was gone before its environment and maps could be read."""
    environment: list[Variable] | None = Field(default=None, max_length=MAX_VARIABLES)
    """Read of the processes that acted. As it was at the start of the program."""
    environment_omitted: Count | None = None
    """Variables beyond the bounds."""
    maps: list[MappedFile] | None = Field(default=None, max_length=MAX_MAPS)
    """Each mapped file once; those that code runs from first."""
    maps_omitted: Count | None = None
    """Mapped files beyond the bounds."""


class EvidenceItemSpec(Model):
    """What was taken for one finding."""

    sealed_run: DnsSubdomain
    """Name of the seal."""
    node: DnsSubdomain
    """The agent's own node."""
    pod: PodIdentity
    """The pod that is watched."""
    container: ShortText | None = None
    """Absent: the whole pod."""
    finding: FindingReference
    """What it was taken for."""
    taken_at: datetime
    """When the processes were looked at. The file was read with the finding, or then."""
    file: FileEvidence | None = None
    """Absent: the finding is about no file."""
    processes: list[ProcessEvidence] | None = Field(default=None, max_length=MAX_PROCESSES)
    """Who acted, from the process that did it upwards; then all others of the container."""
    processes_omitted: Count | None = None
    """Processes beyond the bounds."""


class EvidenceItem(Resource):
    """An EvidenceItem object."""

    spec: EvidenceItemSpec


def name_of(pod: str, uid: str, key: str) -> str:
    """The item's name: the same for the same finding, so that a restart writes nothing twice.

    ``pod`` is cut where the whole would be longer than a name may be.
    """
    return f"{pod[:227].rstrip('-.')}-{uid[:8]}-{key}"
