"""One leader among the replicas, by a Lease (the official client's election).

kopf's own peering pauses by priority and may take a minute; a Lease of 10 s hands over within 15 s
of a kill, and at once where the leader is told to stop. Losing the Lease ends the process: whoever
led must not act on, and a fresh start is the one state that is known to be right.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable

from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection

from trainseal.cluster.api import Kube
from trainseal.controller.lease import KubeLease, LeaseExpiredError

LEASE = "trainseal-controller"
LEASE_SECONDS = 10
#: A leader that could not renew for RENEW + RETRY + two requests has stopped within LEASE.
RENEW_SECONDS = 6
RETRY_SECONDS = 1.0
REQUEST_SECONDS = 1.4

_log = logging.getLogger(__name__)


class LeadershipLostError(Exception):
    """The Lease could not be renewed; another replica leads, or soon will."""


async def lead(
    kube: Kube, namespace: str, identity: str, work: Callable[[], Awaitable[None]]
) -> None:
    """Waits for the Lease, then runs ``work`` for as long as it is held.

    Returns when ``work`` ends; raises what it raises, or LeadershipLostError. Cancelled, it ends
    the work first and then lets go of the Lease.
    """
    working: asyncio.Future[asyncio.Task[None]] = asyncio.get_running_loop().create_future()

    async def run() -> None:
        await work()

    async def started() -> None:
        _log.info("leading as %s", identity)
        task = asyncio.ensure_future(run())
        working.set_result(task)
        # What the work raises is told to the caller below, not to the election.
        await asyncio.wait({task})

    async def stopped() -> None:
        _log.warning("no longer leading")

    lock = KubeLease(kube, namespace, LEASE, identity, REQUEST_SECONDS)
    election = LeaderElection(
        Config(
            lock,
            lease_duration=LEASE_SECONDS,
            renew_deadline=RENEW_SECONDS,
            retry_period=RETRY_SECONDS,
            onstarted_leading=started,
            onstopped_leading=stopped,
        )
    )
    running = asyncio.ensure_future(election.run())
    try:
        either: set[asyncio.Future[None] | asyncio.Future[asyncio.Task[None]]] = {running, working}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            running.result()
            raise LeadershipLostError(f"the Lease {namespace}/{LEASE} was lost")
        task = working.result()
        await asyncio.wait({running, task}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            task.result()
            return
        running.result()
        raise LeadershipLostError(f"the Lease {namespace}/{LEASE} was lost")
    except LeaseExpiredError as error:
        raise LeadershipLostError(str(error)) from None
    finally:
        await _end(running)
        if working.done():
            await _end(working.result())
            await lock.release()


async def _end(task: asyncio.Task[None]) -> None:
    """Cancels a task and waits until it has ended, however it ends."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.wait({task})
