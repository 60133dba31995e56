"""HoldRelease: a person answers for what a finding held; created, never changed.

It lifts the hold that a finding put on a run, or signs off checkpoints that the run wrote after
one, or it reviews a BreakGlass. Who may create one may do all three: that is the whole permission,
and RBAC gives it (the chart's role `trainseal-responder`). It names the hold, the checkpoints or
the BreakGlass, so that it lifts what its author saw and nothing that came later. It has no owner
reference: evidence outlives the job.
"""

from __future__ import annotations

from pydantic import Field

from trainseal.api.model import DnsSubdomain, Model, Resource, ShortText, Text
from trainseal.api.sealedrun import Mark

PLURAL = "holdreleases"
#: Checkpoints that one release signs off, at most.
MAX_CHECKPOINTS = 1024


class HoldReleaseSpec(Model):
    """What is lifted, by whom and why: exactly one of `hold`, `checkpoints`, `breakGlass`."""

    sealed_run: DnsSubdomain
    """Name of the seal whose run it is about."""
    hold: Mark | None = Field(
        default=None, description="The hold's `id`, from the seal's `status.hold`."
    )
    checkpoints: list[DnsSubdomain] | None = Field(
        default=None, min_length=1, max_length=MAX_CHECKPOINTS
    )
    """Names of the run's tainted Checkpoints that a job may go on from."""
    break_glass: DnsSubdomain | None = None
    """Name of the BreakGlass whose uses until now are reviewed."""
    user: ShortText
    """Who lifts it: the user who creates this object. The API server compares the two."""
    reason: Text = Field(min_length=1)
    """Why it may go on, for who reads it later."""


class HoldRelease(Resource):
    """A HoldRelease object."""

    spec: HoldReleaseSpec
