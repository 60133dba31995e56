"""A pod that comes before its seal is bound waits for it, a moment and not among many."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import pytest

from tests.unit import world
from trainseal.admission import bindingwaits
from trainseal.admission.bindingwaits import BindingWaits
from trainseal.admission.reviews import FORBIDDEN, TRY_AGAIN, Response
from trainseal.admission.sealindex import SealIndex

Object = dict[str, Any]
NAMESPACE = "research"


class Cluster:
    """``stored`` is the seal as the API server has it, or None."""

    def __init__(self) -> None:
        self.sealed = world.sealed_world()
        self.bound = self.sealed.seal
        self.name: str = self.bound["metadata"]["name"]
        self.unbound = copy.deepcopy(self.bound)
        del self.unbound["status"]
        self.stored: Object | None = self.unbound
        self.looks = 0
        self.index = SealIndex(world.CLUSTER)
        self.index.use_keyring(world.keyring())
        self.waits = BindingWaits(self.index, self.look)

    async def look(self, namespace: str, name: str) -> bool:
        self.looks += 1
        if (namespace, name) == (NAMESPACE, self.name) and self.stored is not None:
            self.heard(self.stored)
        return True

    def heard(self, seal: Object) -> None:
        self.waits.on_seal("MODIFIED", (NAMESPACE, self.name), seal)

    async def judge(self, user: str = world.JOB_CONTROLLER) -> Response:
        context = dataclasses.replace(self.sealed.context(), find=self.index.find)
        return await self.waits.judge(world.request(self.sealed.pod(), user=user), context)

    async def over(self) -> bool:
        return await self.waits.over(NAMESPACE, self.name)


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindingwaits, "WAIT_SECONDS", 0.01)


def play(work: Callable[[], Any]) -> Any:
    return asyncio.run(asyncio.wait_for(work(), 10))


async def begun(*waiting: asyncio.Future[bool]) -> None:
    """All of them wait."""
    for _ in range(3):
        await asyncio.sleep(0)
    assert not any(one.done() for one in waiting)


def test_it_is_over_once_the_binding_is_heard_of_for_all_who_wait(cluster: Cluster) -> None:
    async def work() -> list[bool]:
        cluster.heard(cluster.unbound)
        waiting = [asyncio.ensure_future(cluster.over()) for _ in range(3)]
        await begun(*waiting)
        cluster.heard(cluster.bound)
        return await asyncio.gather(*waiting)

    assert play(work) == [True, True, True]
    assert cluster.looks == 0


def test_a_seal_that_is_not_known_is_looked_for_and_then_waited_for(cluster: Cluster) -> None:
    async def work() -> bool:
        waiting = asyncio.ensure_future(cluster.over())
        await begun(waiting)
        cluster.heard(cluster.bound)
        return await waiting

    assert play(work)
    assert cluster.looks == 1


@pytest.mark.parametrize("what", ["bound", "ended", "none"])
def test_where_there_is_nothing_to_wait_for_it_is_over_at_once(cluster: Cluster, what: str) -> None:
    ended = {**cluster.unbound, "status": {"phase": "Deleted"}}
    cluster.stored = {"bound": cluster.bound, "ended": ended, "none": None}[what]
    assert play(cluster.over)
    assert cluster.looks == 1


def test_a_pod_that_came_before_its_binding_is_let_in_once_it_is_there(cluster: Cluster) -> None:
    async def work() -> Response:
        cluster.heard(cluster.unbound)
        waiting = asyncio.ensure_future(cluster.judge())
        await asyncio.sleep(0)
        assert not waiting.done()
        cluster.heard(cluster.bound)
        return await waiting

    assert play(work) == Response(True)


def test_one_that_is_not_what_the_seal_says_has_waited_in_vain(cluster: Cluster) -> None:
    cluster.sealed.live["spec"]["template"]["spec"]["containers"][0]["command"] = ["evil"]

    async def work() -> Response:
        cluster.heard(cluster.unbound)
        waiting = asyncio.ensure_future(cluster.judge())
        await asyncio.sleep(0)
        cluster.heard(cluster.bound)
        return await waiting

    found = play(work)
    assert not found.allowed
    assert "is not what SealedRun" in found.message


def test_nobody_but_the_job_controller_waits(cluster: Cluster) -> None:
    cluster.heard(cluster.unbound)
    found = play(lambda: cluster.judge("mallory@example.org"))
    assert (found.allowed, found.code) == (False, FORBIDDEN)
    assert "belongs to no sealed run" in found.message


@pytest.mark.usefixtures("impatient")
def test_one_whose_binding_does_not_come_is_worth_another_try(cluster: Cluster) -> None:
    cluster.heard(cluster.unbound)
    found = play(cluster.judge)
    assert (found.allowed, found.code) == (False, TRY_AGAIN)
    assert "not bound to its Job yet" in found.message


def test_another_seals_binding_ends_no_wait(cluster: Cluster) -> None:
    async def work() -> None:
        cluster.heard(cluster.unbound)
        waiting = asyncio.ensure_future(cluster.over())
        await begun(waiting)
        cluster.waits.on_seal("MODIFIED", (NAMESPACE, "another"), cluster.bound)
        cluster.heard(cluster.unbound)
        await begun(waiting)
        waiting.cancel()

    play(work)


def test_a_run_that_is_deleted_meanwhile_ends_it(cluster: Cluster) -> None:
    async def work() -> bool:
        cluster.heard(cluster.unbound)
        waiting = asyncio.ensure_future(cluster.over())
        await begun(waiting)
        cluster.waits.on_seal("DELETED", (NAMESPACE, cluster.name), cluster.unbound)
        return await waiting

    assert play(work)


@pytest.mark.usefixtures("impatient")
def test_after_a_while_the_seal_is_looked_at_once_more(cluster: Cluster) -> None:
    cluster.heard(cluster.unbound)
    assert not play(cluster.over)
    assert cluster.looks == 1
    cluster.stored = cluster.bound
    assert play(cluster.over), "the watch is late"


def test_who_comes_while_many_wait_does_not(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bindingwaits, "MOST_WAITS", 2)

    async def work() -> bool:
        cluster.heard(cluster.unbound)
        waiting = [asyncio.ensure_future(cluster.over()) for _ in range(2)]
        await begun(*waiting)
        assert not await cluster.over()
        cluster.heard(cluster.bound)
        assert all(await asyncio.gather(*waiting))
        cluster.heard(cluster.unbound)
        another = asyncio.ensure_future(cluster.over())
        await begun(another)
        cluster.heard(cluster.bound)
        return await another

    assert play(work), "those who waited have left"
