"""The index of seals: only what verifies is in it, and only while its run lives."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit import world
from trainseal.admission.sealindex import SealIndex, what_counts
from trainseal.provenance.canonical import job_digest
from trainseal.provenance.selectors import equal_to

Object = dict[str, Any]


@pytest.fixture(scope="module")
def seal() -> Object:
    return world.sealed_world().seal


def key(seal: Object) -> tuple[str, str]:
    return "research", seal["metadata"]["name"]


@pytest.fixture
def index(seal: Object) -> SealIndex:
    found = SealIndex(world.CLUSTER)
    found.use_keyring(world.keyring())
    found.on_seal("ADDED", key(seal), copy.deepcopy(seal))
    return found


DIGEST = job_digest(world.job_object())


def test_a_bound_seal_is_found_by_the_uid_of_its_job(index: SealIndex, seal: Object) -> None:
    found = index.find(world.OBJECT_UID)
    assert found
    assert (found.namespace, found.seal) == key(seal)
    assert (found.role, found.policies) == ("worker", ("research",))
    assert index.find("other") is None
    assert index.find("") is None


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.pop("status"),
        lambda s: s["status"].pop("binding"),
        lambda s: s["spec"].update(run=2),
        lambda s: s["status"]["binding"].update(signature="ключ"),
        lambda s: s["status"].update(binding=world.binding(s, world.MALLORY)),
        lambda s: s["spec"].update(cluster="other"),
        lambda s: s["spec"].update(job=float("nan")),
        lambda s: s.update(spec=None),
        lambda s: s["status"].update(phase="Succeeded"),
        lambda s: s["status"].update(phase="Failed"),
        lambda s: s["status"].update(phase="Deleted"),
    ],
)
def test_a_seal_that_does_not_verify_or_has_ended_is_not_found(
    index: SealIndex, seal: Object, change: Callable[[Object], object]
) -> None:
    edited = copy.deepcopy(seal)
    change(edited)
    index.on_seal("MODIFIED", key(seal), edited)
    assert index.find(world.OBJECT_UID) is None
    # And is found again once it is what it was.
    index.on_seal("MODIFIED", key(seal), copy.deepcopy(seal))
    assert index.find(world.OBJECT_UID)


def test_a_seal_under_another_name_is_not_found(index: SealIndex, seal: Object) -> None:
    index.on_seal("DELETED", key(seal), seal)
    index.on_seal("ADDED", ("research", "copy"), seal)
    index.on_seal("ADDED", ("elsewhere", key(seal)[1]), seal)
    assert index.find(world.OBJECT_UID) is None


def test_a_deleted_seal_is_forgotten(index: SealIndex, seal: Object) -> None:
    index.on_seal("DELETED", key(seal), seal)
    assert index.find(world.OBJECT_UID) is None
    assert index.runs(DIGEST) == 0
    index.on_seal("DELETED", key(seal), seal)
    assert index.runs(DIGEST) == 0


def test_a_new_keyring_judges_every_seal_anew(index: SealIndex) -> None:
    index.use_keyring(world.keyring(world.MALLORY))
    assert index.find(world.OBJECT_UID) is None
    index.use_keyring(world.keyring())
    assert index.find(world.OBJECT_UID)


def test_runs_are_counted_by_job_digest_also_after_their_end(
    index: SealIndex, seal: Object
) -> None:
    assert (index.runs(DIGEST), index.runs("sha256:other")) == (1, 0)
    ended = copy.deepcopy(seal)
    ended["status"]["phase"] = "Succeeded"
    index.on_seal("MODIFIED", key(seal), what_counts(ended))
    assert index.runs(DIGEST) == 1
    index.on_seal("ADDED", ("research", "second"), seal)
    assert index.runs(DIGEST) == 2


def test_of_a_run_that_has_ended_little_is_kept(seal: Object) -> None:
    ended = copy.deepcopy(seal)
    ended["metadata"]["managedFields"] = [{}]
    assert what_counts(ended) == seal
    ended["status"]["phase"] = "Failed"
    ended["metadata"]["resourceVersion"] = "7"
    assert len(str(what_counts(ended))) < 400
    assert what_counts(ended)["metadata"] == {
        "name": seal["metadata"]["name"],
        "namespace": "research",
        "resourceVersion": "7",
    }


def test_of_a_run_that_lives_it_is_known_who_asked_and_which_claims_it_mounts(
    index: SealIndex, seal: Object
) -> None:
    live = index.live(*key(seal))
    assert live is not None
    assert live.requester == seal["spec"]["requester"]["username"]
    assert index.mounting("research", "ckpt") == {key(seal)[1]}
    assert index.mounting("research", "other") == index.mounting("elsewhere", "ckpt") == frozenset()
    assert index.live("elsewhere", key(seal)[1]) is None
    index.on_seal("DELETED", key(seal), seal)
    assert index.live(*key(seal)) is None
    assert index.mounting("research", "ckpt") == frozenset()


@pytest.mark.parametrize(
    ("labels", "reached"),
    [
        ({}, True),
        ({"team": "research"}, True),
        ({"team": "web"}, False),
        ({"job-name": "char-lm-worker"}, True),
        ({"job-name": "web"}, False),
        ({"batch.kubernetes.io/job-completion-index": "1"}, True),
        ({"topology.kubernetes.io/zone": "a"}, True),
        ({"mesh.example/rev": "1"}, True),
        ({"mesh.example/rev": "1", "team": "web"}, False),
        ({"mesh.example/x": "1"}, False),
    ],
)
def test_runs_are_reached_by_what_their_pods_have_or_may_get(
    index: SealIndex, seal: Object, labels: Object, reached: bool
) -> None:
    added = frozenset({"mesh.example/rev"})
    expected = [key(seal)[1]] * reached
    assert index.reached_by("research", equal_to(labels), added) == expected
    assert index.reached_by("elsewhere", equal_to(labels), added) == []


def test_whether_a_run_is_in_quarantine_is_known(index: SealIndex, seal: Object) -> None:
    live = index.live(*key(seal))
    assert live is not None
    assert not live.isolated
    edited = copy.deepcopy(seal)
    edited["status"]["isolatedSince"] = "2026-11-23T12:00:00Z"
    index.on_seal("MODIFIED", key(seal), edited)
    live = index.live(*key(seal))
    assert live is not None
    assert live.isolated


def test_whether_there_is_a_seal_is_known_whatever_became_of_its_run(
    index: SealIndex, seal: Object
) -> None:
    assert index.knows(*key(seal))
    assert not index.knows("elsewhere", key(seal)[1])
    ended = copy.deepcopy(seal)
    ended["status"]["phase"] = "Succeeded"
    index.on_seal("MODIFIED", key(seal), what_counts(ended))
    assert index.knows(*key(seal))
    index.on_seal("DELETED", key(seal), ended)
    assert not index.knows(*key(seal))


# Elastic roles ----------------------------------------------------------------------------------


def of_members(workers: int) -> Object:
    """A run whose workers may be two to five, and of whom so many are members."""
    found = world.sealed_world(world.elastic).seal
    found["status"]["binding"] = world.binding(found, members=world.membership(workers))
    return found


@pytest.mark.parametrize("workers", [2, 3, 5])
def test_pods_of_an_elastic_role_are_expected_below_its_members(workers: int) -> None:
    found = SealIndex(world.CLUSTER)
    found.use_keyring(world.keyring())
    elastic = of_members(workers)
    found.on_seal("ADDED", key(elastic), elastic)
    sealed = found.find(world.OBJECT_UID)
    assert sealed is not None
    assert (sealed.expected.replicas, sealed.most) == (workers, 5)
    late = [index for index in range(7) if sealed.may_join(str(index))]
    assert late == [*range(workers, 5)]
    assert not any(map(sealed.may_join, (None, "", "-1", "01", "x", 3)))


@pytest.mark.parametrize("workers", [1, 6])
def test_members_beyond_the_signed_range_are_none_whoever_signed_them(workers: int) -> None:
    found = SealIndex(world.CLUSTER)
    found.use_keyring(world.keyring())
    beyond = of_members(workers)
    found.on_seal("ADDED", key(beyond), beyond)
    assert found.find(world.OBJECT_UID) is None


def test_members_of_a_role_of_one_size_are_none(seal: Object) -> None:
    found = SealIndex(world.CLUSTER)
    found.use_keyring(world.keyring())
    edited = copy.deepcopy(seal)
    edited["status"]["binding"] = world.binding(edited, members=world.membership(2))
    found.on_seal("ADDED", key(edited), edited)
    assert found.find(world.OBJECT_UID) is None
