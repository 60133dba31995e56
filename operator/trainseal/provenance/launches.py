"""Whether a job may start from a template: which it is, who asks, until when. Pure.

Each rule gives a verdict only where it is broken. What stands in a template is believed because
people signed it; that they did is judged beside (judgement).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue, ValidationError

from trainseal.api.model import InvalidObjectError, JsonObject, json_object, problems_of
from trainseal.api.trainingjob import SubmittedJob, TemplateRef
from trainseal.api.trainingtemplate import TrainingTemplate
from trainseal.provenance.canonical import (
    KIND,
    TEMPLATE_KIND,
    CanonicalError,
    canonical_form,
)
from trainseal.provenance.jobrules import RunFacts
from trainseal.provenance.judgement import Signed
from trainseal.provenance.policies import CompiledPolicy
from trainseal.provenance.templates import FaultyLaunchError, StoredTemplate, made_from
from trainseal.provenance.verdicts import Outcome, Verdict

Json = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Launch:
    """A job that was made from a template. ``signed`` is what the template's approvers sign;
    ``asked`` what the job gives, and ``made`` the whole job.
    """

    template: TrainingTemplate
    signed: Signed
    asked: SubmittedJob
    made: JsonObject

    @property
    def name(self) -> str:
        """The template's."""
        return self.template.metadata.name

    @property
    def digest(self) -> str:
        """The template's."""
        return self.signed.digest


def template_ref(manifest: Json) -> TemplateRef | None:
    """The template that a TrainingJob names, if it does; nothing else of the job is looked at.

    Raises InvalidObjectError.
    """
    named = json_object(manifest.get("spec")).get("templateRef")
    if named is None:
        return None
    try:
        return TemplateRef.model_validate(named)
    except ValidationError as error:
        raise InvalidObjectError(KIND, problems_of(error, "spec.templateRef")) from None


def counted_by(manifest: Json, own: str) -> str:
    """The digest by which a job's runs are counted: its template's, or its ``own``."""
    named = json_object(json_object(manifest.get("spec")).get("templateRef"))
    return str(named.get("digest") or own)


def read_launch(manifest: Json, stored: StoredTemplate | None) -> Launch | tuple[Verdict, ...]:
    """The job that a TrainingJob with a ``templateRef`` stands for, or why there is none.

    ``stored`` is the template as the cluster has it. Raises InvalidObjectError, CanonicalError.
    """
    asked = SubmittedJob.parse(manifest)
    named = asked.spec.template_ref
    if named is None:
        raise CanonicalError(
            ("spec", "templateRef"), "nothing", "a template", "name one, or write a whole job"
        )
    place = f"{asked.metadata.namespace}/{named.name}"
    if stored is None or stored.why:
        why = stored.why if stored else "templates of a cluster are not known here"
        return (_undetermined(place, named.digest, why),)
    if stored.manifest is None:
        return (
            _refuted(
                place, named.digest, "TemplateNotFound", "no template of this name",
                "a TrainingTemplate of the job's namespace",
                "`kubectl get trainingtemplates` lists them",
            ),
        )  # fmt: skip
    try:
        template = TrainingTemplate.parse(stored.manifest)
        signed = Signed(
            TEMPLATE_KIND,
            asked.metadata.namespace,
            template.metadata.name,
            canonical_form(stored.manifest, TEMPLATE_KIND),
        )
        digest = signed.digest
        if digest != named.digest:
            return (_replaced(place, named.digest, digest),)
        made = made_from(stored.manifest, manifest)
    except FaultyLaunchError as error:
        return tuple(
            _refuted(f.place, digest, f.reason, f.found, f.wanted, f.remedy) for f in error.faults
        )
    except InvalidObjectError as error:
        if error.kind != TEMPLATE_KIND:
            raise
        return (
            _refuted(
                place, named.digest, "InvalidTemplate", str(error), "a template that can be read",
                "correct the template and have it signed again",
            ),
        )  # fmt: skip
    return Launch(template, signed, asked, made)


def launch_rules(
    launch: Launch, policy: CompiledPolicy, facts: RunFacts, now: datetime
) -> tuple[Verdict, ...]:
    """Every broken rule, as a verdict."""
    return tuple(_rules(launch, policy, facts, now))


def _rules(
    launch: Launch, policy: CompiledPolicy, facts: RunFacts, now: datetime
) -> Iterator[Verdict]:
    rules = launch.template.spec.launch
    place = f"{launch.asked.metadata.namespace}/{launch.name}"
    if revoked := launch.template.spec.revoked:
        yield _refuted(
            place, launch.digest, "TemplateRevoked", f"it is revoked: {revoked.reason}",
            "a template that is in force", "have a new template signed", policy.name,
        )  # fmt: skip
    if rules.not_after and now > rules.not_after:
        yield _refuted(
            place, launch.digest, "TemplateExpired",
            f"launch.notAfter {rules.not_after.isoformat()} has passed",
            f"a start before it, it is {now.isoformat(timespec='seconds')}",
            "have a template signed with a later launch.notAfter", policy.name,
        )  # fmt: skip
    if facts.requester is None:
        yield _undetermined(place, launch.digest, "who asks is not known here", policy.name)
        return
    requester = facts.requester
    for rule in rules.requesters:
        person = policy.people.get(rule.authority) if rule.authority else None
        if (person and person.admits(requester)) or requester.is_named(
            [rule.user] if rule.user else (), [rule.group] if rule.group else ()
        ):
            return
    named = [
        f"user {r.user}"
        if r.user
        else f"group {r.group}"
        if r.group
        else f"authority {r.authority}"
        for r in rules.requesters
    ]
    yield _refuted(
        place, launch.digest, "NotARequester", f"{requester.username} asks",
        f"one of the template's launch.requesters: {', '.join(named[:8])}",
        "have one of them start it, or a template signed that names you", policy.name,
    )  # fmt: skip


def newer_code(launch: Launch, code: Iterable[Verdict], policy: str) -> Iterator[Verdict]:
    """Newer code that its authority did not sign. ``code`` are the verdicts on the job's code."""
    choices = launch.template.spec.code or {}
    wanted = {c.name: choices[c.name].authority for c in launch.asked.spec.code_references or ()}
    for verdict in code:
        authority = wanted.get(verdict.name)
        if verdict.policy != policy or authority is None:
            continue
        signers = [s.authority for s in verdict.signers]
        if authority not in signers:
            yield Verdict(
                "code", verdict.name, "", Outcome.REFUTED, "NotByTheTemplatesAuthority",
                f"signed by {', '.join(signers) or 'nobody'}",
                f"a signature by {authority}, as the template says",
                f"have {authority} sign it, or leave spec.codeReferences out", policy=policy,
            )  # fmt: skip


def _replaced(place: str, wanted: str, found: str) -> Verdict:
    return _refuted(
        place, wanted, "TemplateReplaced", f"the template has digest {found}",
        f"the digest that the job names, {wanted}",
        "see what is new (`trainseal template diff`), and name the digest that you mean",
    )  # fmt: skip


def _refuted(
    place: str, subject: str, reason: str, found: str, wanted: str, remedy: str, policy: str = ""
) -> Verdict:
    return Verdict(
        "template", place, subject, Outcome.REFUTED, reason, found, wanted, remedy, policy=policy
    )


def _undetermined(place: str, subject: str, why: str, policy: str = "") -> Verdict:
    return Verdict(
        "template", place, subject, Outcome.UNDETERMINED, "TemplateNotRead", why,
        "the template, and who asks", "try again", policy=policy,
    )  # fmt: skip
