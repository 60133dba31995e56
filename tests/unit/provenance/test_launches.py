"""Whether a job may start from a template: which it is, who asks, until when, with whose code."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.unit import world
from trainseal.provenance.canonical import job_digest
from trainseal.provenance.jobrules import RunFacts
from trainseal.provenance.policies import CompiledPolicy
from trainseal.provenance.requesters import Requester
from trainseal.provenance.templates import StoredTemplate
from trainseal.provenance.verdicts import Outcome
from trainseal.verifier.jobs import JobVerification

Object = dict[str, Any]
Change = Callable[[Object], object]
BOB = Requester("bob@example.org")
NEWER = world.CODE.partition("@")[0] + "@sha256:" + "d" * 64


def signed(change: Change | None = None) -> Object:
    """A template that Alice signed; ``change`` is made before."""
    template = world.template_object()
    if change:
        change(template)
    return world.sign_template(template, world.ALICE)


def verified(
    template: Object,
    *policies: CompiledPolicy,
    requester: Requester | None = BOB,
    stored: StoredTemplate | None = None,
    evidence: world.Evidence | None = None,
    runs: int = 0,
    **spec: Any,
) -> JobVerification:
    facts = RunFacts(world.CLUSTER, runs, requester, stored or StoredTemplate(template))
    job = world.launched_job(template, **spec)
    return world.verify(job, *policies, facts=facts, evidence=evidence)


def reasons(found: JobVerification) -> list[str]:
    return [v.reason for v in found.denials]


def test_who_is_named_starts_a_run_of_a_signed_template() -> None:
    found = verified(signed(), parameters={"learning_rate": 0.0005})
    assert found.outcome is Outcome.VERIFIED
    assert found.job is not None
    assert found.launch is not None
    assert found.digest == job_digest(found.launch.made)
    assert found.job.spec.config is not None
    assert found.job.spec.config.parameters["learning_rate"] == 0.0005
    first = found.verdicts[0]
    assert (first.artifact, first.name) == ("template", "research/pretrain-v7")
    assert first.signers[0].person == "Alice"


@pytest.mark.parametrize(
    "requester",
    [Requester("carol@example.org", frozenset({"research", "x"})), BOB],
)
def test_a_user_or_a_member_of_a_group_may(requester: Requester) -> None:
    assert verified(signed(), requester=requester).outcome is Outcome.VERIFIED


@pytest.mark.parametrize(
    "requester",
    [
        Requester("mallory@example.org", frozenset({"system:authenticated"})),
        # Whoever can make pods can act as it; its groups are nobody's.
        Requester("system:serviceaccount:research:default", frozenset({"research"})),
    ],
)
def test_nobody_else_may_and_is_told_who_may(requester: Requester) -> None:
    found = verified(signed(), requester=requester)
    assert reasons(found) == ["NotARequester"]
    assert "user bob@example.org, group research" in found.denials[0].wanted


def test_a_service_account_may_that_is_named_by_its_user_name() -> None:
    account = "system:serviceaccount:argo:workflows"
    template = signed(lambda t: t["spec"]["launch"].update(requesters=[{"user": account}]))
    assert verified(template, requester=Requester(account)).outcome is Outcome.VERIFIED


def with_nightly(**source: Any) -> CompiledPolicy:
    authorities = world.policy_object()["spec"]["authorities"]
    return world.policy(authorities=[*authorities, {"name": "nightly", "kubernetes": source}])


def by_authority() -> Object:
    return signed(lambda t: t["spec"]["launch"].update(requesters=[{"authority": "nightly"}]))


@pytest.mark.parametrize(
    ("source", "user", "groups", "may"),
    [
        ({"users": ["ci@example.org"]}, "ci@example.org", (), True),
        ({"groups": ["ci"]}, "any@example.org", ("ci",), True),
        ({"users": ["ci@example.org"]}, "other@example.org", ("ci",), False),
        ({"groups": ["ci"]}, "system:serviceaccount:research:default", ("ci",), False),
    ],
)
def test_an_authority_of_the_policy_stands_for_those_it_names(
    source: Object, user: str, groups: tuple[str, ...], may: bool
) -> None:
    asks = Requester(user, frozenset(groups))
    found = verified(by_authority(), with_nightly(**source), requester=asks)
    assert reasons(found) == ([] if may else ["NotARequester"])


def test_an_authority_that_a_policy_lacks_names_nobody() -> None:
    assert reasons(verified(by_authority())) == ["NotARequester"]


def test_a_template_that_nobody_signed_starts_nothing() -> None:
    assert reasons(verified(world.template_object())) == ["NoSignature"]


def test_who_asks_approves_nothing_of_a_template() -> None:
    authority = {"name": "bob-asks", "person": "Bob", "kubernetes": {"users": [BOB.username]}}
    spec = world.policy_object()["spec"]
    policy = world.policy(
        authorities=[*spec["authorities"], authority],
        requirements=spec["requirements"] | {"job": {"authorities": ["bob-asks"]}},
    )
    assert reasons(verified(world.template_object(), policy)) == ["NoSignature"]


def test_a_template_that_was_changed_after_it_was_signed_starts_nothing() -> None:
    template = signed()
    template["spec"]["parameters"]["learning_rate"]["maximum"] = 100
    assert reasons(verified(template)) == ["OtherJob"]


def test_a_signature_of_a_job_is_none_of_a_template_of_the_same_name() -> None:
    template, job = world.template_object(), world.job_object()
    job["metadata"]["name"] = template["metadata"]["name"]
    template["spec"]["signatures"] = world.sign_job(job, world.ALICE)["spec"]["signatures"]
    assert reasons(verified(template)) == ["OtherJob"]


def test_a_template_of_another_digest_is_a_replaced_one() -> None:
    newer = signed(lambda t: t["spec"]["launch"].update(maxConcurrent=1))
    found = verified(signed(), stored=StoredTemplate(newer))
    assert reasons(found) == ["TemplateReplaced"]


def test_a_template_that_is_not_there_is_refused_and_one_that_cannot_be_read_undetermined() -> None:
    found = verified(signed(), stored=StoredTemplate(None))
    assert (found.outcome, reasons(found)) == (Outcome.REFUTED, ["TemplateNotFound"])
    found = verified(signed(), stored=StoredTemplate(None, "timeout"))
    assert (found.outcome, reasons(found)) == (Outcome.UNDETERMINED, ["TemplateNotRead"])


def test_where_it_is_not_known_who_asks_nothing_can_be_told() -> None:
    assert verified(signed(), requester=None).outcome is Outcome.UNDETERMINED


def test_a_revoked_template_starts_nothing_and_says_why() -> None:
    template = signed()
    template["spec"]["revoked"] = {"reason": "diverges"}
    found = verified(template)
    assert reasons(found) == ["TemplateRevoked"]
    assert "diverges" in found.denials[0].found


@pytest.mark.parametrize(
    ("launch", "reason"),
    [
        ({"notAfter": "2026-11-23T11:59:59Z"}, "TemplateExpired"),
        ({"notAfter": "2026-11-23T12:00:01Z"}, None),
    ],
)
def test_a_template_starts_runs_until_its_end(launch: Object, reason: str | None) -> None:
    template = signed(lambda t: t["spec"]["launch"].update(launch))
    assert reasons(verified(template)) == ([reason] if reason else [])


def test_the_bounds_of_its_job_count_the_templates_runs() -> None:
    template = signed(lambda t: t["spec"]["job"].update(validity={"maxRuns": 3}))
    assert reasons(verified(template, runs=2)) == []
    assert reasons(verified(template, runs=3)) == ["MaxRunsReached"]


def test_a_value_out_of_bounds_asks_no_registry() -> None:
    evidence = world.Evidence()
    found = verified(signed(), evidence=evidence, parameters={"learning_rate": 1})
    assert (reasons(found), evidence.asked) == (["OutOfBounds"], [])


# Newer code -------------------------------------------------------------------------------------


def test_newer_code_must_be_signed_by_whom_the_template_names() -> None:
    newer = [{"name": "trainer", "reference": NEWER}]
    evidence = world.Evidence()
    assert verified(signed(), evidence=evidence, codeReferences=newer).outcome is Outcome.VERIFIED
    assert NEWER in evidence.asked
    by_bob = signed(lambda t: t["spec"]["code"]["trainer"].update(authority="bob"))
    assert reasons(verified(by_bob, codeReferences=newer)) == ["NotByTheTemplatesAuthority"]
    # The template's own code was approved with the template.
    assert verified(by_bob).outcome is Outcome.VERIFIED


# Who asks for a job that is whole ---------------------------------------------------------------


def asking(threshold: int, *authorities: Object, signers: tuple[Any, ...] = ()) -> JobVerification:
    spec = world.policy_object()["spec"]
    names = [a["name"] for a in authorities] + ["alice", "bob"]
    policy = world.policy(
        authorities=[*spec["authorities"], *authorities],
        requirements=spec["requirements"] | {"job": {"authorities": names, "threshold": threshold}},
    )
    job = world.job_object()
    if signers:
        world.sign_job(job, *signers)
    requester = Requester(BOB.username, frozenset({"research"}))
    return world.verify(job, policy, facts=RunFacts(world.CLUSTER, 0, requester))


BOB_ASKS = {"name": "bob-asks", "person": "Bob", "kubernetes": {"users": [BOB.username]}}
TEAM = {"name": "team", "kubernetes": {"groups": ["research"]}}


def test_the_requester_counts_as_the_person_the_policy_names() -> None:
    found = asking(1, BOB_ASKS)
    assert found.outcome is Outcome.VERIFIED
    (signer,) = found.verdicts[0].signers
    assert (signer.person, signer.identity, signer.issuer) == ("Bob", BOB.username, "kubernetes")


def test_the_requester_and_an_approver_are_two_persons() -> None:
    assert asking(2, BOB_ASKS, signers=(world.ALICE,)).outcome is Outcome.VERIFIED


def test_who_signs_and_asks_is_one_person_still() -> None:
    assert reasons(asking(2, BOB_ASKS, signers=(world.BOB,))) == ["NotEnoughSigners"]


def test_a_member_of_a_group_counts_alone_and_with_others_only_where_it_is_known_who_that_is() -> (
    None
):
    assert asking(1, TEAM).outcome is Outcome.VERIFIED
    # Bob may well be a member, and his key his own.
    assert reasons(asking(2, TEAM, signers=(world.BOB,))) == ["NotEnoughSigners"]
    assert reasons(asking(2, TEAM, signers=(world.ALICE,))) == ["NotEnoughSigners"]
    assert asking(2, TEAM, BOB_ASKS, signers=(world.ALICE,)).outcome is Outcome.VERIFIED
    assert reasons(asking(2, TEAM, BOB_ASKS, signers=(world.BOB,))) == ["NotEnoughSigners"]


def test_offline_it_cannot_be_told_who_asks() -> None:
    spec = world.policy_object()["spec"]
    policy = world.policy(
        authorities=[*spec["authorities"], BOB_ASKS],
        requirements=spec["requirements"] | {"job": {"authorities": ["bob-asks"]}},
    )
    assert world.verify(world.job_object(), policy).outcome is Outcome.UNDETERMINED
