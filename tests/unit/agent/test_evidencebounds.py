"""How much evidence there may be: room is left for the most severe."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from trainseal.agent.evidencebounds import LEAST_BYTES, Allowance, of_a_node, of_a_pod

NOW = datetime(2026, 11, 26, tzinfo=UTC)


def fill(allowance: Allowance, severity: str, now: datetime = NOW, size: int = 0) -> int:
    """Takes as many as are admitted; how many that was."""
    number = 0
    while number < 1000 and allowance.admits(severity, now):  # type: ignore[arg-type]
        allowance.take(now, size)
        number += 1
    return number


def test_a_flood_of_warnings_leaves_half_for_what_is_critical() -> None:
    pod = of_a_pod()
    assert (fill(pod, "Warning"), fill(pod, "Critical")) == (8, 8)


def test_bytes_are_bounded_as_items_are() -> None:
    pod = of_a_pod()
    assert fill(pod, "Warning", size=256 * 1024) == 4
    assert pod.room("Critical", NOW) == 1024 * 1024
    assert fill(pod, "Critical", size=256 * 1024) == 4
    assert pod.room("Critical", NOW) == 0


def test_a_rest_that_is_of_no_use_is_no_room() -> None:
    allowance = Allowance(10, 2 * LEAST_BYTES)
    allowance.take(NOW, LEAST_BYTES + 1)
    assert not allowance.admits("Critical", NOW)


def test_a_nodes_allowance_is_there_again_after_an_hour_and_a_pods_is_not() -> None:
    node, pod, later = of_a_node(), of_a_pod(), NOW + timedelta(hours=1)
    for allowance in (node, pod):
        fill(allowance, "Critical")
    assert (fill(node, "Critical", later), fill(pod, "Critical", later)) == (64, 0)


def test_what_was_not_made_takes_no_room() -> None:
    pod = of_a_pod()
    share = pod.take(NOW)
    fill(pod, "Critical")
    assert not pod.admits("Critical", NOW)
    pod.give_back(share)
    assert pod.admits("Critical", NOW)
    assert not pod.exceeded(NOW)
