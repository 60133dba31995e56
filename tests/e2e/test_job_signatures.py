"""Signatures on jobs: whose they are, what they are on, how many. Each attack beside its twin."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

import pytest

from tests.e2e.lab import PAIR, TEAM, Lab, Object, changed
from tests.stage.jobs import renamed, trainer
from tests.stage.signing import cosign_bundle, signed
from trainseal.provenance.bundles import make_bundle_dsse
from trainseal.provenance.canonical import job_digest
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE
from trainseal.provenance.statements import JOB_PREDICATE, STATEMENT_V1, job_subject
from trainseal.verifier.jobs import MAX_JOB_BUNDLE_BYTES


def test_a_job_signed_by_a_named_person_is_accepted(lab: Lab) -> None:
    assert lab.accepts(lab.signed_job("signed"))


def test_an_unsigned_job_is_refused(lab: Lab) -> None:
    said = lab.refusal(lab.job("unsigned"))
    assert "job research/unsigned: refuted: no signature found" in said
    assert "policy research wants a signature by one of alice, bob" in said
    assert "trainseal sign job" in said
    assert said.rstrip().endswith("see docs/how-to/refused.md#nobody-signed-it")


def test_a_job_signed_by_somebody_the_policy_does_not_name_is_refused(lab: Lab) -> None:
    said = lab.refusal(signed(lab.job("by-mallory"), lab.mallory))
    assert "none that counts" in said
    assert "one of alice, bob" in said


def test_a_strangers_signature_beside_a_good_one_does_no_harm(lab: Lab) -> None:
    assert lab.accepts(signed(lab.job("by-both"), lab.mallory, lab.alice))


def _learning_rate(job: Object) -> None:
    job["spec"]["config"]["parameters"]["learning_rate"] = 0.3


def _command(job: Object) -> None:
    trainer(job)["command"] = ["python3", "/workspace/finish.py"]


def _environment(job: Object) -> None:
    trainer(job)["env"][0]["value"] = "64"


def _mount(job: Object) -> None:
    job["spec"]["code"][0]["mountPath"] = "/srv"


def _checkpoints(job: Object) -> None:
    volume = {"persistentVolumeClaim": {"claimName": "somebody-elses"}}
    job["spec"]["checkpoints"]["volume"] = volume


def _replicas(job: Object) -> None:
    job["spec"]["roles"][0]["replicas"] = 2


@pytest.mark.parametrize(
    "change",
    [_learning_rate, _command, _environment, _mount, _checkpoints, _replicas],
    ids=lambda change: change.__name__.strip("_"),
)
def test_what_was_signed_cannot_be_changed(lab: Lab, change: Callable[[Object], None]) -> None:
    said = lab.refusal(changed(lab.signed_job("changed"), change))
    assert "changed after signing" in said


def test_where_and_when_it_runs_can_be_changed(lab: Lab) -> None:
    def scheduling(job: Object) -> None:
        job["spec"]["scheduling"] = {"nodeSelector": {"kubernetes.io/os": "linux"}}
        job["spec"]["suspend"] = True

    assert lab.accepts(changed(lab.signed_job("elsewhere"), scheduling))


def test_a_signature_of_another_job_does_not_count(lab: Lab) -> None:
    other = lab.signed_job("other")
    said = lab.refusal(renamed(other, "lifted"))
    assert "belongs to another job" in said
    assert "trainingjob/research/other@" in said
    assert lab.accepts(other)


def test_a_signature_from_another_namespace_does_not_count(lab: Lab) -> None:
    elsewhere = signed(lab.job("moved", namespace=PAIR), lab.alice, lab.bob)
    assert lab.accepts(elsewhere)
    moved = copy.deepcopy(elsewhere)
    moved["metadata"]["namespace"] = TEAM
    said = lab.refusal(moved)
    assert "belongs to another job" in said


def test_two_signatures_by_one_person_are_one(lab: Lab) -> None:
    job = lab.job("pair", namespace=PAIR)
    for people in ((lab.alice, lab.alice), (lab.alice, lab.alice_again)):
        said = lab.refusal(signed(job, *people))
        assert "signed by alice only" in said
        assert "signatures by 2 different persons" in said
    assert lab.accepts(signed(job, lab.alice, lab.bob))


def test_one_bundle_twice_is_one(lab: Lab) -> None:
    job = signed(lab.job("twice", namespace=PAIR), lab.alice)
    job["spec"]["signatures"] *= 2
    assert "signed by alice only" in lab.refusal(job)


@pytest.mark.parametrize(
    "bundle",
    [
        {},
        {"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json"},
        {"mediaType": "text/plain", "dsseEnvelope": {"payload": "e30=", "signatures": []}},
    ],
    ids=["empty", "without content", "of another kind"],
)
def test_what_is_no_bundle_is_refused_and_hides_no_good_one(lab: Lab, bundle: Object) -> None:
    job = lab.job("malformed")
    job["spec"]["signatures"] = [{"bundle": bundle}]
    assert "refuted" in lab.refusal(job)
    assert lab.accepts(signed(job, lab.alice))


def test_a_bundle_with_a_broken_signature_is_refused(lab: Lab) -> None:
    job = lab.signed_job("broken")
    envelope = job["spec"]["signatures"][0]["bundle"]["dsseEnvelope"]
    good = envelope["signatures"][0]["sig"]
    envelope["signatures"][0]["sig"] = good[:-8] + "AAAAAA" + good[-2:]
    assert "none that counts" in lab.refusal(job)


def test_a_bundle_may_be_as_large_as_the_limit_and_not_larger(lab: Lab) -> None:
    job = lab.job("large")

    def bundle(padding: int) -> Object:
        statement = {
            "_type": STATEMENT_V1,
            "subject": [
                {
                    "name": job_subject(TEAM, "large"),
                    "digest": {"sha256": job_digest(job).removeprefix("sha256:")},
                }
            ],
            "predicateType": JOB_PREDICATE,
            "predicate": {"padding": "x" * padding},
        }
        return make_bundle_dsse(lab.alice.key, json.dumps(statement).encode(), IN_TOTO_PAYLOAD_TYPE)

    def size(found: Object) -> int:
        return len(json.dumps(found, separators=(",", ":")))

    # Base64 turns three bytes into four: the padding that comes closest to the limit.
    padding = (MAX_JOB_BUNDLE_BYTES - size(bundle(0))) * 3 // 4 - 3
    largest = bundle(padding)
    assert MAX_JOB_BUNDLE_BYTES - 16 < size(largest) <= MAX_JOB_BUNDLE_BYTES
    job["spec"]["signatures"] = [{"bundle": largest}]
    assert lab.accepts(job)
    job["spec"]["signatures"] = [{"bundle": bundle(padding + 64)}]
    assert "refuted" in lab.refusal(job)


def test_a_signature_made_by_cosign_alone_counts(lab: Lab) -> None:
    job = lab.job("by-cosign")
    good = cosign_bundle(lab.target, job, lab.alice, lab.folder)
    job["spec"]["signatures"] = [{"bundle": good}]
    assert lab.accepts(job)
    strangers = cosign_bundle(lab.target, job, lab.mallory, lab.folder)
    job["spec"]["signatures"] = [{"bundle": strangers}]
    assert "none that counts" in lab.refusal(job)
