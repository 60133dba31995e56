"""Work in turns: one piece at a time, users after one another, and no more waits than may."""

from __future__ import annotations

import asyncio
import threading

import pytest

from trainseal.admission.turns import BusyError, Turns


class Slow:
    """A piece of work that is at work until it is let go."""

    def __init__(self) -> None:
        self.free = threading.Event()

    def __call__(self) -> None:
        assert self.free.wait(10)


def noted(done: list[str], name: str) -> None:
    done.append(name)


async def test_what_work_returns_and_raises_comes_back() -> None:
    turns = Turns()

    def fails() -> int:
        raise ValueError("no")

    assert await turns.take("ada", 1, lambda: 7) == 7
    with pytest.raises(ValueError, match="no"):
        await turns.take("ada", 1, fails)
    assert await turns.take("ada", 1, lambda: 8) == 8


async def test_users_take_turns_however_much_one_of_them_asks() -> None:
    turns, slow, done = Turns(), Slow(), list[str]()
    tasks = [asyncio.ensure_future(turns.take("eve", 1, slow))]
    for name, user in (("e1", "eve"), ("e2", "eve"), ("e3", "eve"), ("a1", "ada"), ("b1", "bob")):
        work = turns.take(user, 1, lambda name=name: noted(done, name))  # type: ignore[misc]
        tasks.append(asyncio.ensure_future(work))
    await asyncio.sleep(0)
    slow.free.set()
    await asyncio.gather(*tasks)
    assert done.index("a1") < done.index("e2")
    assert done.index("b1") < done.index("e2")
    assert [name for name in done if name[0] == "e"] == ["e1", "e2", "e3"]


@pytest.mark.parametrize(("other", "bounds"), [("eve", (10, 100)), ("ada", (100, 10))])
async def test_more_bytes_than_may_wait_are_refused_and_the_rest_is_done(
    other: str, bounds: tuple[int, int]
) -> None:
    turns, slow = Turns(*bounds), Slow()
    first = asyncio.ensure_future(turns.take("eve", 8, slow))
    waits = asyncio.ensure_future(turns.take("eve", 8, lambda: 1))
    await asyncio.sleep(0)
    with pytest.raises(BusyError, match="wait already"):
        await turns.take(other, 8, lambda: 2)
    slow.free.set()
    assert await waits == 1
    await first
    assert await turns.take(other, 8, lambda: 3) == 3


async def test_one_request_larger_than_the_bound_is_taken_where_nothing_waits() -> None:
    assert await Turns(1, 1).take("ada", 100, lambda: 1) == 1


async def test_work_whose_caller_has_gone_is_not_done() -> None:
    turns, slow, done = Turns(), Slow(), list[str]()
    first = asyncio.ensure_future(turns.take("eve", 1, slow))
    gone = asyncio.ensure_future(turns.take("eve", 1, lambda: noted(done, "gone")))
    await asyncio.sleep(0)
    gone.cancel()
    slow.free.set()
    await first
    await turns.take("eve", 1, lambda: noted(done, "last"))
    assert done == ["last"]
