"""Which TrainingJob a seal is of, and the whole job that it stands for. Pure.

A job that names a template is not made from it again: the seal holds the job that was made.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object
from trainseal.api.sealedrun import SealedRun
from trainseal.api.trainingjob import TrainingJob
from trainseal.provenance.canonical import job_digest

Json = Mapping[str, JsonValue]
#: What of a TrainingJob may change while its run lives.
_OPEN = ("scheduling", "suspend")


def asked_digest(seal_spec: Json) -> str:
    """The digest that the seal's TrainingJob has as an object."""
    launch = json_object(seal_spec.get("launch"))
    return str(launch.get("asked") if launch else json_object(seal_spec.get("job")).get("digest"))


def is_of(sealed: SealedRun, job: Json) -> bool:
    """Whether this TrainingJob is the one that was sealed. Raises CanonicalError."""
    launch = sealed.spec.launch
    wanted = launch.asked if launch else sealed.spec.job.digest
    uid = json_object(job.get("metadata")).get("uid")
    return (sealed.spec.job.uid, wanted) == (uid, job_digest(job))


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
