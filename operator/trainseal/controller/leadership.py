"""One leader among the replicas, by a Lease (the official client's election).

kopf's own peering pauses by priority and may take a minute; a Lease of 8 s hands over within 15 s
of a kill. Losing the Lease ends the process: whoever led must not act on, and a fresh start is the
one state that is known to be right.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from kubernetes.aio.client import ApiClient
from kubernetes.aio.leaderelection.electionconfig import Config
from kubernetes.aio.leaderelection.leaderelection import LeaderElection
from kubernetes.aio.leaderelection.resourcelock.leaselock import LeaseLock

LEASE = "trainseal-controller"
LEASE_SECONDS = 8
RENEW_SECONDS = 6
RETRY_SECONDS = 1.5

_log = logging.getLogger(__name__)


class LeadershipLostError(Exception):
    """The Lease could not be renewed; another replica leads, or soon will."""


async def lead(
    client: ApiClient, namespace: str, identity: str, work: Callable[[], Awaitable[None]]
) -> None:
    """Waits for the Lease, then runs ``work`` for as long as it is held.

    Returns when ``work`` ends; raises what it raises, or LeadershipLostError.
    """
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def started() -> None:
        _log.info("leading as %s", identity)
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - handed on to the caller below
            if not ended.done():
                ended.set_exception(error)
        else:
            if not ended.done():
                ended.set_result(None)

    async def _stopped() -> None:
        _log.warning("no longer leading")

    lock = LeaseLock(LEASE, namespace, identity, client)
    election = LeaderElection(
        Config(
            lock,
            lease_duration=LEASE_SECONDS,
            renew_deadline=RENEW_SECONDS,
            retry_period=RETRY_SECONDS,
            onstarted_leading=started,
            onstopped_leading=_stopped,
        )
    )
    running = asyncio.ensure_future(election.run())
    try:
        await asyncio.wait({running, ended}, return_when=asyncio.FIRST_COMPLETED)
        if ended.done():
            ended.result()
            return
        running.result()
        raise LeadershipLostError(f"the Lease {namespace}/{LEASE} was lost")
    finally:
        running.cancel()
