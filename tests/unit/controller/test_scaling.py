"""An elastic run from its binding on: epochs signed, its Job as large as they say."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest

from tests.unit import world
from tests.unit.controller.cluster import ENGINE, EVENTS, JOB, Cluster, DiedError
from trainseal.api.sealedrun import MAX_EPOCHS
from trainseal.cluster.api import KubeError
from trainseal.controller.podbook import GONE_SECONDS
from trainseal.controller.scaling import EPOCH_SECONDS
from trainseal.provenance.canonical import job_digest
from trainseal.provenance.choosers import CHOICE_ANNOTATION, Choice, note_choice
from trainseal.provenance.seals import membership_of, verify_binding

Object = dict[str, Any]


def submitted(workers: int | None = None) -> Cluster:
    """A job of two to five workers that was just let in."""
    found = Cluster()
    found.submit(world.elastic)
    if workers is not None:
        choose(found, workers)
    return found


def choose(cluster: Cluster, workers: int | None, by: str | None = "carol@example.org") -> None:
    """Somebody chooses so many, through the webhook; ``by`` None: past it."""
    asked = {} if workers is None else {"worker": workers}
    cluster.edit(scheduling={"replicas": asked} if asked else {})
    if by is not None:
        job = cluster.objects[JOB]
        choice = Choice(by, job_digest(job), asked, cluster.now)
        noted = note_choice(world.TICKET_KEY, choice)
        job["metadata"]["annotations"][CHOICE_ANNOTATION] = noted


def on(workers: int | None = None) -> Cluster:
    """A run whose workers are ready."""
    found = submitted(workers)
    found.settle()
    size = found.objects[ENGINE]["spec"]["completions"]
    found.engine(startTime="2026-11-23T12:00:00Z", active=size, ready=size)
    found.settle()
    return found


def later(cluster: Cluster, seconds: float = EPOCH_SECONDS + 1) -> None:
    cluster.now += timedelta(seconds=seconds)


def members(cluster: Cluster) -> tuple[int, int]:
    """The epoch of a binding that verifies, and its workers."""
    seal = cluster.seal
    binding = seal["status"]["binding"]
    assert verify_binding(
        world.keyring(),
        cluster=world.CLUSTER,
        namespace="research",
        name=seal["metadata"]["name"],
        spec=seal["spec"],
        binding=binding,
    )
    found = membership_of(binding)
    assert found is not None
    return found.epoch, found.members["worker"]


def size(cluster: Cluster) -> tuple[int, int]:
    spec = cluster.objects[ENGINE]["spec"]
    return spec["completions"], spec["parallelism"]


def epochs(cluster: Cluster) -> list[tuple[int, int, str | None]]:
    return [
        (e["number"], e["members"][0]["replicas"], e.get("user"))
        for e in cluster.seal["status"]["epochs"]
    ]


def placed(cluster: Cluster) -> tuple[str, str]:
    found = cluster.condition("Placed")
    return found["status"], found["reason"]


# Bound ------------------------------------------------------------------------------------------


def test_where_nothing_is_chosen_a_run_begins_with_as_many_as_may_be() -> None:
    cluster = on()
    assert (members(cluster), size(cluster)) == ((1, 5), (5, 5))
    assert epochs(cluster) == [(1, 5, None)]
    assert cluster.status["ready"] == "5/5"
    assert cluster.seal["spec"]["roles"][0]["minReplicas"] == 2


def test_a_run_begins_with_as_many_as_were_chosen_before_any_pod_is_made() -> None:
    cluster = submitted(3)
    cluster.settle()
    assert (members(cluster), size(cluster)) == ((1, 3), (3, 3))
    assert epochs(cluster) == [(1, 3, "carol@example.org")]
    sized = cluster.writes.index(f"PATCH {ENGINE}")
    bound = cluster.writes.index(
        next(w for w in cluster.writes if "sealedruns" in w and "PATCH" in w)
    )
    assert bound < sized, "nothing is scaled before it is signed"
    assert not cluster.objects[ENGINE]["spec"]["suspend"]


def test_a_run_of_one_size_has_no_epochs() -> None:
    cluster = Cluster()
    cluster.submit()
    cluster.settle()
    assert "epochs" not in cluster.seal["status"]
    assert membership_of(cluster.seal["status"]["binding"]) is None
    assert "minReplicas" not in cluster.seal["spec"]["roles"][0]


# Scaled -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [2, 4, 5])
def test_another_choice_makes_the_next_epoch_and_then_the_job_follows(workers: int) -> None:
    cluster = on(3)
    later(cluster)
    before = len(cluster.writes)
    choose(cluster, workers, by="dave@example.org")
    cluster.settle()
    assert (members(cluster), size(cluster)) == ((2, workers), (workers, workers))
    assert epochs(cluster)[1:] == [(2, workers, "dave@example.org")]
    made = [w for w in cluster.writes[before:] if "sealedruns" in w or w.endswith(ENGINE)]
    assert ["sealedruns" in w for w in made] == [True, False], "signed, then scaled"
    assert cluster.status["roles"][0]["replicas"] == workers
    assert cluster.status["scheduling"] == {"replicas": {"worker": workers}}
    assert placed(cluster) == ("True", "AsScheduled")
    scaled = next(o for p, o in cluster.objects.items() if EVENTS in p and o["reason"] == "Scaled")
    assert scaled["message"] == (
        f"epoch 2: {workers} worker; before 3 worker; chosen by dave@example.org"
    )


def test_the_run_was_bound_when_it_was_and_each_epoch_began_when_it_did() -> None:
    cluster = on(3)
    bound = cluster.seal["status"]["binding"]["boundAt"]
    later(cluster)
    choose(cluster, 4)
    cluster.settle()
    binding = cluster.seal["status"]["binding"]
    assert binding["boundAt"] == bound
    assert binding["epochSince"] == "2026-11-23T12:00:31Z"


def test_a_choice_that_is_taken_back_makes_it_as_large_as_it_may_be() -> None:
    cluster = on(3)
    later(cluster)
    choose(cluster, None)
    cluster.settle()
    assert (members(cluster), size(cluster)) == ((2, 5), (5, 5))
    assert epochs(cluster)[-1] == (2, 5, "carol@example.org")


@pytest.mark.parametrize("number", range(1, 40))
def test_killed_after_any_write_it_comes_to_the_same_size(number: int) -> None:
    cluster = submitted(3)
    cluster.dies_after = number
    cluster.settle()
    later(cluster)
    choose(cluster, 4)
    cluster.settle()
    assert (members(cluster), size(cluster)) == ((2, 4), (4, 4))
    assert [e[:2] for e in epochs(cluster)] == [(1, 3), (2, 4)]


def test_epochs_are_some_seconds_apart() -> None:
    cluster = on(3)
    later(cluster)
    choose(cluster, 4)
    cluster.settle()
    choose(cluster, 2)
    again = cluster.settle()
    assert members(cluster) == (2, 4)
    assert placed(cluster) == ("False", "NextEpoch")
    assert cluster.status["scheduling"] == {"replicas": {"worker": 4}}
    assert again is not None
    assert 0 < again <= EPOCH_SECONDS
    later(cluster, again)
    cluster.settle()
    assert (members(cluster), size(cluster)) == ((3, 2), (2, 2))


def test_the_epochs_that_are_told_reach_back_further_than_ends_of_pods_are_remembered() -> None:
    assert (MAX_EPOCHS - 1) * EPOCH_SECONDS > GONE_SECONDS


def test_of_many_epochs_the_last_ones_are_told() -> None:
    cluster = on(3)
    for number in range(MAX_EPOCHS + 3):
        later(cluster)
        choose(cluster, 2 + number % 2)
        cluster.settle()
    told = epochs(cluster)
    assert len(told) == MAX_EPOCHS
    assert told[-1][0] == members(cluster)[0] == MAX_EPOCHS + 4


def test_a_run_that_the_user_suspended_is_scaled_all_the_same() -> None:
    cluster = on(3)
    later(cluster)
    cluster.edit(suspend=True)
    cluster.settle()
    choose(cluster, 4)
    cluster.settle()
    assert size(cluster) == (4, 4)
    assert cluster.objects[ENGINE]["spec"]["suspend"]


# Who chose --------------------------------------------------------------------------------------


def test_who_chose_past_the_webhook_is_not_known() -> None:
    cluster = on(3)
    later(cluster)
    choose(cluster, 4, by=None)
    cluster.settle()
    assert epochs(cluster)[-1] == (2, 4, None)


def test_an_old_note_that_is_put_back_accuses_nobody() -> None:
    cluster = on(3)
    noted = copy.deepcopy(cluster.objects[JOB]["metadata"]["annotations"])
    later(cluster, 600)
    choose(cluster, 4)
    cluster.settle()
    later(cluster, 600)
    choose(cluster, 3, by=None)
    cluster.objects[JOB]["metadata"]["annotations"] = noted
    cluster.settle()
    assert epochs(cluster)[-1] == (3, 3, None)


# What does not count ----------------------------------------------------------------------------


@pytest.mark.parametrize("asked", [{"worker": 6}, {"worker": 1}, {"server": 3}])
def test_a_choice_beyond_what_is_signed_changes_nothing_and_is_told(asked: Object) -> None:
    cluster = on(3)
    later(cluster)
    cluster.edit(scheduling={"replicas": asked})  # past the webhook
    cluster.settle()
    assert (members(cluster), size(cluster)) == ((1, 3), (3, 3))
    assert placed(cluster) == ("False", "ScalingOutOfRange")
    assert "spec.scheduling.replicas[" in cluster.condition("Placed")["message"]
    assert cluster.status["scheduling"] == {"replicas": {"worker": 3}}


HOLD = {
    "id": "0" * 16,
    "response": "Freeze",
    "since": "2026-11-23T12:00:00Z",
    "findings": ["1" * 16],
    "reason": "pod.changed",
    "severity": "Critical",
    "message": "x",
}


def held(cluster: Cluster, response: str | None) -> None:
    (path,) = [p for p, o in cluster.objects.items() if o["kind"] == "SealedRun"]
    status = cluster.objects[path]["status"]
    if response is None:
        status.pop("hold")
    else:
        status["hold"] = HOLD | {"response": response}


@pytest.mark.parametrize("response", ["Freeze", "Quarantine", "Suspend"])
def test_a_run_that_is_held_is_not_scaled_until_it_is_let_go(response: str) -> None:
    """Whoever is looked into would take away what there is to be seen."""
    cluster = on(3)
    later(cluster)
    held(cluster, response)
    choose(cluster, 2)
    cluster.settle()
    assert (members(cluster), size(cluster)) == ((1, 3), (3, 3))
    assert placed(cluster) == ("False", "ScalingHeld")
    held(cluster, None)
    cluster.settle()
    assert (members(cluster), size(cluster)) == ((2, 2), (2, 2))


def test_what_the_api_server_refuses_is_told_and_tried_again() -> None:
    cluster = on(3)
    later(cluster)
    choose(cluster, 4)
    cluster.refuses[f"PATCH {ENGINE}"] = KubeError(403, "Forbidden", "no quota for this")
    again = cluster.settle()
    assert (members(cluster), size(cluster)) == ((2, 4), (3, 3))
    assert placed(cluster) == ("False", "ScalingRefused")
    assert "no quota for this" in cluster.condition("Placed")["message"]
    assert again is not None
    assert again <= 60
    cluster.refuses.clear()
    cluster.settle()
    assert size(cluster) == (4, 4)
    assert placed(cluster) == ("True", "AsScheduled")


def test_a_job_that_somebody_else_made_larger_is_told_and_left_to_be_found() -> None:
    cluster = on(3)
    cluster.objects[ENGINE]["spec"] |= {"completions": 7, "parallelism": 7}
    cluster.settle()
    assert size(cluster) == (7, 7)
    (event,) = [o for o in cluster.objects.values() if o.get("reason") == "ObjectChanged"]
    assert "found completions 7 and parallelism 7, expected 3, as epoch 1 says" in event["message"]
    later(cluster)
    choose(cluster, 4)
    cluster.settle()
    assert (members(cluster), size(cluster)) == ((2, 4), (4, 4))


def test_a_run_that_was_sealed_by_an_earlier_release_keeps_its_size() -> None:
    cluster = on()
    (path,) = [p for p, o in cluster.objects.items() if o["kind"] == "SealedRun"]
    seal = cluster.objects[path]
    del seal["spec"]["roles"][0]["minReplicas"]
    del seal["status"]["epochs"]
    uid = cluster.objects[ENGINE]["metadata"]["uid"]
    seal["status"]["binding"] = world.binding(seal, world.SEAL_KEY, uid)
    later(cluster)
    choose(cluster, 3)
    cluster.settle()
    assert size(cluster) == (5, 5)
    assert cluster.status["phase"] == "Running"
    assert placed(cluster) == ("False", "NextRun")
    assert "sealed with 5 worker" in cluster.condition("Placed")["message"]


def test_a_run_that_has_ended_is_not_scaled() -> None:
    cluster = on(3)
    cluster.engine(succeeded=3, conditions=[{"type": "Complete", "status": "True"}])
    cluster.settle()
    later(cluster)
    choose(cluster, 4)
    cluster.settle()
    assert members(cluster) == (1, 3)


def test_a_controller_that_dies_between_signing_and_scaling_leaves_it_to_the_next() -> None:
    cluster = on(3)
    later(cluster)
    choose(cluster, 4)
    cluster.dies_after = len(cluster.writes) + 1
    with pytest.raises(DiedError):
        cluster.reconcile()
    assert (members(cluster), size(cluster)) == ((2, 4), (3, 3))
    cluster.settle()
    assert size(cluster) == (4, 4)
