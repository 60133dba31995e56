"""BreakGlass: for a while one person may get into the pods of one run; created, never changed.

Where a policy's `access` says `BreakGlass`, nobody gets in that way without one. It says who gets
in, why, until when, and who answers for it: the person who creates it. Each use of it is a finding
on the run, and the run's checkpoints are tainted until somebody else has reviewed it, by a
HoldRelease that names it. It has no owner reference: evidence outlives the job.
"""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from trainseal.api.accessrecord import Way
from trainseal.api.model import DnsSubdomain, Model, Resource, ShortText, Text

PLURAL = "breakglasses"
#: The longest that the API server takes, whatever a policy allows.
MAX_SECONDS = 86400


class BreakGlassSpec(Model):
    """Who may get into which run's pods, until when and why, and who answers for it."""

    sealed_run: DnsSubdomain
    """Name of the seal whose run it opens."""
    user: ShortText
    """Who may get in, by user name. Nobody else may by it."""
    ways: list[Way] | None = Field(
        default=None,
        min_length=1,
        max_length=8,
        description="Ways in that it opens. Absent: each for which the policy says `BreakGlass`.",
    )
    reason: Text = Field(min_length=1)
    """Why, for who reviews it."""
    not_after: datetime
    """Until when: at most a day from now, and no longer than the policy allows."""
    approved_by: ShortText
    """Who answers for it: the user who creates this object. The API server compares the two."""


class BreakGlass(Resource):
    """A BreakGlass object."""

    spec: BreakGlassSpec
