"""Who chose how many pods an elastic role has: on the TrainingJob, signed by the webhook.

``spec.scheduling`` is not signed, and the API server says who changes it in the admission request
only. So the mutating step notes who changed ``spec.scheduling.replicas``, and to what, in an
annotation; the controller takes it over into the epoch that follows. A note is bound to a job
digest (which holds namespace and name) and to the numbers: beside others it does not count.
"""

from __future__ import annotations

from collections.abc import Mapping
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

CHOICE_TYPE = "application/vnd.trainseal.choice.v1+json"
CHOICE_ANNOTATION = "trainseal.dev/choice"
MAX_CHOICE_BYTES = 8192


@dataclass(frozen=True, slots=True)
class Choice:
    """Who chose what for which job digest, and when. ``replicas`` is what the field says; empty
    where it was taken away.
    """

    username: str
    job_digest: str
    replicas: Mapping[str, JsonValue]
    time: datetime


def note_choice(key: PrivateKey, choice: Choice) -> str:
    """The choice as annotation text."""
    return signed_text(
        key,
        CHOICE_TYPE,
        {
            "username": choice.username[:256],
            "jobDigest": choice.job_digest,
            "replicas": dict(choice.replicas),
            "time": rfc3339(choice.time),
        },
    )


def read_choice(
    keyring: Keyring, text: str, job_digest: str, replicas: Mapping[str, JsonValue]
) -> Choice:
    """The note on this choice; raises UntrustedError where it is not ours, or on another."""
    try:
        content = read_signed_text(
            keyring, text, CHOICE_TYPE, time_field="time", max_bytes=MAX_CHOICE_BYTES
        )
        if content.get("jobDigest") != job_digest:
            raise UntrustedError(f"it is for {content.get('jobDigest')}, this job is {job_digest}")
        if content.get("replicas") != dict(replicas):
            raise UntrustedError("it is on other numbers")
        time = read_time(str(content.get("time")))
    except ValueError as error:
        raise UntrustedError(f"the note on who chose does not count: {error}") from None
    return Choice(str(content.get("username")), job_digest, replicas, time)
