"""Schedules of chaos keep their rules, whatever the seed."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.chaos.schedule import BAD, HOWS, TARGETS, make

SEEDS = st.integers(0, 2**32 - 1)
SECONDS = st.sampled_from([105.0, 180.0, 600.0])


@given(SEEDS)
def test_a_seed_gives_one_schedule(seed: int) -> None:
    assert make(seed) == make(seed)
    assert make(seed) != make(seed + 1)


@given(SEEDS, SECONDS)
def test_all_happens_within_the_time_and_in_order(seed: int, seconds: float) -> None:
    found = make(seed, seconds=seconds)
    for what in (found.submissions, found.disturbances):
        times = [one.at for one in what]
        assert times == sorted(times)
        assert 0 <= times[0] <= times[-1] <= seconds


@given(SEEDS, SECONDS)
def test_each_target_is_disturbed_in_each_way_and_never_twice_at_once(
    seed: int, seconds: float
) -> None:
    found = make(seed, seconds=seconds)
    for target in TARGETS:
        mine = found.of(target)
        assert {d.how for d in mine} == set(HOWS[target])
        assert all(one.at + one.seconds < other.at for one, other in pairwise(mine))


@given(SEEDS, SECONDS)
def test_all_ways_to_be_bad_come_among_twice_as_many_good_ones(seed: int, seconds: float) -> None:
    submissions = make(seed, seconds=seconds).submissions
    bad = [s for s in submissions if s.bad]
    assert {s.bad for s in bad} == set(BAD)
    assert len(bad) == -(-len(submissions) // 3)
    assert len({s.name for s in submissions}) == len(submissions)


def test_too_little_time_is_refused() -> None:
    with pytest.raises(ValueError, match="time for every bad job"):
        make(1, seconds=60)
    with pytest.raises(ValueError, match="4 disturbances of a target"):
        make(1, seconds=60, apart=1)
