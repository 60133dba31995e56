"""Jobs that wait for signatures: who is missing, and until when. Pure.

A policy lets a job be created before all have signed it (``spec.pending``). It has no seal and no
objects; each time its signatures change it is verified anew, all of it. What the time counts from
is the ticket: when it was submitted, by the webhook's signed word.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from pydantic import JsonValue

from trainseal.api.model import json_objects
from trainseal.controller.progress import Progress
from trainseal.provenance.keyrings import rfc3339
from trainseal.provenance.policies import longest_wait
from trainseal.verifier.jobs import JobVerification

REASON = "SignaturesMissing"
TOO_LATE = "PendingTooLong"
_LONGEST_WORDS = 256
#: A policy that lets it wait for longer is heard of at once.
_LATE_AGAIN = 3600.0

Json = Mapping[str, JsonValue]


def waits(found: JobVerification, submitted: datetime, now: datetime) -> Progress | None:
    """What a job waits for that lacks nothing but signatures which may still come, or that it
    waits no more; else None.

    What cannot be read meanwhile is no matter: all of it is verified anew with the last signature.
    """
    if not found.lacking:
        return None
    longest = longest_wait(found.policies)
    if longest is None:
        return None
    until = submitted + longest
    missing = "; ".join(dict.fromkeys(str(v.lack) for v in found.lacking))
    words = "\n".join(
        f"policy {v.policy} still wants a signature by {v.lack} ({v.found})" for v in found.lacking
    )
    words = (
        f"waiting for signatures until {rfc3339(until)}: {words}; "
        "`trainseal approve` shows what would run, and signs it"
    )
    progress = Progress("Pending", words[:4096], again=(until - now).total_seconds() + 1.0)
    progress.wants("Verified", False, REASON, words)
    if until < now:
        words = f"{_late(submitted, until)}; {words.partition(': ')[2]}"
        progress = Progress("Refused", words[:4096], again=_LATE_AGAIN)
        progress.wants("Verified", False, TOO_LATE, words)
    persons = dict.fromkeys(s.person for v in found.lacking for s in v.signers)
    progress.fields = {
        "verified": "pending" if until >= now else "refuted",
        "missing": missing[:_LONGEST_WORDS],
        "signers": ", ".join(persons)[:1024],
    }
    return progress


def too_late(found: JobVerification, status: Json, submitted: datetime, now: datetime) -> str:
    """Why a job that was not signed in time does not start, whoever has signed by now; or empty.

    By its ``status`` it waited: one that had all signatures from the first may be kept by something
    else for longer (a registry, a tainted checkpoint). A job that was made from a template waits
    for no signature.
    """
    longest = longest_wait(found.policies)
    if found.launch is not None or longest is None or not _waited(status):
        return ""
    until = submitted + longest
    return _late(submitted, until) if now > until else ""


def _waited(status: Json) -> bool:
    return any(
        c.get("type") == "Verified" and c.get("reason") in (REASON, TOO_LATE)
        for c in json_objects(status.get("conditions"))
    )


def _late(submitted: datetime, until: datetime) -> str:
    return (
        f"it was submitted at {rfc3339(submitted)} and had not been signed by all at "
        f"{rfc3339(until)}, which is as long as the policy lets it wait "
        "(spec.pending.maxAgeSeconds); delete the job, and apply it again with its signatures"
    )
