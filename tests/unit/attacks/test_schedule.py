"""Schedules by dice keep their rules, whatever the seed."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.attacks.schedule import FROM_NODE, HOWS, RECOVERY, TARGETS, is_away, make

SEEDS = st.integers(0, 2**32 - 1)


@given(SEEDS)
def test_a_seed_gives_one_schedule(seed: int) -> None:
    assert make(seed) == make(seed)
    assert make(seed) != make(seed + 1)


@given(SEEDS)
def test_all_happens_within_the_time_and_in_order(seed: int) -> None:
    found = make(seed, seconds=200)
    for what in (found.acts, found.disturbances):
        times = [one.at for one in what]
        assert times == sorted(times)
        assert 0 <= times[0] <= times[-1] <= 200
    assert all(d.end <= 200 for d in found.disturbances)


@given(SEEDS)
def test_each_target_is_disturbed_in_each_way_and_recovers_before_the_next(seed: int) -> None:
    found = make(seed)
    for target in TARGETS:
        mine = found.of(target)
        assert {d.how for d in mine} == set(HOWS)
        assert all(one.end + RECOVERY <= other.at + 1e-6 for one, other in pairwise(mine))
        # A stop, and an API server that is killed, last; what is restarted by others does not.
        for d in mine:
            assert (d.seconds > 0) == (
                d.how == "stopped" or (d.how, target) == ("killed", "API server")
            )


@given(SEEDS)
def test_something_is_done_during_each_disturbance(seed: int) -> None:
    found = make(seed)
    for d in found.disturbances:
        until = d.at + max(d.seconds, RECOVERY)
        assert any(d.at <= act.at <= until for act in found.acts), str(d)


@given(SEEDS, st.integers(0, 3))
def test_each_act_has_a_target_of_its_own(seed: int, objects: int) -> None:
    found = make(seed, objects=objects)
    assert len({(act.kind, act.number) for act in found.acts}) == len(found.acts) == 48
    assert sum(act.kind == "object" for act in found.acts) == objects


@given(SEEDS)
def test_nobody_gets_into_a_pod_while_the_api_server_is_away(seed: int) -> None:
    found = make(seed)
    for act in found.acts:
        if act.by == "node":
            assert act.kind in FROM_NODE
        elif is_away(act.at, found.disturbances):
            assert act.kind not in FROM_NODE, "it could have been done from the node"


@pytest.mark.parametrize("too_little", [{"times": 2}, {"acts": 10}, {"seconds": 60.0}])
def test_what_cannot_be_kept_is_refused(too_little: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="expected more"):
        make(1, **too_little)  # type: ignore[arg-type]
