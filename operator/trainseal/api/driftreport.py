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
    uid: ShortText


class Finding(Model):
    """One observed difference between the seal and what runs."""

    id: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][a-z0-9.-]*$", max_length=128)]
    severity: Literal["Info", "Warning", "Critical"]
    time: datetime
    container: ShortText | None = None
    path: Text | None = None
    message: Text
    process: Text | None = Field(default=None, description="Executable and its parents.")
    user: ShortText | None = Field(default=None, description="The Kubernetes user, where known.")
    evidence: dict[str, Text] | None = Field(default=None, max_length=32)


class DriftReportSpec(Model):
    """What the report is about."""

    pod: PodIdentity
    node: DnsSubdomain
    sealed_run: DnsSubdomain


class DriftReportStatus(Model):
    """The findings so far."""

    findings: list[Finding] | None = Field(default=None, max_length=512)
    dropped: int | None = Field(default=None, ge=0, description="Findings beyond the bound.")
    conditions: list[Condition] | None = Field(default=None, max_length=16)


class DriftReport(Resource):
    """A DriftReport object."""

    spec: DriftReportSpec
    status: DriftReportStatus | None = None
