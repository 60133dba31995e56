"""How benches turn measured values into the figures they print."""

from __future__ import annotations

import math
import random

import pytest

from bench.figures import percentile, ratio_interval


def test_the_99th_percentile_of_a_hundred_values_is_the_second_largest() -> None:
    assert percentile([float(n) for n in range(100, 0, -1)], 0.99) == 99.0


def test_the_median_and_the_most_of_one_value_are_that_value() -> None:
    assert percentile([3.0], 0.5) == percentile([3.0], 1.0) == 3.0


# Student's t, two-sided 95 %, by degrees of freedom (any table).
@pytest.mark.parametrize(("freedom", "quantile"), [(3, 3.182), (7, 2.365), (9, 2.262), (29, 2.045)])
def test_the_interval_of_a_mean_ratio_is_student_s(freedom: int, quantile: float) -> None:
    pairs = freedom + 1
    logs = [0.01 if n % 2 else -0.01 for n in range(pairs)]
    found = ratio_interval([math.exp(v) for v in logs], [1.0] * pairs)

    deviation = math.sqrt(sum(v * v for v in logs) / freedom)
    assert math.log(found.high) == pytest.approx(quantile * deviation / math.sqrt(pairs), rel=0.01)
    assert found.low == pytest.approx(1 / found.high)
    assert found.mean == pytest.approx(1.0)


def test_nineteen_of_twenty_intervals_hold_the_true_ratio() -> None:
    chance = random.Random(1906)
    held = 0
    for _ in range(1000):
        one = [1.005 * math.exp(chance.gauss(0, 0.02)) for _ in range(10)]
        found = ratio_interval(one, [1.0] * 10)
        held += found.low <= 1.005 <= found.high
    assert 930 <= held <= 970
