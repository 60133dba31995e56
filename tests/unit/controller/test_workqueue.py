"""The queue: each key worked on once at a time, no change missed, failures ever later."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from trainseal.controller import workqueue
from trainseal.controller.workqueue import Key, Work, WorkQueue

A, B = ("research", "a"), ("research", "b")


@asynccontextmanager
async def running(work: Work, workers: int = 4) -> AsyncIterator[WorkQueue]:
    queue = WorkQueue(work, workers)
    task = asyncio.ensure_future(queue.run())
    yield queue
    task.cancel()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - one turn of the loop each
            await asyncio.sleep(0)


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workqueue, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(workqueue, "_LONGEST_PAUSE", 0.004)


async def test_a_key_that_waits_is_worked_on_once_however_often_it_is_added() -> None:
    done: Counter[Key] = Counter()

    async def work(key: Key) -> None:
        done[key] += 1

    async with running(work) as queue:
        for _ in range(5):
            queue.add(A)
        queue.add(B)
        await until(lambda: done == {A: 1, B: 1})


async def test_a_key_added_while_it_is_worked_on_is_worked_on_again_but_not_at_once() -> None:
    seen: list[str] = []
    go_on = asyncio.Event()

    async def work(_: Key) -> None:
        seen.append("start")
        await go_on.wait()
        seen.append("end")

    async with running(work) as queue:
        queue.add(A)
        await until(lambda: seen == ["start"])
        queue.add(A)
        queue.add(A)
        go_on.set()
        await until(lambda: len(seen) >= 4)
        assert seen == ["start", "end"] * 2


async def test_work_that_fails_is_tried_again_until_it_succeeds() -> None:
    tries = 0
    done = asyncio.Event()

    async def work(_: Key) -> None:
        nonlocal tries
        tries += 1
        if tries < 6:
            raise RuntimeError("not yet")
        done.set()

    async with running(work) as queue, asyncio.timeout(5):
        queue.add(A)
        await done.wait()


async def test_work_that_fails_and_causes_a_change_is_no_busy_loop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(workqueue, "_FIRST_PAUSE", 3600.0)
    monkeypatch.setattr(workqueue, "_LONGEST_PAUSE", 3600.0)
    tries: Counter[Key] = Counter()

    async def work(key: Key) -> None:
        tries[key] += 1
        if key == A:
            queue.add(A)
            raise RuntimeError("after it wrote a status")

    async with running(work, workers=1) as queue:
        queue.add(A)
        for _ in range(5):
            queue.add(B)
            await until(lambda: not queue._waiting and not queue._active)
        assert tries[A] == 1
        # A change from outside is acted on at once.
        queue.add(A)
        await until(lambda: tries[A] == 2)


async def test_one_key_that_fails_holds_up_no_other() -> None:
    done: list[Key] = []

    async def work(key: Key) -> None:
        if key == A:
            raise RuntimeError("always")
        done.append(key)

    async with running(work, workers=1) as queue:
        queue.add(A)
        queue.add(B)
        await until(lambda: done == [B])


async def test_work_that_wants_to_be_called_again_is() -> None:
    calls = 0

    async def work(_: Key) -> float | None:
        nonlocal calls
        calls += 1
        return 0.001 if calls < 3 else None

    async with running(work) as queue:
        queue.add(A)
        await until(lambda: calls == 3)


async def test_the_sooner_of_two_wishes_counts() -> None:
    done: list[Key] = []

    async def work(key: Key) -> None:
        done.append(key)

    async with running(work) as queue:
        queue.add_after(A, 3600)
        queue.add_after(A, 0.001)
        queue.add_after(A, 3600)
        await until(lambda: done == [A])


async def test_new_keys_come_before_those_that_were_looked_at_and_keep_none_of_them_away() -> None:
    """Four workers, of which one takes what is known first."""
    known, new = [[("research", f"{kind}-{n}") for n in range(40)] for kind in ("known", "new")]
    order: list[Key] = []

    async def work(key: Key) -> float:
        order.append(key)
        await asyncio.sleep(0)
        return 3600.0

    async with running(work) as queue:
        for key in known:
            queue.add(key)
        await until(lambda: len(order) == len(known))
        order.clear()
        for key in (*known, *new):
            queue.add(key)
        await until(lambda: len(order) == len(known) + len(new))
    assert sum(key in new for key in order[:40]) == 30
    assert [k for k in order if k in known] == known
