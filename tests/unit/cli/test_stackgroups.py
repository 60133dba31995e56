"""Ranks that stand at the same place are one group; the odd one out stands by itself."""

from __future__ import annotations

import pytest

from trainseal.api.stackdump import Frame, ProcessStacks, ThreadStack
from trainseal.cli.stackgroups import Rank, grouped, ranges

REDUCE = Frame(name="all_reduce", file="/torch/distributed.py", line=2501)
LOAD = Frame(name="__getitem__", file="/workspace/data.py", line=88)
PIN = Frame(name="_pin_memory_loop", file="/torch/pin_memory.py", line=30)
MODULE = Frame(name="<module>", file="/workspace/train.py", line=40)


def rank(index: int, role: str = "", place: int = 0) -> Rank:
    return Rank(place, index, role)


def thread(*frames: Frame, main: bool = True, name: str | None = None) -> ThreadStack:
    return ThreadStack(name=name, main=main or None, frames=list(frames))


def process(*threads: ThreadStack, pid: int = 1) -> ProcessStacks:
    return ProcessStacks(
        pid=pid, parent=1, container="trainer", executable="/usr/bin/python3", threads=list(threads)
    )


def test_the_rank_that_stands_elsewhere_is_a_group_of_its_own_after_the_many() -> None:
    alike = process(thread(REDUCE, MODULE))
    ranks = [(rank(n), [alike if n != 3 else process(thread(LOAD, MODULE))]) for n in range(8)]
    first, second = grouped(ranks)
    assert (ranges(first.ranks), first.frames) == ("0-2, 4-7", (REDUCE, MODULE))
    assert (ranges(second.ranks), second.frames) == ("3", (LOAD, MODULE))


def test_numbers_and_names_make_no_difference() -> None:
    found = grouped(
        (rank(n), [process(thread(PIN, main=False, name=f"Thread-{n}"), pid=100 + n)])
        for n in range(4)
    )
    (group,) = found
    assert [(t.rank.index, t.pid, t.name) for t in group.threads] == [
        (n, 100 + n, f"Thread-{n}") for n in range(4)
    ]


@pytest.mark.parametrize(
    "other",
    [
        Frame(name="other", file=REDUCE.file, line=REDUCE.line),
        Frame(name=REDUCE.name, file="/other.py", line=REDUCE.line),
        Frame(name=REDUCE.name, file=REDUCE.file, line=1),
        Frame(name=REDUCE.name, file=REDUCE.file),
    ],
)
def test_another_function_file_or_line_is_another_place(other: Frame) -> None:
    ranks = [(rank(0), [process(thread(REDUCE))]), (rank(1), [process(thread(other))])]
    assert [ranges(g.ranks) for g in grouped(ranks)] == ["0", "1"]


def test_a_main_thread_and_another_at_the_same_place_are_two_groups_main_first() -> None:
    ranks = [(rank(n), [process(thread(PIN, main=False), thread(PIN))]) for n in range(2)]
    assert [g.main for g in grouped(ranks)] == [True, False]


def test_several_processes_of_a_rank_count_as_one_rank() -> None:
    workers = [process(thread(LOAD), pid=n) for n in range(4)]
    (group,) = grouped([(rank(0), workers)])
    assert (len(group.ranks), len(group.threads)) == (1, 4)


def test_a_stack_that_was_cut_is_not_taken_for_one_that_was_not() -> None:
    cut = thread(REDUCE).model_copy(update={"frames_omitted": 3})
    groups = grouped([(rank(0), [process(thread(REDUCE))]), (rank(1), [process(cut)])])
    assert [g.omitted for g in groups] == [0, 3]


def test_processes_without_stacks_are_in_no_group() -> None:
    none = process().model_copy(update={"threads": None, "problem": "no Python stacks: ended"})
    assert grouped([(rank(0), [none])]) == []


@pytest.mark.parametrize(
    ("indices", "words"),
    [([], ""), ([3], "3"), ([0, 1], "0-1"), ([5, 1, 0, 2, 2, 9], "0-2, 5, 9")],
)
def test_ranks_are_told_as_ranges(indices: list[int], words: str) -> None:
    assert ranges(rank(n) for n in indices) == words


def test_with_several_roles_each_range_names_its_own_in_the_order_of_the_job() -> None:
    ranks = [rank(0, "worker", 1), rank(1, "worker", 1), rank(0, "launcher", 0)]
    assert ranges(ranks) == "launcher/0, worker/0-1"
