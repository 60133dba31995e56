"""HoldRelease: a person lifts the hold that a finding put on a run; created, never changed.

Who may create one may lift holds: that is the whole permission, and RBAC gives it (the chart's
role `trainseal-responder`). It names the hold it lifts, so that it lifts what its author saw and
nothing that came later. It has no owner reference: evidence outlives the job.
"""

from __future__ import annotations

from pydantic import Field

from trainseal.api.model import DnsSubdomain, Model, Resource, ShortText, Text
from trainseal.api.sealedrun import Mark

PLURAL = "holdreleases"


class HoldReleaseSpec(Model):
    """Whose hold is lifted, by whom and why."""

    sealed_run: DnsSubdomain
    """Name of the seal whose run is held."""
    hold: Mark = Field(description="The hold's `id`, from the seal's `status.hold`.")
    user: ShortText
    """Who lifts it: the user who creates this object. The API server compares the two."""
    reason: Text = Field(min_length=1)
    """Why the run may go on, for who reads it later."""


class HoldRelease(Resource):
    """A HoldRelease object."""

    spec: HoldReleaseSpec
