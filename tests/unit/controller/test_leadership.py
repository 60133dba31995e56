"""Leadership by a Lease: who holds it, when it is let go, and when it is no longer believed."""

from __future__ import annotations

import asyncio
import copy
import datetime as dt
from typing import Any

import pytest
from kubernetes.aio.leaderelection.leaderelectionrecord import LeaderElectionRecord

from trainseal.cluster.api import ConflictError, KubeError, NotFoundError
from trainseal.controller.leadership import LEASE, LEASE_SECONDS, lead
from trainseal.controller.lease import KubeLease, LeaseExpiredError

NOW = "2026-11-23 12:00:00.000000"
LATER = "2026-11-23 12:00:01.500000"


class OneLease:
    """An API server that has room for one Lease; ``down`` makes it answer nothing."""

    def __init__(self) -> None:
        self.lease: dict[str, Any] | None = None
        self.down = False

    async def get(self, path: str, *, seconds: float) -> dict[str, Any]:  # noqa: ARG002
        if self.down:
            raise KubeError(0, "Unreachable", path)
        if self.lease is None:
            raise NotFoundError(404, "NotFound", path)
        return copy.deepcopy(self.lease)

    async def request(
        self,
        method: str,
        path: str,
        *,
        body: dict[str, Any],
        seconds: float,  # noqa: ARG002
    ) -> dict[str, Any]:
        if self.down:
            raise KubeError(0, "Unreachable", path)
        if method == "POST" and self.lease is not None:
            raise ConflictError(409, "AlreadyExists", path)
        stored = copy.deepcopy(body)
        version = int(self.lease["metadata"]["resourceVersion"]) if self.lease else 0
        if method == "PUT" and stored["metadata"]["resourceVersion"] != str(version):
            raise ConflictError(409, "Conflict", path)
        stored["metadata"]["resourceVersion"] = str(version + 1)
        self.lease = stored
        return copy.deepcopy(stored)

    @property
    def holder(self) -> str:
        assert self.lease is not None
        return str(self.lease["spec"]["holderIdentity"])


class Clock:
    """Seconds that pass when told to."""

    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def server() -> OneLease:
    return OneLease()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def candidate(server: OneLease, name: str, clock: Clock | None = None) -> KubeLease:
    return KubeLease(server, "home", LEASE, name, 1.0, clock or Clock())  # type: ignore[arg-type]


def record(name: str, renewed: str = NOW) -> LeaderElectionRecord:
    return LeaderElectionRecord(name, str(LEASE_SECONDS), NOW, renewed)


async def test_a_lease_that_is_not_there_can_be_made_and_reads_back_the_same(
    server: OneLease,
) -> None:
    lock = candidate(server, "a")
    found, error = await lock.get(LEASE, "home")
    assert not found
    assert '"code": 404' in str(getattr(error, "body", ""))
    assert await lock.create(LEASE, "home", record("a", LATER))
    found, seen = await lock.get(LEASE, "home")
    assert found
    assert isinstance(seen, LeaderElectionRecord)
    written = record("a", LATER)
    assert seen.holder_identity == "a"
    assert seen.lease_duration == str(LEASE_SECONDS)
    for mine, theirs in (
        (written.acquire_time, seen.acquire_time),
        (written.renew_time, seen.renew_time),
    ):
        assert dt.datetime.fromisoformat(str(mine)) == dt.datetime.fromisoformat(str(theirs))


async def test_of_two_that_write_at_once_one_succeeds(server: OneLease) -> None:
    one, other = candidate(server, "a"), candidate(server, "b")
    await one.create(LEASE, "home", record("x"))
    await one.get(LEASE, "home")
    await other.get(LEASE, "home")
    assert await one.update(LEASE, "home", record("a"))
    assert not await other.update(LEASE, "home", record("b"))
    assert server.holder == "a"


async def test_an_api_server_that_is_away_is_a_failed_attempt_and_no_absent_lease(
    server: OneLease,
) -> None:
    lock = candidate(server, "a")
    server.down = True
    found, error = await lock.get(LEASE, "home")
    assert not found
    assert '"code": 404' not in str(getattr(error, "body", ""))
    assert not await lock.create(LEASE, "home", record("a"))


async def test_a_leader_that_was_held_up_for_longer_than_its_lease_does_not_go_on(
    server: OneLease, clock: Clock
) -> None:
    lock = candidate(server, "a", clock)
    await lock.create(LEASE, "home", record("a"))
    clock.seconds += LEASE_SECONDS - 0.1
    await lock.get(LEASE, "home")
    clock.seconds += 0.2
    with pytest.raises(LeaseExpiredError):
        await lock.get(LEASE, "home")


async def test_a_renewed_lease_lasts_from_the_renewal_on(server: OneLease, clock: Clock) -> None:
    lock = candidate(server, "a", clock)
    await lock.create(LEASE, "home", record("a"))
    for _ in range(3):
        clock.seconds += LEASE_SECONDS - 1
        await lock.get(LEASE, "home")
        assert await lock.update(LEASE, "home", record("a", LATER))


async def test_nobody_lets_go_of_anothers_lease(server: OneLease) -> None:
    await candidate(server, "a").create(LEASE, "home", record("a"))
    await candidate(server, "b").release()
    assert server.holder == "a"
    await candidate(server, "a").release()
    assert server.holder == ""


async def test_what_the_work_raises_is_raised_once_the_lease_is_let_go(server: OneLease) -> None:
    async def work() -> None:
        assert server.holder == "a"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await lead(server, "home", "a", work)  # type: ignore[arg-type]
    assert server.holder == ""


async def test_a_leader_that_is_told_to_stop_ends_its_work_before_it_lets_go(
    server: OneLease,
) -> None:
    holders = []
    began = asyncio.Event()

    async def work() -> None:
        began.set()
        try:
            await asyncio.Event().wait()
        finally:
            holders.append(server.holder)

    leading = asyncio.ensure_future(lead(server, "home", "a", work))  # type: ignore[arg-type]
    await began.wait()
    leading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leading
    assert holders == ["a"]
    assert server.holder == ""
