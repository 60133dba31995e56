"""DriftReport: findings on one pod, written by the agent of its node."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from trainseal.api.model import Condition, DnsSubdomain, Model, Resource, ShortText, Text

PLURAL = "driftreports"


class PodIdentity(Model):
    """The pod, by name and UID."""

    name: DnsSubdomain
    """`metadata.name`."""
    uid: ShortText
    """`metadata.uid`."""


class Finding(Model):
    """One observed difference between the seal and what runs."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=128)]
    """Stable name of what was seen, such as `file.written`."""
    severity: Literal["Info", "Warning", "Critical"]
    """What the policy's responses go by."""
    time: datetime
    """When it was seen."""
    container: ShortText | None = None
    """Absent: the whole pod."""
    path: Text | None = None
    """The file, as the container sees it."""
    message: Text
    """What was found and what the seal says."""
    process: Text | None = Field(default=None, description="Executable and its parents.")
    user: ShortText | None = Field(default=None, description="The Kubernetes user, where known.")
    evidence: dict[str, Text] | None = Field(default=None, max_length=32)
    """Further facts, by name."""


class DriftReportSpec(Model):
    """What the report is about."""

    pod: PodIdentity
    """The pod that was watched."""
    node: DnsSubdomain
    """The node it runs on; the agent's own."""
    sealed_run: DnsSubdomain
    """Name of the pod's seal."""


class DriftReportStatus(Model):
    """The findings so far."""

    findings: list[Finding] | None = Field(default=None, max_length=512)
    """In the order they were seen."""
    dropped: int | None = Field(default=None, ge=0, description="Findings beyond the bound.")
    conditions: list[Condition] | None = Field(default=None, max_length=16)
    """Whether the watch is whole."""


class DriftReport(Resource):
    """A DriftReport object."""

    spec: DriftReportSpec
    status: DriftReportStatus | None = None
