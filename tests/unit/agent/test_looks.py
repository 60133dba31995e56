"""Since when a thing can have been so that is found by looking, or by an event that waited."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from trainseal.agent.looks import MOST_LOOKS, Looks, Pulse

START = datetime(2026, 11, 28, 9, 0, tzinfo=UTC)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def test_what_the_first_look_finds_may_have_been_so_from_the_start() -> None:
    looks = Looks(START)
    looks.begin(at(10))
    assert looks.before() == START


def test_what_a_later_look_finds_came_after_the_one_before_had_begun() -> None:
    looks = Looks(START)
    for seconds in (10, 20):
        looks.begin(at(seconds))
        looks.end()
    looks.begin(at(30))
    assert looks.before() == at(20)
    assert looks.before(2) == at(10)
    assert looks.before(3) == START


def test_a_look_that_was_broken_off_says_nothing() -> None:
    looks = Looks(START)
    looks.begin(at(10))
    looks.end()
    looks.begin(at(20))
    looks.begin(at(30))
    assert looks.before() == at(10)


def test_of_many_looks_the_last_are_remembered() -> None:
    looks = Looks(START)
    for seconds in range(1000):
        looks.begin(at(seconds))
        looks.end()
    assert looks.before() == at(999)
    assert looks.before(MOST_LOOKS) == at(1000 - MOST_LOOKS)


def test_what_is_ready_now_came_a_beat_or_two_ago_at_the_earliest() -> None:
    now = [START]
    pulse = Pulse(lambda: now[0])
    for beat in range(1, 5):
        now[0] = at(beat)
        pulse.beat()
    now[0] = at(4.9)
    assert pulse() == at(3)


def test_what_waited_for_a_loop_that_stood_still_came_while_it_did() -> None:
    now = [START]
    pulse = Pulse(lambda: now[0])
    for beat in (1, 2):
        now[0] = at(beat)
        pulse.beat()
    now[0] = at(14)  # the processor was somebody else's
    assert pulse() == at(1)
    pulse.beat()  # the loop calls this first: what waited is read all the same
    assert pulse() == at(2)
