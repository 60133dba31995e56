"""StackRequest: a person asks for the Python stacks of a run; created, never changed.

The agents answer with a StackDump for each pod of the run. The request is on record in the name of
who asked, and goes after an hour, with the dumps that were made for it. Its name ends with the
minute it is made in, by the API server's clock: one request a minute and run.
"""

from __future__ import annotations

from datetime import UTC, datetime

from trainseal.api.model import DnsSubdomain, Model, Resource, ShortText

PLURAL = "stackrequests"


class StackRequestSpec(Model):
    """Whose stacks are wanted, and who asks."""

    sealed_run: DnsSubdomain
    """Name of the seal whose run is looked at."""
    user: ShortText
    """Who asks: the user who creates this object. The API server compares the two."""


class StackRequest(Resource):
    """A StackRequest object."""

    spec: StackRequestSpec


def name_of(seal: str, time: datetime) -> str:
    """The request's name in that minute. Of two names of one run the later is the greater."""
    return f"{seal}-{time.astimezone(UTC):%Y%m%d%H%M}"
