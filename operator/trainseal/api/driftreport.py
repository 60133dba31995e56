"""DriftReport: findings on one sealed pod, or on one run as the API shows it.

The agent of a node writes one for each sealed pod that runs there; the controller writes one a
SealedRun for what it sees in the API. It carries no owner reference: evidence outlives the job.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from trainseal.api.findings import Severity
from trainseal.api.model import (
    MAX_COUNT,
    Condition,
    Count,
    Digest,
    DnsSubdomain,
    Model,
    Resource,
    ShortText,
    Text,
)

PLURAL = "driftreports"
#: What of a profile is listed one by one.
MAX_PROFILE_ENTRIES = 32
MAX_PROFILES = 64

FindingName = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z-]*\.[a-z][a-z-]*$", max_length=64)
]
"""A finding's id in what is written: a pattern, and not the list in :mod:`findings`.

The set grows with releases, and CRDs, agents and controller are not upgraded in one moment. With
the list in the schema, an agent that is newer than the CRD could not report what it sees, and an
older reader would call a whole report unreadable for one finding that it does not know. What a
person writes, a policy's exceptions, is held to the list: there an unknown id is a mistake.
"""

EvidenceName = Annotated[str, StringConstraints(max_length=64)]
FindingKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$", max_length=16)]


class PodIdentity(Model):
    """The pod, by name and UID."""

    name: DnsSubdomain
    """`metadata.name`."""
    uid: ShortText
    """`metadata.uid`."""


class ProcessRecord(Model):
    """A process, as it was when it was seen."""

    pid: int = Field(ge=0, le=2**22)
    """In the node's own PID namespace."""
    executable: Text
    """`/proc/PID/exe`, as the container sees it."""
    command: list[Text] | None = Field(default=None, max_length=16)
    """The command line's first words, secrets masked, each cut to 1024 characters."""
    uid: int | None = Field(default=None, ge=0, le=2**32 - 1, description="Effective user id.")


class Finding(Model):
    """One observed difference between the seal and what runs."""

    id: FindingName
    """Stable name of what was seen, such as `file.changed`."""
    key: FindingKey
    """Which finding of that id this is: the same thing seen again has the same key."""
    severity: Severity
    """What the policy's responses go by."""
    first_time: datetime
    """When it was first seen."""
    not_before: datetime | None = None
    """When it was surely not so yet. What is told by an event was done a moment before it was seen;
    what is found by looking, at any time since an earlier look. Absent: nobody can say, so at any
    time since the run began."""
    last_time: datetime
    """When it was last seen."""
    count: int = Field(ge=1, le=MAX_COUNT)
    """How often it was seen."""
    container: ShortText | None = None
    """Absent: the whole pod, or the run."""
    path: Text | None = None
    """The file, as the container sees it."""
    message: Text
    """What was found and what the seal says."""
    processes: list[ProcessRecord] | None = Field(default=None, max_length=8)
    """Who did it, then its parents."""
    user: ShortText | None = None
    """The Kubernetes user who opened the session, where known."""
    access_record: DnsSubdomain | None = None
    """Name of the AccessRecord that names the user."""
    evidence: dict[EvidenceName, Text] | None = Field(default=None, max_length=16)
    """Further facts, by name."""
    difference: Annotated[str, StringConstraints(max_length=8192)] | None = None
    """How the text differs from the signed one, as a unified diff."""
    evidence_item: DnsSubdomain | None = None
    """Name of the EvidenceItem with the file's bytes and the processes, once it is written."""


class DriftReportSpec(Model):
    """What the report is about."""

    reporter: Literal["Agent", "Controller"]
    """Who writes it."""
    sealed_run: DnsSubdomain
    """Name of the seal."""
    node: DnsSubdomain | None = None
    """The agent's own node. Absent: the controller reports."""
    pod: PodIdentity | None = None
    """The pod that is watched. Absent: the run as a whole."""


class ProfileEntry(Model):
    """One thing that a container has and its seal does not say."""

    name: Text
    """A file, a place that code comes from, or a variable."""
    value: Text
    """The file's digest or what became of it, the variable's value; empty where the name is all."""


class ProfilePart(Model):
    """All such things of one kind."""

    digest: Digest
    """Over all of them, so that two pods can be told apart whatever is listed."""
    count: Count
    """How many there are."""
    entries: list[ProfileEntry] | None = Field(default=None, max_length=MAX_PROFILE_ENTRIES)
    """Those that came last, by name."""


class ContainerProfile(Model):
    """What a container has beside what was sealed, whether a policy excepts it or not."""

    container: ShortText
    """Its name."""
    started: datetime
    """When its first process began."""
    files: ProfilePart | None = None
    """Files of the image that are changed or gone, and new ones that code is loaded from by their
    name. Absent: not known, or not yet."""
    code: ProfilePart
    """Code that ran and is of no signed place, and what made processes load it, since the start."""
    environment: ProfilePart
    """Variables of the first process that name code, as it has them now."""


class DriftReportStatus(Model):
    """The findings so far."""

    findings: list[Finding] | None = Field(default=None, max_length=256)
    """In the order they were first seen."""
    dropped: Count | None = None
    """Findings beyond the bound: counted and logged by who reports, not listed."""
    evidence_dropped: Count | None = None
    """Findings of which no EvidenceItem was made, for there was no room or it was refused."""
    conditions: list[Condition] | None = Field(default=None, max_length=16)
    """`Watching`: whether the watch is whole, and what it cannot see."""
    profiles: list[ContainerProfile] | None = Field(default=None, max_length=MAX_PROFILES)
    """One a container, for the controller to compare with those of the other ranks."""


class DriftReport(Resource):
    """A DriftReport object."""

    spec: DriftReportSpec
    status: DriftReportStatus | None = None
