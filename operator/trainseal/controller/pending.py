"""Jobs that wait for signatures: who is missing, and until when. Pure.

A policy lets a job be created before all have signed it (``spec.pending``). It has no seal and no
objects; each time its signatures change it is verified anew, all of it. What the time counts from
is the ticket: when it was submitted, by the webhook's signed word.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from trainseal.controller.progress import Progress
from trainseal.provenance.keyrings import rfc3339
from trainseal.provenance.policies import CompiledPolicy
from trainseal.verifier.jobs import JobVerification

REASON = "SignaturesMissing"
TOO_LATE = "PendingTooLong"
_LONGEST_WORDS = 256


def waits(found: JobVerification, submitted: datetime, now: datetime) -> Progress | None:
    """What a job waits for that lacks nothing but signatures which may still come; else None."""
    if not found.awaited:
        return None
    until = _until(found.policies, submitted)
    if until is None or until < now:
        return None
    missing = "; ".join(dict.fromkeys(str(v.lack) for v in found.awaited))
    words = "\n".join(
        f"policy {v.policy} still wants a signature by {v.lack} ({v.found})" for v in found.awaited
    )
    words = (
        f"waiting for signatures until {rfc3339(until)}: {words}; "
        "`trainseal approve` shows what would run, and signs it"
    )
    progress = Progress("Pending", words[:4096], again=(until - now).total_seconds() + 1.0)
    progress.wants("Verified", False, REASON, words)
    persons = dict.fromkeys(s.person for v in found.awaited for s in v.signers)
    progress.fields = {
        "verified": "pending",
        "missing": missing[:_LONGEST_WORDS],
        "signers": ", ".join(persons)[:1024],
    }
    return progress


def too_late(found: JobVerification, submitted: datetime, now: datetime) -> str:
    """Why a job that was not signed in time does not start, whoever has signed by now; or empty.

    A job that was made from a template waits for no signature.
    """
    until = _until(found.policies, submitted)
    if found.launch is not None or until is None or now <= until:
        return ""
    return (
        f"it was submitted at {rfc3339(submitted)} and had not been signed by all at "
        f"{rfc3339(until)}, which is as long as the policy lets it wait "
        "(spec.pending.maxAgeSeconds); delete the job, and apply it again with its signatures"
    )


def _until(policies: tuple[CompiledPolicy, ...], submitted: datetime) -> datetime | None:
    """The first end that an enforcing policy sets; None where none lets jobs wait."""
    seconds = [
        p.pending_seconds for p in policies if p.mode == "Enforce" and p.pending_seconds is not None
    ]
    return submitted + timedelta(seconds=min(seconds)) if seconds else None
