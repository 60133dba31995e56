"""AccessRecord: one access to a sealed pod; created by the webhook, never updated."""

from __future__ import annotations

from datetime import datetime
from typing import Literal

from pydantic import Field

from trainseal.api.driftreport import PodIdentity
from trainseal.api.model import DnsSubdomain, Model, Resource, ShortText, Text

PLURAL = "accessrecords"


class AccessRecordSpec(Model):
    """Who did what to which pod, when."""

    pod: PodIdentity
    """The pod that was reached for."""
    sealed_run: DnsSubdomain
    """Name of the pod's seal."""
    action: Literal["Exec", "Attach", "PortForward", "Proxy", "EphemeralContainer", "Delete"]
    """What was asked for."""
    username: ShortText
    """Who asked, as the API server saw them."""
    user_uid: ShortText | None = Field(default=None, alias="userUID")
    """UID of the user, where the authenticator gives one."""
    groups: list[ShortText] | None = Field(default=None, max_length=64)
    """Groups of the user; the first 64."""
    command: list[Text] | None = Field(default=None, max_length=64)
    """What exec was to run."""
    container: ShortText | None = None
    """Absent: the pod's default container."""
    allowed: bool
    """Whether it was admitted."""
    time: datetime
    """When it was asked."""


class AccessRecord(Resource):
    """An AccessRecord object."""

    spec: AccessRecordSpec
