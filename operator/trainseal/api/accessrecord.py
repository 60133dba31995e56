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
    sealed_run: DnsSubdomain
    action: Literal["Exec", "Attach", "PortForward", "Proxy", "EphemeralContainer", "Delete"]
    username: ShortText
    user_uid: ShortText | None = Field(default=None, alias="userUID")
    groups: list[ShortText] | None = Field(default=None, max_length=64)
    command: list[Text] | None = Field(default=None, max_length=64)
    container: ShortText | None = None
    allowed: bool
    time: datetime


class AccessRecord(Resource):
    """An AccessRecord object."""

    spec: AccessRecordSpec
