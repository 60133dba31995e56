"""Tickets: who asked for a job, as the API server authenticated them.

The requester is known in the admission request only; so the mutating step stamps the TrainingJob
with a ticket signed by the webhook's key, and the seal takes it over. A ticket is bound to a job
digest (which holds namespace and name): copied onto another job, it does not verify.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

from trainseal.provenance.keyrings import (
    Keyring,
    UntrustedError,
    read_signed_text,
    read_time,
    rfc3339,
    signed_text,
)
from trainseal.provenance.keys import PrivateKey
from trainseal.provenance.requesters import MAX_GROUP, MAX_GROUPS, Requester, groups_kept

TICKET_TYPE = "application/vnd.trainseal.ticket.v1+json"
TICKET_ANNOTATION = "trainseal.dev/ticket"
#: A character takes up to four bytes, and base64 a third more.
MAX_TICKET_BYTES = 4096 + MAX_GROUPS * MAX_GROUP * 6


@dataclass(frozen=True, slots=True)
class Ticket:
    """Who asked (user name and UID), for which job digest, when. ``groups``: only where a rule may
    ask about them.
    """

    username: str
    uid: str
    job_digest: str
    time: datetime
    groups: tuple[str, ...] = ()

    @property
    def requester(self) -> Requester:
        """Whom rules are applied to."""
        return Requester(self.username, frozenset(self.groups))


def issue_ticket(key: PrivateKey, ticket: Ticket) -> str:
    """The ticket as annotation text: base64 of canonical JSON, a dot, base64 of the signature."""
    content: dict[str, JsonValue] = {
        "username": ticket.username,
        "uid": ticket.uid,
        "jobDigest": ticket.job_digest,
        "time": rfc3339(ticket.time),
    }
    if ticket.groups:
        content["groups"] = [*ticket.groups]
    return signed_text(key, TICKET_TYPE, content)


def read_ticket(keyring: Keyring, text: str, job_digest: str) -> Ticket:
    """The ticket of this job digest; raises UntrustedError where it is not ours or not its."""
    try:
        content = read_signed_text(
            keyring, text, TICKET_TYPE, time_field="time", max_bytes=MAX_TICKET_BYTES
        )
        if content.get("jobDigest") != job_digest:
            raise UntrustedError(f"it is for {content.get('jobDigest')}, this job is {job_digest}")
        return Ticket(
            str(content.get("username")),
            str(content.get("uid")),
            job_digest,
            read_time(str(content.get("time"))),
            groups_kept(groups if isinstance(groups := content.get("groups"), list) else ()),
        )
    except ValueError as error:
        raise UntrustedError(f"the requester's ticket does not count: {error}") from None
