"""Which TrainingJob a seal is of, and the whole job that it stands for. Pure.

A job that names a template is not made from it again: the seal holds the job that was made.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from pydantic import JsonValue

from trainseal.api.model import API_VERSION, JsonObject, json_object
from trainseal.api.sealedrun import SealedRun
from trainseal.api.trainingjob import TrainingJob
from trainseal.provenance.canonical import KIND, CanonicalError, canonical_job, job_digest
from trainseal.provenance.seals import MAX_SPEC_BYTES, stored_bytes

Json = Mapping[str, JsonValue]
#: What of a TrainingJob may change while its run lives.
_OPEN = ("scheduling", "suspend")


def asked_digest(seal_spec: Json) -> str:
    """The digest that the seal's TrainingJob has as an object."""
    launch = json_object(seal_spec.get("launch"))
    return str(launch.get("asked") if launch else json_object(seal_spec.get("job")).get("digest"))


def seal_name(job: str, uid: str, asked: str) -> str:
    """One name for one TrainingJob object, so that making the seal again changes nothing.

    ``asked`` is the digest of the object.
    """
    suffix = re.sub(r"[^a-z0-9]", "", uid)[:8] or "0"
    return f"{job[:40].rstrip('-')}-{asked[7:15]}-{suffix}"


def is_of(sealed: SealedRun, job: Json) -> bool:
    """Whether this TrainingJob is the one that was sealed. Raises CanonicalError."""
    launch = sealed.spec.launch
    wanted = launch.asked if launch else sealed.spec.job.digest
    uid = json_object(job.get("metadata")).get("uid")
    return (sealed.spec.job.uid, wanted) == (uid, job_digest(job))


def kept_job(sealed: SealedRun, job: Json) -> JsonObject | None:
    """What the seal keeps beside itself of a job that was signed itself: its signed ``spec``.

    Its digest stands in the seal, so it needs no mark of ours; who approves the next job of its
    name sees by it what differs. None for one that is too long, or was made from a template. Raises
    CanonicalError.
    """
    if sealed.spec.launch is not None:
        return None
    spec = json_object(json.loads(canonical_job(job)).get("spec"))
    # One object of the API server holds both: together they keep to the seal's own bound.
    together = stored_bytes(sealed.spec.wire()) + stored_bytes(spec)
    return spec if together <= MAX_SPEC_BYTES else None


def sealed_job(seal: Json) -> JsonObject | None:
    """The ``spec`` of the job that a seal's digest is of; None where it was not kept, or what was
    kept is another one.

    Whether the seal is ours is for the caller to know.
    """
    metadata, spec = json_object(seal.get("metadata")), json_object(seal.get("spec"))
    launch, job = json_object(spec.get("launch")), json_object(spec.get("job"))
    kept = launch.get("job") if launch else json_object(seal.get("status")).get("signed")
    if not isinstance(kept, dict):
        return None
    whole: JsonObject = {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": {"namespace": metadata.get("namespace"), "name": job.get("name")},
        "spec": kept,
    }
    try:
        return kept if job_digest(whole) == job.get("digest") else None
    except CanonicalError:
        return None


def whole_job(sealed: SealedRun, job: Json) -> TrainingJob:
    """The job of a run, with what its TrainingJob says now of whether and where it runs.

    Whether the seal is ours is for the caller to know. Raises InvalidObjectError.
    """
    launch = sealed.spec.launch
    if launch is None:
        return TrainingJob.parse(job)
    spec = json_object(job.get("spec"))
    made: JsonObject = {**launch.job, **{k: spec[k] for k in _OPEN if k in spec}}
    return TrainingJob.parse({**job, "spec": made})
