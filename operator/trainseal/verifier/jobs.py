"""Verifies a TrainingJob: what can be judged offline first, then what registries must say.

A job that names a template is judged as the job that the template makes of it: the template must be
signed as a job must, and let this job start.

Used alike by the webhook, the controller and ``trainseal verify``, so that the three never differ.
Order (DESIGN, *Admission*): the job's own form, rules and bundles; the registry allow-list; only
then the network, because a registry that a user chose is otherwise a way to make us call inner
addresses.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol, TypeVar

from pydantic import JsonValue

from trainseal.api.model import InvalidObjectError, json_object
from trainseal.api.sealedrun import SealedCode, SealedImage
from trainseal.api.trainingjob import ArtifactKind, SignatureEntry, TrainingJob
from trainseal.provenance.approvals import Fault, change_fault
from trainseal.provenance.canonical import KIND, CanonicalError, canonical_job, job_digest
from trainseal.provenance.jobbounds import check_bounds
from trainseal.provenance.jobrules import (
    RunFacts,
    by_digest,
    image_references,
    job_rules,
    job_warnings,
)
from trainseal.provenance.judgement import (
    Artifact,
    Piece,
    Signed,
    check_asked,
    check_signed,
    judge,
    read_bundle,
)
from trainseal.provenance.launches import Launch, launch_rules, newer_code, read_launch
from trainseal.provenance.policies import CompiledPolicy, longest_wait
from trainseal.provenance.requesters import Requester
from trainseal.provenance.verdicts import Outcome, Verdict, worst
from trainseal.registry.allowlist import InvalidPattern, allowed
from trainseal.registry.references import InvalidReference, Reference
from trainseal.verifier.artifacts import ArtifactVerifier, CodeResult, ImageResult
from trainseal.verifier.policystore import BrokenPolicy

Json = Mapping[str, JsonValue]
_T = TypeVar("_T")
MAX_JOB_BUNDLE_BYTES = 256 * 1024
_SIGN_REMEDY = "sign it with `trainseal sign job`"
_SIGN_TEMPLATE_REMEDY = "have it signed with `trainseal sign template`"


class Offline(Protocol):
    """Does work that keeps a processor busy somewhere else than in the event loop."""

    async def __call__(self, work: Callable[[], _T], /) -> _T: ...


@dataclass(frozen=True, slots=True)
class JobVerification:
    """What verifying one job gave. ``images`` and ``code`` are complete only if verified.

    ``digest`` and ``job`` are those of the whole job, ``launch`` says which template it was made
    from; None of what could not be read. ``stopped``: what was judged offline stands in the way
    already, and no registry was asked.
    ``warnings`` stand in nobody's way: what the job has and may come to regret.
    """

    digest: str
    verdicts: tuple[Verdict, ...]
    audited: tuple[Verdict, ...]
    policies: tuple[CompiledPolicy, ...]
    job: TrainingJob | None = None
    launch: Launch | None = None
    images: tuple[SealedImage, ...] = ()
    code: tuple[SealedCode, ...] = ()
    warnings: tuple[str, ...] = ()
    stopped: bool = False

    @property
    def outcome(self) -> Outcome:
        """The whole job's outcome under the policies that enforce."""
        return worst(v.outcome for v in self.verdicts)

    @property
    def awaited(self) -> tuple[Verdict, ...]:
        """The verdicts that signatures can still mend, where the policies let the job wait for
        them and nothing else stands in its way; else none.
        """
        return self.lacking if len(self.lacking) == len(self.denials) else ()

    @property
    def lacking(self) -> tuple[Verdict, ...]:
        """As ``awaited``, though something else could not be read just now: nothing else is wrong,
        as far as it is known.
        """
        patient = {p.name for p in self.policies if p.pending_seconds is not None}
        found = tuple(v for v in self.denials if v.outcome is Outcome.REFUTED)
        waits = all(_can_wait(v) and v.policy in patient for v in found)
        return found if waits and self.launch is None else ()

    @property
    def denials(self) -> tuple[Verdict, ...]:
        """The verdicts that stand in the way."""
        return tuple(v for v in self.verdicts if v.outcome is not Outcome.VERIFIED)


class JobVerifier:
    """Verifies jobs; one per process, so that its artifacts' cache and connections are shared."""

    def __init__(self, artifacts: ArtifactVerifier, clock: Callable[[], datetime]) -> None:
        self._artifacts = artifacts
        self._clock = clock

    async def verify(
        self,
        manifest: Json,
        policies: Sequence[CompiledPolicy],
        facts: RunFacts,
        *,
        deadline: float,
        broken: Sequence[BrokenPolicy] = (),
        offline: Offline = asyncio.to_thread,
    ) -> JobVerification:
        """The verdicts on one job.

        ``policies`` are those of its namespace, ``deadline`` the seconds until evidence that is
        still outstanding counts as undetermined. ``broken`` policies refuse every job: whom they
        mean cannot be told. Raises nothing for a bad job: that is a verdict; only what ``offline``
        raises of its own.
        """
        until = asyncio.get_running_loop().time() + deadline
        now = self._clock()
        judged = await offline(lambda: _judge_offline(manifest, policies, facts, now, broken))
        if isinstance(judged, JobVerification):
            return judged
        subject, local = judged
        job = subject.job
        stopped = any(
            v.outcome is not Outcome.VERIFIED
            and not (p.pending_seconds is not None and _can_wait(v))
            for p in policies
            if p.mode == "Enforce"
            for v in local[p.name]
        )
        images: tuple[ImageResult, ...] = ()
        code: tuple[CodeResult, ...] = ()
        if not stopped:
            images, code = await self._remote(job, policies, local, until)
        enforced: list[Verdict] = []
        audited: list[Verdict] = []
        results: list[ImageResult | CodeResult] = [*images, *code]
        for policy in policies:
            verdicts = [*local[policy.name]]
            verdicts += [_of(r, policy.name) for r in results]
            (enforced if policy.mode == "Enforce" else audited).extend(verdicts)
        if not stopped:
            enforced.extend(_no_code(job, code, enforced))
        if subject.launch is not None:
            on_code = [v for result in code for v in result.verdicts]
            for policy in policies:
                newer = newer_code(subject.launch, on_code, policy.name)
                (enforced if policy.mode == "Enforce" else audited).extend(newer)
        return JobVerification(
            digest=subject.digest,
            verdicts=tuple(_unique(enforced)),
            audited=tuple(_unique(audited)),
            policies=tuple(policies),
            job=job,
            launch=subject.launch,
            images=tuple(r.sealed for r in images if r.sealed),
            code=tuple(r.sealed for r in code if r.sealed),
            warnings=job_warnings(job),
            stopped=stopped,
        )

    async def _remote(
        self,
        job: TrainingJob,
        policies: Sequence[CompiledPolicy],
        local: Mapping[str, tuple[Verdict, ...]],
        until: float,
    ) -> tuple[tuple[ImageResult, ...], tuple[CodeResult, ...]]:
        # A policy in Audit may have refused a registry that another policy allows: the network is
        # spoken to only for what every policy allows, and never by tag.
        refused = {
            v.subject
            for verdicts in local.values()
            for v in verdicts
            if v.reason == "RegistryNotAllowed"
        }
        images = [
            self._artifacts.image(place, reference, policies, until)
            for reference, place in image_references(job).items()
            if reference not in refused and by_digest(reference)
        ]
        code = [
            self._artifacts.code(mount.name, mount.oci.reference, policies, until)
            for mount in job.spec.code or ()
            if mount.oci.reference not in refused and by_digest(mount.oci.reference)
        ]
        image_results, code_results = await asyncio.gather(_all(images), _all(code))
        return tuple(image_results), tuple(code_results)


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is judged: the whole job, its digest, what people signed of it, and with what."""

    job: TrainingJob
    digest: str
    signed: Signed
    pieces: Sequence[Piece]
    launch: Launch | None


def _judge_offline(
    manifest: Json,
    policies: Sequence[CompiledPolicy],
    facts: RunFacts,
    now: datetime,
    broken: Sequence[BrokenPolicy],
) -> JobVerification | tuple[_Subject, dict[str, tuple[Verdict, ...]]]:
    """What is judged and the verdicts of each policy; or the whole answer, if that is all."""
    try:
        subject = _read(manifest, facts)
    except (InvalidObjectError, CanonicalError) as error:
        return JobVerification("", (_invalid(error),), (), tuple(policies), stopped=True)
    if isinstance(subject, tuple):
        return JobVerification("", subject, (), tuple(policies), stopped=True)
    digest = subject.digest
    if broken:
        said = tuple(not_usable(b) for b in broken)
        return JobVerification(digest, said, (), tuple(policies), stopped=True)
    if not policies:
        said = (no_policy(subject.job.metadata.namespace, subject.job.metadata.name),)
        return JobVerification(digest, said, (), (), stopped=True)
    return subject, {p.name: _local(subject, p, facts, now) for p in policies}


def _read(manifest: Json, facts: RunFacts) -> _Subject | tuple[Verdict, ...]:
    """What is to be judged, or why there is nothing. Raises InvalidObjectError, CanonicalError."""
    if "templateRef" not in json_object(manifest.get("spec")):
        job = TrainingJob.parse(manifest)
        check_bounds(job, json_object(manifest.get("spec")))
        canonical = canonical_job(manifest)
        signed = Signed(KIND, job.metadata.namespace, job.metadata.name, canonical)
        return _Subject(job, signed.digest, signed, read_bundles(job.spec.signatures), None)
    launch = read_launch(manifest, facts.template)
    if not isinstance(launch, Launch):
        return launch
    job = TrainingJob.parse(launch.made)
    check_bounds(job, json_object(launch.made.get("spec")))
    digest = job_digest(launch.made)
    pieces = read_bundles(launch.template.spec.signatures)
    return _Subject(job, digest, launch.signed, pieces, launch)


def _local(
    subject: _Subject, policy: CompiledPolicy, facts: RunFacts, now: datetime
) -> tuple[Verdict, ...]:
    job, launch = subject.job, subject.launch
    return (
        judge_signatures(subject.signed, subject.pieces, policy, facts.requester),
        *(launch_rules(launch, policy, facts, now) if launch else ()),
        *job_rules(job, subject.digest, policy, facts, now),
        *outside_registries(job, policy),
    )


def read_bundles(signatures: Sequence[SignatureEntry] | None) -> list[Piece]:
    """The bundles of a job, or a template; once, however many policies judge them."""
    return [read_bundle(s.bundle, MAX_JOB_BUNDLE_BYTES) for s in signatures or ()]


def judge_signatures(
    signed: Signed,
    pieces: Sequence[Piece],
    policy: CompiledPolicy,
    requester: Requester | None = None,
) -> Verdict:
    """Whether a job, or a template, is signed as the policy asks. Who asks for a run of a template
    approves nothing by that.
    """
    check, of_job = check_signed(pieces, signed), signed.kind == KIND
    if of_job:
        check = check_asked(check, requester, policy.job.threshold)
    return judge(
        Artifact(
            "job" if of_job else "template", f"{signed.namespace}/{signed.name}", signed.digest
        ),
        policy.job,
        policy.name,
        len(pieces),
        check,
        _SIGN_REMEDY if of_job else _SIGN_TEMPLATE_REMEDY,
    )


def _can_wait(verdict: Verdict) -> bool:
    """Whether nothing is wrong but that somebody has not signed the job yet."""
    return verdict.artifact == "job" and verdict.lack is not None


def signatures_fault(
    old: Json, new: Json, policies: Sequence[CompiledPolicy], requester: Requester, age: timedelta
) -> Fault | None:
    """Why the signatures of a job that may wait for more may not change from the ``old`` to the
    ``new`` ones. ``age``: how long ago it was asked for.

    Raises InvalidObjectError, CanonicalError.
    """
    before, after = TrainingJob.parse(old), TrainingJob.parse(new)
    signed = Signed(KIND, after.metadata.namespace, after.metadata.name, canonical_job(new))
    pieces = read_bundles(before.spec.signatures)
    entries = [s.wire() for s in before.spec.signatures or ()]
    later = [s.wire() for s in after.spec.signatures or ()]
    fault = change_fault(
        [*zip(entries, pieces, strict=True)],
        [*zip(later, read_bundles(after.spec.signatures), strict=True)],
        signed,
        policies,
    )
    longest = longest_wait(policies)
    if fault is not None or longest is None or age <= longest:
        return fault
    enforced = [p for p in policies if p.mode == "Enforce"]
    verdicts = [judge_signatures(signed, pieces, p, requester) for p in enforced]
    if all(v.outcome is Outcome.VERIFIED for v in verdicts):
        return None
    return Fault(
        f"found a signature that comes after {longest.total_seconds():.0f} seconds, which is as "
        "long as the policy lets the job wait (spec.pending.maxAgeSeconds); delete the job, and "
        "apply it again with its signatures"
    )


async def _all(work: Iterable[Awaitable[_T]]) -> list[_T]:
    return list(await asyncio.gather(*work))


def _of(result: ImageResult | CodeResult, policy: str) -> Verdict:
    """The result's verdict under one policy; having none is no approval."""
    for verdict in result.verdicts:
        if verdict.policy == policy:
            return verdict
    kind: ArtifactKind = "image" if isinstance(result, ImageResult) else "code"
    return Verdict(
        kind, "?", "", Outcome.UNDETERMINED, "NotJudged",
        "an artifact was not judged under this policy", remedy="try again", policy=policy,
    )  # fmt: skip


def _no_code(
    job: TrainingJob, code: Sequence[CodeResult], enforced: Sequence[Verdict]
) -> Iterator[Verdict]:
    """Code that nobody's signature vouches for cannot run even where a policy only audits: the
    gate compares what it unpacks with a signed manifest, and there is none."""
    sealed = {r.sealed.name for r in code if r.sealed}
    judged = {v.name: v for r in code for v in r.verdicts if v.outcome is not Outcome.VERIFIED}
    said = {v.name for v in enforced if v.artifact == "code" and v.outcome is not Outcome.VERIFIED}
    for mount in job.spec.code or ():
        if mount.name not in sealed | said:
            why = judged.get(mount.name)
            yield Verdict(
                "code", mount.name, mount.oci.reference,
                why.outcome if why else Outcome.REFUTED,
                "NothingToGate",
                why.found if why else f"{mount.oci.reference} was not fetched",
                "a signed tree, whatever the mode: the gate compares the code with it",
                "sign it with `trainseal sign code`",
                policy=why.policy if why else "",
            )  # fmt: skip


def outside_registries(job: TrainingJob, policy: CompiledPolicy) -> Iterator[Verdict]:
    """References that the policy does not let us contact."""
    references: list[tuple[str, ArtifactKind, str]] = [
        (r, "image", place) for r, place in image_references(job).items()
    ]
    references += [(c.oci.reference, "code", c.name) for c in job.spec.code or ()]
    for reference, kind, place in references:
        if not _allowed(reference, policy):
            yield Verdict(
                kind,
                place,
                reference,
                Outcome.REFUTED,
                "RegistryNotAllowed",
                f"{reference} is outside the allowed repositories, and was not contacted",
                ", ".join(policy.registries),
                "push it to an allowed repository and sign again",
                policy=policy.name,
            )


def _allowed(reference: str, policy: CompiledPolicy) -> bool:
    try:
        return allowed(Reference.parse(reference), policy.registries)
    except (InvalidReference, InvalidPattern):
        return False


def _unique(verdicts: Iterable[Verdict]) -> list[Verdict]:
    return list(dict.fromkeys(verdicts))


def _invalid(error: InvalidObjectError | CanonicalError) -> Verdict:
    return Verdict(
        "job",
        "spec",
        "",
        Outcome.REFUTED,
        "InvalidJob",
        str(error),
        remedy="correct the manifest and sign it again",
    )


def not_usable(policy: BrokenPolicy) -> Verdict:
    """A policy of which nothing can be told stands in every job's way."""
    return Verdict(
        "policy",
        policy.name,
        policy.name,
        Outcome.UNDETERMINED,
        "PolicyNotUsable",
        policy.why,
        remedy="the platform team must correct the policy",
        policy=policy.name,
    )


def no_policy(namespace: str, name: str, kind: ArtifactKind = "job") -> Verdict:
    """Where nobody says who must sign, nothing is signed enough."""
    return Verdict(
        kind,
        f"{namespace}/{name}",
        "",
        Outcome.REFUTED,
        "NoPolicy",
        f"no ProvenancePolicy names namespace {namespace}",
        "at least one",
        "ask the platform team for a policy that names this namespace",
    )
