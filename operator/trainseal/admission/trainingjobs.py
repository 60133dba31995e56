"""TrainingJobs: stamped with who asked, then verified, with an answer a person can act on; and the
templates that they are made from.

Who changes how many pods an elastic role has (``spec.scheduling.replicas``) is noted in the same
way, and the number held to the signed range.

An UPDATE that leaves the job digest as it is is never verified again: a dead registry would
otherwise block suspending and deleting. Signatures stand outside the digest and may be changed;
they count nothing here any more, and the controller judges them before it seals. Where policies let
jobs wait for signatures, those of one that is not sealed yet are judged, offline: what does not
count is kept out, and what counts stays. What an UPDATE changes is held to its bounds all the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

from prometheus_client import Counter
from pydantic import JsonValue

from trainseal.admission.reviews import (
    ALLOWED,
    FORBIDDEN,
    TOO_MANY,
    TRY_AGAIN,
    Request,
    Response,
    deny,
    meta,
)
from trainseal.admission.turns import BusyError, Turns
from trainseal.api.model import InvalidObjectError, JsonObject, json_object
from trainseal.api.trainingtemplate import PLURAL
from trainseal.engines.catalogue import no_engine, unfit
from trainseal.provenance.canonical import (
    KIND,
    TEMPLATE_KIND,
    CanonicalError,
    job_digest,
    template_digest,
)
from trainseal.provenance.choosers import CHOICE_ANNOTATION, Choice, note_choice, read_choice
from trainseal.provenance.jobbounds import changes_beyond_bounds
from trainseal.provenance.jobrules import RunFacts
from trainseal.provenance.keyrings import Keyring, UntrustedError
from trainseal.provenance.keys import PrivateKey
from trainseal.provenance.launches import counted_by
from trainseal.provenance.memberships import SignedSizes, asked_replicas, sizes_of_job
from trainseal.provenance.policies import CompiledPolicy, longest_wait
from trainseal.provenance.requesters import Requester, groups_kept
from trainseal.provenance.sealedjobs import seal_name
from trainseal.provenance.templates import StoredTemplate
from trainseal.provenance.tickets import TICKET_ANNOTATION, Ticket, issue_ticket, read_ticket
from trainseal.provenance.verdicts import Outcome, Verdict
from trainseal.verifier.jobs import (
    JobVerification,
    JobVerifier,
    Offline,
    signatures_fault,
)
from trainseal.verifier.policystore import BrokenPolicy
from trainseal.verifier.templates import verify_template

_T = TypeVar("_T")
_JUDGED = Counter(
    "trainseal_verdicts_total",
    "TrainingJobs and TrainingTemplates judged when they were made, dry runs too, by the verdict.",
    ["outcome"],
)
for _outcome in Outcome:
    _JUDGED.labels(_outcome.value)
_JUDGED.labels("pending")
_STOPPED = Counter(
    "trainseal_denials_total",
    "TrainingJobs and TrainingTemplates that were not let in, by the first reason.",
    ["outcome", "reason"],
)
#: Parts of ``spec`` that may change while a job lives.
UNSIGNED = ("scheduling", "signatures", "suspend")


@dataclass(frozen=True, slots=True)
class JobContext:
    """What jobs are judged against, as of now."""

    cluster: str
    verifier: JobVerifier
    policies: Callable[[str], tuple[CompiledPolicy, ...]]
    broken: Callable[[], tuple[BrokenPolicy, ...]]
    runs: Callable[[str], int]
    #: Whether the namespace has a seal of this name.
    sealed: Callable[[str, str], bool]
    tickets: Callable[[], Keyring]
    deadline: float
    turns: Turns
    now: Callable[[], datetime]
    #: The template that a job names, as it is stored; None for a job that names none.
    template: Callable[[JsonObject], Awaitable[StoredTemplate | None]]
    #: Engines that this cluster has.
    engines: Sequence[str] = ("Job",)


async def in_turn(
    request: Request, context: JobContext, respond: Callable[[Offline], Awaitable[Response]]
) -> Response:
    """What ``respond`` answers, with its work in the user's turn; a denial where none comes."""
    head = _head(request)

    async def offline(work: Callable[[], _T], /) -> _T:
        async with asyncio.timeout(context.deadline):
            return await context.turns.take(request.username, request.size, work)

    try:
        return await respond(offline)
    except BusyError as error:
        return deny(f"{head}: {error}", TOO_MANY)
    except TimeoutError:
        return deny(
            f"{head}: found too many TrainingJobs at once, expected an answer within "
            f"{context.deadline:g} s; try again",
            TRY_AGAIN,
        )


def stamp(
    request: Request, key: PrivateKey, policies: Sequence[CompiledPolicy], now: datetime
) -> Response:
    """The mutating step: a ticket on a new job; the old ticket kept on a job that stays itself.
    With it goes the note on who chose the sizes of elastic roles.
    """
    try:
        digest = job_digest(_named(request.object, request))
    except CanonicalError:
        return ALLOWED  # the validating step says why
    notes: dict[str, JsonValue] = {}
    asked = asked_replicas(json_object(request.object.get("spec")))
    chooses = bool(asked)
    if request.operation == "UPDATE":
        try:
            same = job_digest(_named(request.old, request)) == digest
        except CanonicalError:
            same = False
        if not same:
            return ALLOWED
        before = _annotations(request.old)
        notes = {name: before.get(name) for name in (TICKET_ANNOTATION, CHOICE_ANNOTATION)}
        chooses = asked != asked_replicas(json_object(request.old.get("spec")))
    else:
        people = [person for policy in policies for person in policy.people.values()]
        launched = "templateRef" in json_object(request.object.get("spec"))
        groups = _groups(request, policies) if people or launched else ()
        ticket = Ticket(request.username, request.user_uid, digest, now, groups)
        notes = {TICKET_ANNOTATION: issue_ticket(key, ticket), CHOICE_ANNOTATION: None}
    if chooses:
        choice = Choice(request.username, digest, asked, now)
        notes[CHOICE_ANNOTATION] = note_choice(key, choice)
    present = _annotations(request.object)
    changed = {name: text for name, text in notes.items() if present.get(name) != text}
    return Response(True, patch=_annotate(request.object, changed)) if changed else ALLOWED


async def validate(request: Request, context: JobContext, offline: Offline) -> Response:
    """The validating step. Raises what ``offline`` raises of its own."""
    obj = _named(request.object, request)
    if request.operation == "UPDATE":
        template = await context.template(obj) if _chooses(request) else None
        return await offline(lambda: _update(request, obj, context, template))
    policies = context.policies(request.namespace)
    try:
        digest = await offline(lambda: job_digest(obj))
    except CanonicalError as error:
        return deny(f"{_head(request)}: {error}")
    template = await context.template(obj)
    found = await context.verifier.verify(
        obj,
        policies,
        RunFacts(
            cluster=context.cluster,
            runs=context.runs(counted_by(obj, digest)),
            requester=Requester(request.username, frozenset(_groups(request, policies))),
            template=template,
        ),
        deadline=context.deadline,
        broken=context.broken(),
        offline=offline,
    )
    answered = _answer(request, found)
    if answered.allowed and found.job and (name := found.job.spec.engine) not in context.engines:
        return deny(f"{_head(request)}: {no_engine(name, context.engines)}")
    if answered.allowed and found.job and (words := unfit(found.job)):
        return deny(f"{_head(request)}: {words}")
    if not answered.allowed:
        return answered
    unnoted = _without_ticket(request, digest, context) or _without_choice(request, digest, context)
    return unnoted or answered


async def validate_template(request: Request, context: JobContext, offline: Offline) -> Response:
    """TrainingTemplates: signed when they are made, and changed no more. Raises what ``offline``
    raises of its own.
    """
    obj = _named(request.object, request)
    try:
        if request.operation == "UPDATE":
            return await offline(lambda: _template_update(request, obj))
    except CanonicalError as error:
        return deny(f"{_head(request)}: {error}")
    policies, broken = context.policies(request.namespace), context.broken()
    facts = RunFacts(cluster=context.cluster)
    return _answer(
        request,
        await offline(lambda: verify_template(obj, policies, broken, facts, context.now())),
    )


def _template_update(request: Request, obj: JsonObject) -> Response:
    old = _named(request.old, request)
    if obj.get("spec") == old.get("spec"):
        return ALLOWED
    if template_digest(old) != template_digest(obj):
        return deny(
            f"{_head(request)}: found a change of what is signed, expected only spec.signatures "
            "and spec.revoked to change; make a template of another name, and have it signed"
        )
    one, other = json_object(old.get("spec")), json_object(obj.get("spec"))
    problems = changes_beyond_bounds(other, one)
    if problems:
        return deny(f"{_head(request)}: {'; '.join(map(str, problems))}; correct it")
    return ALLOWED


def _groups(request: Request, policies: Sequence[CompiledPolicy]) -> tuple[str, ...]:
    groups = request.user.get("groups")
    asked = {g for policy in policies for person in policy.people.values() for g in person.groups}
    return groups_kept(groups if isinstance(groups, list) else (), asked)


def _head(request: Request) -> str:
    found = meta(request.object)
    name = request.name or found.get("name") or found.get("generateName") or ""
    kind = TEMPLATE_KIND if request.resource == PLURAL else KIND
    return f"{kind} {request.namespace}/{name}"


def _without_ticket(request: Request, digest: str, context: JobContext) -> Response | None:
    """A denial unless the job bears this requester's ticket: what is stored is what is believed."""
    head = _head(request)
    try:
        text = str(_annotations(request.object).get(TICKET_ANNOTATION, ""))
        ticket = read_ticket(context.tickets(), text, digest)
    except UntrustedError as error:
        return deny(
            f"{head}: {error}; expected the one that TrainSeal's mutating webhook gives. Try "
            "again; if it stays so, that webhook, or one that runs after it, is not as it should be"
        )
    if (ticket.username, ticket.uid) == (request.username, request.user_uid):
        return None
    return deny(
        f"{head}: found the ticket of {ticket.username!r}, expected that of {request.username!r}, "
        "who asks"
    )


def _chooses(request: Request) -> bool:
    """Whether the sizes of elastic roles are chosen, or chosen anew."""
    one, other = (json_object(o.get("spec")) for o in (request.old, request.object))
    return asked_replicas(one) != asked_replicas(other)


def _without_choice(request: Request, digest: str, context: JobContext) -> Response | None:
    """A denial unless a choice of sizes bears the note that this requester made it, and a job
    without a new one the note that it had.
    """
    head, text = _head(request), _annotations(request.object).get(CHOICE_ANNOTATION)
    if not _chooses(request):
        if text == _annotations(request.old).get(CHOICE_ANNOTATION):
            return None
        return deny(
            f"{head}: found a change of the annotation {CHOICE_ANNOTATION}, expected none: it says "
            "who chose spec.scheduling.replicas"
        )
    asked = asked_replicas(json_object(request.object.get("spec")))
    try:
        by = read_choice(context.tickets(), str(text or ""), digest, asked).username
    except UntrustedError as error:
        return deny(
            f"{head}: {error}; expected the one that TrainSeal's mutating webhook gives. Try "
            "again; if it stays so, that webhook, or one that runs after it, is not as it should be"
        )
    if by == request.username[:256]:
        return None
    return deny(
        f"{head}: found a note that {by!r} chose spec.scheduling.replicas, expected one of "
        f"{request.username!r}, who asks"
    )


def _signed_sizes(obj: JsonObject, template: StoredTemplate | None) -> SignedSizes | None:
    """What is signed of a job's size. None where it is made from a template that is not there as it
    was named, or cannot be read: the controller then judges by the seal.
    """
    spec = json_object(obj.get("spec"))
    if "templateRef" not in spec:
        return sizes_of_job(spec)
    if template is None or template.manifest is None:
        return None
    named = json_object(spec.get("templateRef")).get("digest")
    try:
        if template_digest(template.manifest) != named:
            return None
    except CanonicalError:
        return None
    return sizes_of_job(json_object(json_object(template.manifest.get("spec")).get("job")))


def _update(
    request: Request, obj: JsonObject, context: JobContext, template: StoredTemplate | None
) -> Response:
    old = _named(request.old, request)
    try:
        before = job_digest(old)
    except CanonicalError:
        # It was stored while nobody looked; taking it apart must stay possible, changing it not.
        before = ""
    try:
        after = job_digest(obj)
    except CanonicalError as error:
        if obj.get("spec") == old.get("spec"):
            return ALLOWED
        return deny(f"{_head(request)}: {error}")
    one, other = json_object(old.get("spec")), json_object(obj.get("spec"))
    if before == after or (one == other and not before):
        if problems := changes_beyond_bounds(other, one, _signed_sizes(obj, template)):
            found = "; ".join(str(p) for p in problems)
            return deny(f"{_head(request)}: {found}; correct it and apply the job again")
        if unnoted := _without_choice(request, after, context):
            return unnoted
        if _annotations(obj).get(TICKET_ANNOTATION) == _annotations(old).get(TICKET_ANNOTATION):
            return _signatures(request, old, obj, after, context)
        return deny(
            f"{_head(request)}: found a change of the annotation "
            f"{TICKET_ANNOTATION}, expected none: it says who asked for this run"
        )
    changed = sorted(
        k for k in one.keys() | other.keys() if k not in UNSIGNED and one.get(k) != other.get(k)
    )
    found = ", ".join(f"spec.{c}" for c in changed) or "metadata.generateName"
    return deny(
        f"{_head(request)}: found a change of {found} after admission, expected "
        f"only {', '.join(f'spec.{u}' for u in UNSIGNED)} to change; delete the job, have the new "
        "one signed, and apply it"
    )


def _signatures(
    request: Request, old: JsonObject, obj: JsonObject, digest: str, context: JobContext
) -> Response:
    """Whether a job that may wait for signatures may have these."""
    namespace, metadata = request.namespace, meta(old)
    one, other = (json_object(o.get("spec")).get("signatures") for o in (old, obj))
    policies = context.policies(namespace)
    name, uid = str(metadata.get("name")), str(metadata.get("uid"))
    if (
        one == other
        or longest_wait(policies) is None
        or context.broken()
        or context.sealed(namespace, seal_name(name, uid, digest))
    ):
        return ALLOWED
    try:
        text = str(_annotations(old).get(TICKET_ANNOTATION, ""))
        ticket = read_ticket(context.tickets(), text, digest)
        age = context.now() - ticket.time
        fault = signatures_fault(old, obj, policies, ticket.requester, age)
    except (UntrustedError, InvalidObjectError):
        return ALLOWED  # it is never sealed; taking it apart must stay possible
    if fault is None:
        return ALLOWED
    return deny(f"{_head(request)}: {fault.words}", TRY_AGAIN if fault.undetermined else FORBIDDEN)


def _answer(request: Request, found: JobVerification) -> Response:
    warnings = [f"policy in Audit: {v.sentence()}" for v in found.audited if not _good(v)]
    warnings += found.warnings
    outcome = "pending" if found.awaited else found.outcome.value
    audit = {"trainseal-outcome": outcome, "trainseal-job-digest": found.digest}
    _JUDGED.labels(outcome).inc()
    if found.outcome is Outcome.VERIFIED:
        return Response(True, warnings=warnings, audit=audit)
    if found.awaited:
        return Response(
            True,
            warnings=[*(pending_words(request, v) for v in found.awaited), *warnings],
            audit=audit,
        )
    _STOPPED.labels(found.outcome.value, found.denials[0].reason).inc()
    # Where signatures alone are refuted, and may come, it is what was not read that keeps it out.
    undetermined = found.outcome is Outcome.UNDETERMINED or bool(found.lacking)
    head = (
        f"{_head(request)} could not be verified (undetermined): "
        "the evidence could not be read, which is not the same as a bad signature. Try again"
        if undetermined
        else f"{_head(request)} is refused"
    )
    lines = [head, *(f"- {v.sentence()}" for v in _ordered(found.verdicts))]
    if found.stopped:
        lines.append(NOT_LOOKED_AT)
    return Response(
        False,
        "\n".join(lines),
        TRY_AGAIN if undetermined else FORBIDDEN,
        reasons=[v.reason for v in _ordered(found.denials)],
        warnings=warnings,
        audit=audit,
    )


def pending_words(request: Request, verdict: Verdict) -> str:
    """What who creates a job is told that waits for signatures."""
    name = meta(request.object).get("name") or request.name
    return (
        f"pending: policy {verdict.policy} still wants a signature by {verdict.lack} "
        f"({verdict.found}); nothing runs before: trainseal approve {name} "
        f"-n {request.namespace} --key KEY"
    )


#: Under a denial that came before any registry was asked.
NOT_LOOKED_AT = (
    "- images and code: not looked at yet; no registry is asked before the above is mended"
)


def _ordered(verdicts: Sequence[Verdict]) -> list[Verdict]:
    """What stands in the way first, then what is well."""
    order = {Outcome.REFUTED: 0, Outcome.UNDETERMINED: 1, Outcome.VERIFIED: 2}
    return sorted(verdicts, key=lambda v: order[v.outcome])


def _good(verdict: Verdict) -> bool:
    return verdict.outcome is Outcome.VERIFIED


def _named(obj: JsonObject, request: Request) -> JsonObject:
    """The object under the request's namespace, which counts where the object leaves it out."""
    return {**obj, "metadata": {**meta(obj), "namespace": request.namespace}}


def _annotations(obj: JsonObject) -> JsonObject:
    return json_object(meta(obj).get("annotations"))


def _annotate(obj: JsonObject, notes: JsonObject) -> list[JsonObject]:
    """A JSON patch (RFC 6902) that sets these annotations, or with None takes them away."""
    path = "/metadata/annotations"
    annotations = meta(obj).get("annotations")
    if not isinstance(annotations, Mapping):
        given: JsonObject = {k: v for k, v in notes.items() if v is not None}
        return [{"op": "add", "path": path, "value": given}] if given else []
    operations: list[JsonObject] = []
    for name, value in notes.items():
        place = f"{path}/{name.replace('/', '~1')}"
        if value is not None:
            operations.append({"op": "add", "path": place, "value": value})
        elif name in annotations:
            operations.append({"op": "remove", "path": place})
    return operations
