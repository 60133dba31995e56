"""Verifies a TrainingTemplate when it is made: its form, its signatures, and the job in it.

No registry is asked: images and code are judged with each job that starts from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime

from pydantic import JsonValue

from trainseal.api.model import InvalidObjectError, json_object
from trainseal.api.trainingjob import TrainingJob
from trainseal.api.trainingtemplate import TrainingTemplate
from trainseal.provenance.canonical import TEMPLATE_KIND, CanonicalError, canonical_form
from trainseal.provenance.jobbounds import check_bounds
from trainseal.provenance.jobrules import RunFacts, job_rules, job_warnings
from trainseal.provenance.judgement import Signed
from trainseal.provenance.policies import CompiledPolicy
from trainseal.provenance.templates import template_faults
from trainseal.provenance.verdicts import Outcome, Verdict
from trainseal.verifier.jobs import (
    JobVerification,
    judge_signatures,
    no_policy,
    not_usable,
    outside_registries,
    read_bundles,
)
from trainseal.verifier.policystore import BrokenPolicy

Json = Mapping[str, JsonValue]


def verify_template(
    manifest: Json,
    policies: Sequence[CompiledPolicy],
    broken: Sequence[BrokenPolicy],
    facts: RunFacts,
    now: datetime,
) -> JobVerification:
    """The verdicts on a template. Pure; raises nothing for a bad one."""
    try:
        template = TrainingTemplate.parse(manifest)
        namespace, name = template.metadata.namespace, template.metadata.name
        spec = json_object(manifest.get("spec"))
        # As if it were run with what it has itself: of its name no more is asked than of any.
        whole = {**manifest, "kind": "TrainingJob", "spec": json_object(spec.get("job"))}
        job = TrainingJob.parse(whole)
        check_bounds(job, {**json_object(spec.get("job")), "signatures": spec.get("signatures")})
        signed = Signed(TEMPLATE_KIND, namespace, name, canonical_form(manifest, TEMPLATE_KIND))
    except (InvalidObjectError, CanonicalError) as error:
        return JobVerification("", (_invalid(error),), (), tuple(policies), stopped=True)
    place = f"{namespace}/{name}"
    whatever = [
        Verdict("template", f.place, "", Outcome.REFUTED, f.reason, f.found, f.wanted, f.remedy)
        for f in template_faults(template)
    ]
    whatever += [not_usable(policy) for policy in broken]
    if not policies:
        whatever.append(no_policy(namespace, name, "template"))
    pieces = read_bundles(template.spec.signatures)
    enforced, audited = list(whatever), list[Verdict]()
    for policy in policies:
        found = [
            judge_signatures(signed, pieces, policy),
            *(v for v in job_rules(job, signed.digest, policy, facts, now) if v.reason != _NAME),
            *outside_registries(job, policy),
            *_unknown_authorities(template, policy, place),
        ]
        (enforced if policy.mode == "Enforce" else audited).extend(found)
    return JobVerification(
        signed.digest,
        tuple(dict.fromkeys(enforced)),
        tuple(dict.fromkeys(audited)),
        tuple(policies),
        warnings=job_warnings(job),
    )


#: The name that pods will carry is the job's.
_NAME = "InvalidName"


def _unknown_authorities(
    template: TrainingTemplate, policy: CompiledPolicy, place: str
) -> Iterator[Verdict]:
    """Authorities that the template names and the policy does not have."""
    signers = {authority.name for authority in policy.code.authorities}
    named = [
        (f"spec.code[{mount}].authority", choice.authority, signers, "requirements.code")
        for mount, choice in (template.spec.code or {}).items()
    ]
    named += [
        (
            f"spec.launch.requesters[{at}].authority",
            rule.authority,
            set(policy.people),
            "kubernetes",
        )
        for at, rule in enumerate(template.spec.launch.requesters)
        if rule.authority
    ]
    for field, name, known, where in named:
        if name not in known:
            yield Verdict(
                "template", field, place, Outcome.REFUTED, "UnknownAuthority",
                f"authority {name}", f"one of {where}: {', '.join(sorted(known)) or 'none'}",
                "correct the name, or have the platform team add the authority",
                policy=policy.name,
            )  # fmt: skip


def _invalid(error: InvalidObjectError | CanonicalError) -> Verdict:
    return Verdict(
        "template", "spec", "", Outcome.REFUTED, "InvalidTemplate", str(error),
        remedy="correct the template and have it signed again",
    )  # fmt: skip
