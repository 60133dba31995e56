"""How many pods an elastic role may have, has, and had."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit import world
from trainseal.api.sealedrun import SealedRun
from trainseal.provenance.keyrings import rfc3339
from trainseal.provenance.memberships import (
    Membership,
    Range,
    Shrunk,
    SignedSizes,
    choice_faults,
    chosen,
    ranges_of,
    shrunk,
    sizes_of_job,
    sizes_of_seal,
    sizes_told,
)

Object = dict[str, Any]
SIZES = SignedSizes("Job", {"worker": Range(2, 5), "server": 1})


def faults(asked: Object, signed: SignedSizes = SIZES) -> list[str]:
    return [str(fault) for fault in choice_faults(asked, signed)]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_a_number_within_the_signed_range_can_be_chosen(count: int) -> None:
    assert faults({"worker": count}) == []


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        ({"worker": 6}, "replicas[worker]: found 6, expected a number from 2 to 5, as is signed"),
        ({"worker": 1}, "found 1, expected a number from 2 to 5"),
        ({"worker": "3"}, "expected a number from 2 to 5"),
        ({"trainer": 3}, "replicas[trainer]: found no role of this name, expected one of worker"),
        ({"server": 1}, "found a role whose signed size is 1, expected one whose signed"),
    ],
)
def test_any_other_choice_is_refused_with_what_is_signed(asked: Object, words: str) -> None:
    (found,) = faults(asked)
    assert words in found
    assert found.startswith("spec.scheduling.replicas[")


def test_an_engine_that_cannot_change_its_objects_runs_a_range_at_its_most() -> None:
    signed = SignedSizes("JobSet", SIZES.roles)
    assert faults({"worker": 5}, signed) == []
    (found,) = faults({"worker": 4}, signed)
    assert "found 4 with engine JobSet" in found
    assert "expected 5" in found


def test_who_is_not_named_has_as_many_as_may_be() -> None:
    assert chosen({"worker": Range(2, 5), "eval": Range(1, 2)}, {"eval": 1}) == {
        "worker": 5, "eval": 1,
    }  # fmt: skip


def test_the_seal_of_an_elastic_run_says_the_range_and_one_of_an_earlier_release_none() -> None:
    run = world.sealed_world(world.elastic)
    assert sizes_of_job(run.job["spec"]).roles == {"worker": Range(2, 5)}
    assert sizes_of_seal(run.seal["spec"]).roles == {"worker": Range(2, 5)}
    assert ranges_of(SealedRun.parse(run.seal).spec) == {"worker": Range(2, 5)}
    del run.seal["spec"]["roles"][0]["minReplicas"]
    assert sizes_of_seal(run.seal["spec"]).roles == {"worker": 5}
    assert ranges_of(SealedRun.parse(run.seal).spec) == {}


def test_what_is_no_size_is_none() -> None:
    roles = [{"name": "a", "replicas": {"min": 1}}, {"name": "b", "replicas": "2"}, {"name": "c"}]
    assert sizes_of_job({"roles": roles, "engine": "Job"}).roles == {}
    assert sizes_of_job({}).roles == {}


# Epochs -----------------------------------------------------------------------------------------


def epochs(*counts: int, minutes: int = 10) -> list[Object]:
    """One each so many minutes, from NOW on."""
    return [
        Membership(
            number, {"worker": count}, rfc3339(world.NOW + timedelta(minutes=minutes * number))
        ).told(None)
        for number, count in enumerate(counts)
    ]


def at(minutes: float) -> datetime:
    return world.NOW + timedelta(minutes=minutes)


def explained(told: list[Object], index: int, when: datetime) -> bool:
    return any(item.explains(index, when) for item in shrunk(told, "worker"))


def test_pods_of_the_highest_indexes_go_when_the_run_is_made_smaller() -> None:
    told = epochs(4, 2)
    assert explained(told, 2, at(10.1))
    assert explained(told, 3, at(10.1))


def test_no_other_pod_goes_and_none_before() -> None:
    told = epochs(4, 2)
    assert not explained(told, 1, at(10.1))
    assert not explained(told, 3, at(9))


def test_a_pod_that_went_while_it_was_no_member_is_explained_when_it_is_one_again() -> None:
    told = epochs(4, 2, 4)
    assert explained(told, 3, at(15))
    assert explained(told, 3, at(20.5)), "the Job controller may work behind"
    assert not explained(told, 3, at(22))


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(0, 9), st.floats(-5, 90))
def test_a_member_of_every_epoch_never_goes_by_any(
    counts: list[int], index: int, minutes: float
) -> None:
    if index < min(counts):
        assert not explained(epochs(*counts), index, at(minutes))


def test_epochs_that_cannot_be_read_explain_nothing() -> None:
    assert (
        shrunk([{}, {"since": "x", "members": [{"role": "worker", "replicas": 1}]}], "worker") == ()
    )
    assert shrunk(epochs(4), "server") == ()
    assert shrunk(epochs(4), "worker") == (Shrunk(4, world.NOW, None),)


def test_sizes_that_were_told_are_those_of_the_epochs() -> None:
    assert sizes_told(epochs(4, 2, 4), "worker") == {2, 4}
    assert sizes_told(epochs(4), "server") == frozenset()
