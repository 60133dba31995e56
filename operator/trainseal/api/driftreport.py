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
    Condition,
    DnsSubdomain,
    Model,
    Resource,
    ShortText,
    Text,
)

PLURAL = "driftreports"

FindingName = Annotated[
    str, StringConstraints(pattern=r"^[a-z][a-z-]*\.[a-z][a-z-]*$", max_length=64)
]
FindingKey = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$", max_length=16)]


class PodIdentity(Model):
    """The pod, by name and UID."""

    name: DnsSubdomain
    """`metadata.name`."""
    uid: ShortText
    """`metadata.uid`."""


class ProcessRecord(Model):
    """A process, as it was when it was seen."""

    pid: int = Field(ge=0)
    """In the node's own PID namespace."""
    executable: Text
    """`/proc/PID/exe`, as the container sees it."""
    command: list[Text] | None = Field(default=None, max_length=16)
    """The command line's first words, each cut to 1024 characters."""
    uid: int | None = Field(default=None, ge=0, description="Effective user id.")


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
    last_time: datetime
    """When it was last seen."""
    count: int = Field(ge=1)
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
    evidence: dict[str, Text] | None = Field(default=None, max_length=16)
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


class DriftReportStatus(Model):
    """The findings so far."""

    findings: list[Finding] | None = Field(default=None, max_length=256)
    """In the order they were first seen."""
    dropped: int | None = Field(default=None, ge=0)
    """Findings beyond the bound: counted and logged by who reports, not listed."""
    evidence_dropped: int | None = Field(default=None, ge=0, le=2**53 - 1)
    """Findings of which no EvidenceItem was made, for there was no room or it was refused."""
    conditions: list[Condition] | None = Field(default=None, max_length=16)
    """`Watching`: whether the watch is whole, and what it cannot see."""


class DriftReport(Resource):
    """A DriftReport object."""

    spec: DriftReportSpec
    status: DriftReportStatus | None = None
