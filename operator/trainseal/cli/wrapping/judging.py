"""The rules by which a TrainingJob is let in, as far as they can be told before it is signed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from trainseal.api.model import InvalidObjectError, JsonObject, json_object
from trainseal.api.trainingjob import TrainingJob
from trainseal.cli.jobfiles import in_namespace, path_parts
from trainseal.cli.wrapping.fields import Field
from trainseal.cli.wrapping.ledger import Ledger
from trainseal.cli.wrapping.mounts import UNKNOWN_CODE
from trainseal.engines.catalogue import unfit
from trainseal.provenance.accessrules import compile_access
from trainseal.provenance.additions import compile_additions
from trainseal.provenance.canonical import CanonicalError, canonical_job
from trainseal.provenance.checkpointformats import ACCEPTED
from trainseal.provenance.drift import compile_drift
from trainseal.provenance.jobbounds import check_bounds
from trainseal.provenance.jobrules import RunFacts, job_rules, job_warnings
from trainseal.provenance.policies import CompiledPolicy, Requirement
from trainseal.verifier.jobs import outside_registries

#: What signing mends by itself, and what has been said of the field already.
_SIGNING_MENDS = frozenset({"ImageNotByDigest", "CodeNotByDigest"})

_NOBODY = Requirement((), 1)
#: Allows what no policy has to allow. What one may allow is refused, and the remedy says it.
WITHOUT_POLICY = CompiledPolicy(
    name="", digest="", mode="Enforce", include=("*",), exclude=(),
    job=_NOBODY, image=_NOBODY, code=_NOBODY, pending_seconds=None, people={}, registries=("**",),
    required_validity=frozenset(), allowed_secrets=frozenset(), secret_rotators=None,
    additions=compile_additions(()), access=compile_access(None), lanes=(),
    unverified_data=False, may_resume_users=frozenset(), may_resume_groups=frozenset(),
    checkpoint_formats=ACCEPTED,
    drift=compile_drift(None),
)  # fmt: skip


def judge(
    job: JsonObject,
    policies: Sequence[CompiledPolicy],
    ledger: Ledger,
    source: Field,
    now: datetime,
) -> None:
    """Says in the ledger what would be refused, and of which field it comes."""
    # Who has no namespace yet gives it when signing.
    job = in_namespace(job, "default")
    try:
        parsed = TrainingJob.parse(job)
        check_bounds(parsed, json_object(job.get("spec")))
    except InvalidObjectError as error:
        for problem in error.problems:
            why = f"found {problem.found}, expected {problem.expected}"
            ledger.refused(tuple(path_parts(problem.path)), why, "correct it", source)
        return
    try:
        canonical_job(job)
    except CanonicalError as error:
        why = f"found {error.found}, expected {error.expected}"
        ledger.refused(error.path, why, error.remedy, source)
    for warning in job_warnings(parsed):
        place, _, why = warning.partition(": ")
        ledger.warned(tuple(path_parts(place)), why, source)
    if words := unfit(parsed):
        ledger.refused(("spec", "engine"), words, "or wrap it without --engine", source)
    for policy in policies or (WITHOUT_POLICY,):
        found = [*job_rules(parsed, "", policy, RunFacts(), now)]
        if policies:
            found += outside_registries(parsed, policy)
        for verdict in found:
            if verdict.reason in _SIGNING_MENDS or verdict.subject == UNKNOWN_CODE:
                continue
            why = f"{verdict.reason}: {verdict.found}" + (
                f" (policy {policy.name})" if policy.name else ""
            )
            remedy = verdict.remedy
            at = tuple(path_parts(verdict.name)) if verdict.name.startswith("spec") else ()
            ledger.refused(at, why, remedy, source)
