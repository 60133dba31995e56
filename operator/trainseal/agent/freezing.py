"""Which pods of the node stand still, by whose word, and that they do.

A pod is frozen by the agent itself, for a new finding whose policies say so, or by an order of the
operator's on the seal. Of the pod's report and the order, the later counts: an old order to thaw
does not let go what was frozen since, also across a restart.

A pod that is deleted stands still until the time is over that its deletion gives it: thawed before,
it would go on. Then the kubelet kills it, and it is let go, for version 1 of the freezer holds back
even SIGKILL. That a run has ended lets nothing go: who deletes a TrainingJob and leaves its pods
behind would else thaw them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

from prometheus_client import Counter

from trainseal.agent.cgroups import containers_in
from trainseal.agent.conditions import Status
from trainseal.agent.freezer import FreezeError, Freezer
from trainseal.agent.reports import Reports
from trainseal.provenance.freezeorders import Order

_log = logging.getLogger(__name__)
#: The kubelet kills a pod within this time once its own is over, or it is gone from the API.
KILLED = timedelta(seconds=5)
_FROZEN = Counter("trainseal_agent_freezes_total", "Pods frozen or thawed.", ["outcome"])


class Freezing:
    """Carries out; what came of it stands in the report's condition `Frozen`."""

    def __init__(
        self,
        reports: Reports,
        *,
        allowed: bool,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._pause = pause
        self._reports = reports
        self._allowed = allowed
        self._threads = ThreadPoolExecutor(2, "freeze")
        self._acts: set[asyncio.Task[None]] = set()
        self._frozen: set[str] = set()
        self._busy: set[str] = set()

    def holds(self, uid: str) -> bool:
        """Whether the pod is to stand still: also a container that is only made now."""
        return uid in self._frozen

    def set(self, uid: str, group: Path, *, frozen: bool, why: str) -> None:
        """Freezes or thaws a pod; returns at once."""
        (self._frozen.add if frozen else self._frozen.discard)(uid)
        self._busy.add(uid)
        task = asyncio.ensure_future(self._carry_out(uid, group, frozen, why))
        self._acts.add(task)
        task.add_done_callback(self._acts.discard)

    def obey(self, uid: str, group: Path, order: Order) -> None:
        """Carries out an order that is later than what the pod's report says."""
        if not self._reports.is_known(uid):
            return  # what was before a restart is asked for first; this is called again
        known = self._reports.condition(uid, "Frozen")
        state = None if known is None else {"True": "Frozen", "False": "Thawed"}.get(known.status)
        if state == order.state or (known is None and order.state == "Thawed"):
            if state == "Frozen":
                self._frozen.add(uid)
            return
        if known is not None and order.since < known.last_transition_time:
            return
        if uid not in self._busy:
            frozen = order.state == "Frozen"
            self.set(uid, group, frozen=frozen, why="by order of the operator")

    def stands_still(self, uid: str) -> bool:
        """Whether it was frozen, by this agent or an earlier one, and not thawed."""
        known = self._reports.condition(uid, "Frozen")
        return uid in self._frozen or (known is not None and known.status != "False")

    def let_end(self, uid: str, group: Path, ends: datetime, now: datetime) -> bool:
        """Thaws a pod that is being deleted once its time (until ``ends``) is over; whether it
        is. Called again, for what was frozen since.
        """
        if now < ends + KILLED:
            return False
        if self.stands_still(uid) and uid not in self._busy:
            self.set(uid, group, frozen=False, why="it is deleted, and its time to end is over")
        return True

    def forget(self, uid: str, group: Path | None = None) -> None:
        """The pod is gone from the API; what of it stands still here is let go to be killed."""
        if self.stands_still(uid) and group is not None and self._allowed:
            task = asyncio.ensure_future(self._release(uid, group))
            self._acts.add(task)
            task.add_done_callback(self._acts.discard)
        self._frozen.discard(uid)

    async def _release(self, uid: str, group: Path) -> None:
        await self._pause(KILLED.total_seconds())
        try:
            loop = asyncio.get_running_loop()
            await loop.run_in_executor(self._threads, set_all, group, False)
        except FreezeError as error:
            _log.error("pod %s is gone: %s", uid, error)

    def close(self) -> None:
        """What is frozen stays so."""
        for task in self._acts:
            task.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _carry_out(self, uid: str, group: Path, frozen: bool, why: str) -> None:
        word = "Frozen" if frozen else "Thawed"
        try:
            if not self._allowed:
                raise FreezeError("freezing is switched off on this node (agent.freeze)")
            loop = asyncio.get_running_loop()
            took = await loop.run_in_executor(self._threads, set_all, group, frozen)
        except FreezeError as error:
            _FROZEN.labels("failed").inc()
            _log.error("pod %s: %s", uid, error)
            self._reports.say(uid, "Frozen", "Unknown", f"Not{word}", f"{why}: {error}")
            return
        finally:
            self._busy.discard(uid)
        _FROZEN.labels(word.lower()).inc()
        milliseconds = took * 1000
        _log.warning("pod %s %s within %.0f ms: %s", uid, word.lower(), milliseconds, why)
        status: Status = "True" if frozen else "False"
        self._reports.say(uid, "Frozen", status, word, f"{why}; within {milliseconds:.0f} ms")


def set_all(group: Path, frozen: bool) -> float:
    """Freezes or thaws each container of a pod; seconds it took. Raises FreezeError.

    Each for itself and not the pod's group: to the container runtime a container is then paused.
    It lets nobody in meanwhile, and a pod that is deleted ends: to kill a paused container, it
    thaws it (version 1 of the freezer holds back even SIGKILL).
    """
    freezer = Freezer()
    act = freezer.freeze if frozen else freezer.thaw
    failures, took = [], 0.0
    for folder in containers_in(group).values():
        try:
            took += act(folder)
        except FreezeError as error:
            if folder.exists():
                failures.append(str(error))
    if failures:
        raise FreezeError("; ".join(failures))
    return took
