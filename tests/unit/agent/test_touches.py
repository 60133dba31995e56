"""Many events on one file become few acts."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from trainseal.agent.observed import Act
from trainseal.agent.touches import Touch

NOW = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("acts", "telling"),
    [
        ({Act.CREATED, Act.WRITTEN, Act.CLOSED, Act.ATTRIBUTES}, [Act.CREATED]),
        ({Act.MOVED_TO, Act.ATTRIBUTES}, [Act.MOVED_TO]),
        ({Act.WRITTEN, Act.CLOSED}, [Act.WRITTEN]),
        ({Act.WRITTEN, Act.EXECUTED}, [Act.EXECUTED, Act.WRITTEN]),
        ({Act.CLOSED, Act.ATTRIBUTES}, [Act.CLOSED, Act.ATTRIBUTES]),
        ({Act.CREATED, Act.DELETED}, [Act.CREATED, Act.DELETED]),
        ({Act.ATTRIBUTES}, [Act.ATTRIBUTES]),
        ({Act.DELETED, Act.ATTRIBUTES}, [Act.DELETED]),
    ],
)
def test_what_tells_most_stands_for_the_rest(acts: set[Act], telling: list[Act]) -> None:
    assert list(Touch("/a", 1, NOW, acts=acts).telling()) == telling


def test_a_name_that_only_led_to_another_is_not_told() -> None:
    acts = {Act.CREATED, Act.MOVED_FROM}
    assert list(Touch("/a.tmp", 1, NOW, acts=acts, followed=True).telling()) == [Act.MOVED_FROM]


def test_a_write_before_a_move_is_told() -> None:
    touch = Touch("/a", 1, NOW, acts={Act.WRITTEN, Act.MOVED_FROM}, followed=True)
    assert list(touch.telling()) == [Act.WRITTEN, Act.MOVED_FROM]


def test_what_was_put_off_joins_what_came_after() -> None:
    touch = Touch("/a.tmp", 1, NOW, acts={Act.MOVED_FROM}, followed=True)
    earlier = NOW - timedelta(seconds=1)
    touch.join(Touch("/a.tmp", 1, earlier, acts={Act.CREATED, Act.CLOSED}))
    assert list(touch.telling()) == [Act.MOVED_FROM]
    assert not touch.only_new
    assert touch.since == earlier
