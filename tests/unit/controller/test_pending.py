"""A job that waits for signatures: nothing of it is made before they are all there, in time."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.unit import world
from tests.unit.controller.cluster import ENGINE, EVENTS, JOB, Cluster
from tests.unit.verifier.test_pending import two
from trainseal.provenance.keys import PrivateKey
from trainseal.provenance.sealedjobs import sealed_job
from trainseal.provenance.verdicts import Outcome


@pytest.fixture
def cluster() -> Cluster:
    """One of two has signed; the policy lets it wait for an hour."""
    found = Cluster(policy=two())
    found.submit()
    found.settle()
    return found


def signed_by(cluster: Cluster, *keys: PrivateKey) -> None:
    """Somebody puts these signatures into the job that is there."""
    job = world.sign_job(cluster.objects[JOB], *keys)
    cluster.edit(signatures=job["spec"]["signatures"])
    cluster.settle()


def test_it_says_who_is_missing_and_until_when(cluster: Cluster) -> None:
    status = cluster.status
    assert (status["phase"], status["verified"], status["missing"]) == ("Pending", "pending", "Bob")
    assert status["signers"] == "Alice"
    assert "until 2026-11-23T13:00:00Z" in status["message"]
    condition = cluster.condition("Verified")
    assert (condition["status"], condition["reason"]) == ("False", "SignaturesMissing")
    (event,) = [o for path, o in cluster.objects.items() if path.startswith(EVENTS)]
    assert (event["reason"], event["type"]) == ("SignaturesMissing", "Normal")


def test_nothing_of_it_is_made(cluster: Cluster) -> None:
    assert {o["kind"] for o in cluster.objects.values()} == {"TrainingJob", "Event"}


def test_it_runs_once_the_other_has_signed_and_asks_for_nobody_any_more(cluster: Cluster) -> None:
    signed_by(cluster, world.ALICE, world.BOB)
    assert not cluster.objects[ENGINE]["spec"]["suspend"]
    assert cluster.status["phase"] == "Sealed"
    assert "missing" not in cluster.status
    assert cluster.status["signers"] == "Alice, Bob"
    assert cluster.seal["spec"]["requester"]["username"] == "bob@example.org"


def test_a_registry_that_is_away_meanwhile_changes_nothing(cluster: Cluster) -> None:
    cluster.evidence.outcomes[world.IMAGE] = Outcome.UNDETERMINED
    cluster.settle()
    assert (cluster.status["phase"], cluster.status["missing"]) == ("Pending", "Bob")
    signed_by(cluster, world.ALICE, world.BOB)
    assert (cluster.status["phase"], cluster.status["verified"]) == ("Pending", "undetermined")
    cluster.evidence.outcomes.clear()
    cluster.settle()
    assert cluster.status["phase"] == "Sealed"


def test_a_strangers_signature_changes_nothing(cluster: Cluster) -> None:
    signed_by(cluster, world.ALICE, world.MALLORY)
    assert cluster.status["missing"] == "Bob"
    assert ENGINE not in cluster.objects


def test_what_was_well_when_it_was_created_is_looked_at_again(cluster: Cluster) -> None:
    cluster.evidence.outcomes[world.CODE] = Outcome.REFUTED
    signed_by(cluster, world.ALICE, world.BOB)
    assert cluster.status["phase"] == "Refused"
    assert "missing" not in cluster.status


@pytest.mark.parametrize("late", [False, True])
def test_it_does_not_wait_longer_than_the_policy_lets_it_whoever_signs_then(
    cluster: Cluster, late: bool
) -> None:
    cluster.now += timedelta(hours=1, seconds=1)
    if late:
        signed_by(cluster, world.ALICE, world.BOB)
    else:
        cluster.edit(suspend=True)
        cluster.settle()
    assert cluster.condition("Verified")["reason"] == "PendingTooLong"
    assert "spec.pending.maxAgeSeconds" in cluster.status["message"]
    assert cluster.status["phase"] == "Refused"
    assert ENGINE not in cluster.objects


def test_one_that_had_all_signatures_from_the_first_is_kept_by_no_such_time() -> None:
    cluster = Cluster(policy=two())
    cluster.submit()
    job = world.sign_job(cluster.objects[JOB], world.ALICE, world.BOB)
    assert len(job["spec"]["signatures"]) == 2
    cluster.evidence.outcomes[world.IMAGE] = Outcome.UNDETERMINED
    cluster.settle()
    cluster.now += timedelta(hours=2)
    cluster.evidence.outcomes.clear()
    cluster.settle()
    assert cluster.status["phase"] == "Sealed"


def test_its_seal_keeps_what_was_signed_for_who_approves_the_next(cluster: Cluster) -> None:
    signed_by(cluster, world.ALICE, world.BOB)
    kept = sealed_job(cluster.seal)
    assert kept is not None
    assert kept["roles"] == cluster.objects[JOB]["spec"]["roles"]
    assert "signatures" not in kept
    # Whatever somebody puts there instead is not it.
    changed = cluster.seal
    changed["status"]["signed"] = {**kept, "engine": "Other"}
    assert sealed_job(changed) is None


def test_a_job_that_is_too_long_is_not_kept_and_runs(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainseal.provenance.sealedjobs.MAX_SPEC_BYTES", 100)
    signed_by(cluster, world.ALICE, world.BOB)
    assert sealed_job(cluster.seal) is None
    assert cluster.status["phase"] == "Sealed"
