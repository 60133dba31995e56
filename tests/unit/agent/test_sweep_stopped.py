"""Which stopped processes are found: the trainer's own, that stand still in two sweeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from trainseal.agent.observed import Lineage, Process
from trainseal.agent.processes import Member, Seat
from trainseal.agent.procfiles import Stat
from trainseal.agent.sweep_stopped import StoppedProcesses

NOW = datetime(2026, 11, 26, 11, 0, tzinfo=UTC)
SHELL = Process(90, 1, NOW, "/bin/sh", ("sh",), 0, "c")


def member(state: str, *, session: Process | None = None, ticks: int = 7, pid: int = 41) -> Member:
    process = Process(pid, 40, NOW, "/usr/bin/python3", ("python3", "train.py"), 0, "c")
    stat = Stat(pid, "python3", state, 40, 40, ticks, False, ())
    return Member(Seat(stat, ("c",), "u", 1, 2), process, Lineage((process,), session), True)


def told(*sweeps: list[Member]) -> list[int]:
    """How many are told of in each sweep."""
    stopped = StoppedProcesses()
    return [
        len([*stopped.look(members, NOW + number * timedelta(seconds=10))])
        for number, members in enumerate(sweeps)
    ]


def test_a_process_that_stands_still_in_two_sweeps_is_found_from_then_on() -> None:
    assert told(*[[member("T")]] * 3) == [0, 1, 1]


def test_since_when_it_stands_still_and_what_it_is_are_said() -> None:
    stopped = StoppedProcesses()
    assert [*stopped.look([member("T")], NOW)] == []
    (found,) = stopped.look([member("T")], NOW + timedelta(seconds=10))
    assert found.finding == "process.stopped"
    assert found.evidence == {"stopped": "41: python3 train.py", "since": "2026-11-26T11:00:00Z"}
    assert found.lineage
    assert found.lineage.chain[0].pid == 41


def test_one_that_goes_on_between_two_sweeps_is_silent() -> None:
    assert told([member("T")], [member("S")], [member("T")], [member("R")]) == [0, 0, 0, 0]


def test_another_process_of_the_same_number_is_another() -> None:
    assert told([member("T", ticks=7)], [member("T", ticks=8)]) == [0, 0]


def test_a_job_that_somebody_stopped_in_a_session_of_theirs_is_silent() -> None:
    assert told(*[[member("T", session=SHELL)]] * 3) == [0, 0, 0]


@pytest.mark.parametrize("state", ["S", "R", "D", "t", "I", "Z"])
def test_what_waits_is_traced_or_is_frozen_is_not_stopped(state: str) -> None:
    assert told(*[[member(state)]] * 3) == [0, 0, 0]


def test_many_that_are_stopped_at_once_are_each_told_of() -> None:
    both = [member("T", pid=41), member("T", pid=42), member("S", pid=43)]
    assert told(both, both) == [0, 2]
