"""Tickets: who asked for a job, as the API server authenticated them.

The requester is known in the admission request only; so the mutating step stamps the TrainingJob
with a ticket signed by the webhook's key, and the seal takes it over. A ticket is bound to a job
digest (which holds namespace and name): copied onto another job, it does not verify.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import datetime

from trainseal.provenance import strictjson
from trainseal.provenance.canonical import canonical_bytes
from trainseal.provenance.keyrings import (
    Keyring,
    UntrustedError,
    read_time,
    rfc3339,
    sign_as,
    verify_as,
)
from trainseal.provenance.keys import PrivateKey, key_id

TICKET_TYPE = "application/vnd.trainseal.ticket.v1+json"
TICKET_ANNOTATION = "trainseal.dev/ticket"
MAX_TICKET_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Ticket:
    """Who asked (user name and UID), for which job digest, when."""

    username: str
    uid: str
    job_digest: str
    time: datetime


def issue_ticket(key: PrivateKey, ticket: Ticket) -> str:
    """The ticket as annotation text: base64 of canonical JSON, a dot, base64 of the signature."""
    body = canonical_bytes(
        {
            "username": ticket.username,
            "uid": ticket.uid,
            "jobDigest": ticket.job_digest,
            "time": rfc3339(ticket.time),
            "keyID": key_id(key.public),
        }
    )
    return f"{base64.b64encode(body).decode()}.{sign_as(key, TICKET_TYPE, body)}"


def read_ticket(keyring: Keyring, text: str, job_digest: str) -> Ticket:
    """The ticket of this job digest; raises UntrustedError where it is not ours or not its."""
    try:
        if len(text) > MAX_TICKET_BYTES:
            raise UntrustedError(f"found {len(text)} bytes, expected at most {MAX_TICKET_BYTES}")
        encoded, _, signature = text.partition(".")
        body = base64.b64decode(encoded, validate=True)
        content = strictjson.parse(body, max_bytes=MAX_TICKET_BYTES)
        if not isinstance(content, dict):
            raise UntrustedError("found no JSON object")
        time = str(content.get("time"))
        verify_as(keyring, str(content.get("keyID")), time, TICKET_TYPE, body, signature)
        if content.get("jobDigest") != job_digest:
            raise UntrustedError(f"it is for {content.get('jobDigest')}, this job is {job_digest}")
        return Ticket(
            str(content.get("username")), str(content.get("uid")), job_digest, read_time(time)
        )
    except ValueError as error:
        raise UntrustedError(f"the requester's ticket does not count: {error}") from None
