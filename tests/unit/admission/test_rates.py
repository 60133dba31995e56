"""How often somebody may."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from trainseal.admission.rates import Buckets


class Clock:
    """Goes only when told; seconds."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_burst_passes_then_so_many_a_second() -> None:
    clock = Clock()
    buckets = Buckets(20, 100, clock)
    assert [buckets.take("eve") for _ in range(101)] == [True] * 100 + [False]
    clock.now += 0.5
    assert [buckets.take("eve") for _ in range(11)] == [True] * 10 + [False]


def test_each_has_a_bucket_of_its_own_and_who_is_silent_none() -> None:
    clock = Clock()
    buckets = Buckets(1, 1, clock)
    assert [buckets.take(who) for who in ("a", "b", "a")] == [True, True, False]
    clock.now += 1.5
    assert buckets.take("c")
    assert set(buckets._left) == {"c"}


@given(st.lists(st.floats(0, 3), max_size=60))
def test_nobody_gets_more_than_the_burst_and_the_rate_give(pauses: list[float]) -> None:
    clock, taken = Clock(), 0
    buckets = Buckets(2, 5, clock)
    for pause in pauses:
        clock.now += pause
        taken += buckets.take("eve")
    assert taken <= 5 + 2 * clock.now + 1e-6
