"""Manifests of completed checkpoints: a Checkpoint object for the files that a pod finished.

What was written comes from the eyes' events, in the event loop; looking and hashing go on in a
thread of their own, so that a network file system that hangs keeps no sweep from its work. Each
pod that has something to do gets its turn; all together read at ``RATE``. When a pod has ended,
what it wrote last is read at once and fast: its volume is about to be taken off the node.
"""

from __future__ import annotations

import asyncio
import logging
import time
import zlib
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

from prometheus_client import Counter

from trainseal.agent.checkpointobjects import Volume, object_of, read_known
from trainseal.agent.checkpointpod import PodFiles, Turn, Unwatched
from trainseal.agent.checkpointvalues import Completed, Replaced, Written
from trainseal.agent.ledger import Person
from trainseal.agent.observed import FOUND_BY, HASHING, Observation, Process, WatchedContainer
from trainseal.agent.reports import Subject
from trainseal.api.checkpoint import PLURAL
from trainseal.api.findings import FindingId
from trainseal.api.model import API_VERSION, JsonObject
from trainseal.cluster.api import ConflictError, Kube, KubeError, path_of

_log = logging.getLogger(__name__)
_MANIFESTS = Counter("trainseal_agent_checkpoints_total", "Manifests of checkpoints made.")
_HASHED = Counter("trainseal_agent_checkpoint_bytes_total", "Bytes of checkpoints hashed.")
_REFUSED = Counter("trainseal_agent_checkpoints_refused_total", "Manifests that were not taken.")

TICK = 0.5
#: Bytes a second that are hashed of all pods together: below 3 % of one core (1.4 s a GiB).
RATE = 20 * 1024 * 1024
#: What a pod wrote last is read for so long after its end, and sent for twice as long.
LAST_SECONDS = 30.0
#: Lost events are of so long at most; nanoseconds.
_LOST = 10 * 10**9
#: No event ever: nanoseconds since 1970.
_NEVER = 2**63
#: Manifests of one pod that the API server has not taken, kept at most.
_MOST_UNSENT = 256
_RETRY = 5.0
#: Pods that start together do not all ask at once what has a manifest already; seconds.
_SPREAD = 10
_UNREPAIRABLE = frozenset({400, 403, 413, 422})

SessionOf = Callable[[str, str | None, Process], Person | None]
#: By the pod's UID, the container, the file's path in it, and when it was changed.
Named = Callable[[str, str | None, str, datetime], bool]


class Tells(Protocol):
    """Where findings go to."""

    def see(self, uid: str, container: str | None, seen: Observation) -> None:
        """An observation on a pod."""


@dataclass(frozen=True, slots=True)
class Place:
    """A watched pod: what its manifests are about, and where its checkpoints lie."""

    subject: Subject
    volume: Volume


@dataclass(slots=True)
class _Pod:
    """``closed``: since when it is no more. ``container`` has the mount at ``path``."""

    place: Place
    files: PodFiles
    container: str
    path: str
    asks_at: float
    unsent: deque[JsonObject] = field(default_factory=lambda: deque(maxlen=_MOST_UNSENT))
    questions: list[Replaced] = field(default_factory=list)
    closed: float | None = None


class CheckpointWatch:
    """All pods of the node. ``place_of`` says what a container's pod is, None where it mounts no
    checkpoints; ``lives`` whether a pod is still there, by UID; ``session_of`` who opened a
    session; ``named`` whether the command of an access just before names a file; ``told`` whether
    events tell of writes on this node.
    """

    def __init__(
        self,
        kube: Kube,
        node: str,
        *,
        node_root: str,
        place_of: Callable[[WatchedContainer], Place | None],
        lives: Callable[[str], bool],
        session_of: SessionOf,
        named: Named,
        told: Callable[[], bool],
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._node = node
        self._node_root = node_root
        self._place_of = place_of
        self._lives = lives
        self._session_of = session_of
        self._named = named
        self._told = told
        self._clock = clock
        self._monotonic = monotonic
        self._pods: dict[str, _Pod] = {}
        self._reports: Tells | None = None
        self._thread = ThreadPoolExecutor(1, "checkpoints")
        self._not_before = 0.0
        self._turns = 0

    def connect(self, reports: Tells) -> None:
        """Where findings go to."""
        self._reports = reports

    # From the watch -------------------------------------------------------------------------------

    def opened(self, container: WatchedContainer) -> None:
        """The container's events are read from now on; before, nobody told of writes."""
        place = self._place_of(container)
        path = next((m.path for m in container.mounts if m.role == "checkpoints"), None)
        if place is None or path is None:
            return
        started, uid = _nanoseconds(container.started), container.pod_uid
        pod = self._pods.get(uid)
        if pod is None:
            asks_at = self._monotonic() + zlib.crc32(uid.encode()) % _SPREAD
            files = PodFiles(self._node_root, started)
            pod = self._pods[uid] = _Pod(place, files, container.container, path, asks_at)
        pod.container, pod.path = container.container, path
        pod.files.tell(Unwatched(started, _nanoseconds(self._clock()) if self._told() else _NEVER))
        # At once: the container may end soon, and with it the way to its mount.
        self._thread.submit(pod.files.enter, container, path)

    def closed(self, container: WatchedContainer) -> None:
        """The container has ended; its last events were read."""
        pod = self._pods.get(container.pod_uid)
        if pod is not None:
            pod.files.left(container.container_id)

    def wrote(self, container: WatchedContainer, written: Written) -> None:
        """A file of the mount was closed that was open for writing."""
        pod = self._pods.get(container.pod_uid)
        if pod is not None:
            pod.files.tell(written)

    def lost(self, container: WatchedContainer) -> None:
        """Events were lost just now."""
        pod = self._pods.get(container.pod_uid)
        if pod is not None:
            now = _nanoseconds(self._clock())
            pod.files.tell(Unwatched(now - _LOST, now))

    # The loop -------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Works until cancelled."""
        try:
            while True:
                await asyncio.sleep(TICK)
                await self.step()
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    async def step(self) -> None:
        """One turn of each pod that has something to do."""
        left = int(RATE * TICK)
        uids = list(self._pods)
        self._turns += 1
        first = self._turns % max(len(uids), 1)
        for uid in [*uids[first:], *uids[:first]]:
            pod, now = self._pods[uid], self._monotonic()
            if pod.closed is None and not self._lives(uid):
                pod.closed = now
            if await self._knows(pod, now):
                last = pod.closed is not None
                if not pod.files.idle(now, last=last):
                    left -= await self._turn(pod, now, max(left, 0), last=last)
                await self._ask(pod)
                await self._send(pod)
            if pod.closed is not None and self._is_over(pod, now - pod.closed):
                del self._pods[uid]

    async def _turn(self, pod: _Pod, now: float, budget: int, *, last: bool) -> int:
        loop = asyncio.get_running_loop()
        turn = await loop.run_in_executor(
            self._thread, lambda: pod.files.turn(now, budget, last=last)
        )
        _HASHED.inc(turn.spent)
        self._take(pod, turn)
        return turn.spent

    def _is_over(self, pod: _Pod, since: float) -> bool:
        if since >= LAST_SECONDS and not pod.files.over:
            self._take(pod, pod.files.finish(self._monotonic()))
        if pod.files.over and not pod.unsent:
            return True
        if since < 2 * LAST_SECONDS:
            return False
        if pod.unsent:
            _log.error("%d manifests of %s are lost", len(pod.unsent), pod.place.subject.pod)
        return True

    async def _knows(self, pod: _Pod, now: float) -> bool:
        """Whether it is known what has a manifest already."""
        if pod.files.book is not None:
            return True
        soon = pod.closed is None and not pod.files.written and now < pod.asks_at
        if soon or now < self._not_before:
            return False
        try:
            pod.files.knows(await read_known(self._kube, pod.place.subject, pod.place.volume))
        except KubeError as error:
            _log.warning("manifests of %s: %s", pod.place.subject.pod, error)
            self._not_before = now + _RETRY
            return False
        return True

    def _take(self, pod: _Pod, turn: Turn) -> None:
        for replaced in turn.replaced:
            if replaced.sure or (replaced.unseen and self._is_named(pod, replaced)):
                self._tell(pod, replaced)
            elif replaced.unseen:
                continue
            else:
                pod.questions.append(replaced)
        for batch in turn.batches:
            obj = object_of(
                pod.place.subject,
                self._node,
                pod.place.volume,
                batch,
                lambda file: self._user_of(pod, file),
                self._clock(),
            )
            pod.unsent.append(obj)

    def _is_named(self, pod: _Pod, replaced: Replaced) -> bool:
        changed = datetime.fromtimestamp(replaced.stamp.changed / 10**9, UTC)
        path = f"{pod.path}/{replaced.path}"
        return self._named(pod.place.subject.uid, pod.container, path, changed)

    def _user_of(self, pod: _Pod, file: Completed) -> str | None:
        session = file.lineage.session if file.lineage is not None else None
        if file.writer != "Session" or session is None:
            return None
        person = self._session_of(pod.place.subject.uid, pod.container, session)
        return None if person is None else person.user

    async def _ask(self, pod: _Pod) -> None:
        """Whether another pod's manifest explains what was found; else whether it was replaced."""
        questions, pod.questions = pod.questions, []
        book = pod.files.book
        if not questions or book is None:
            return
        now = self._monotonic()
        try:
            known = await read_known(self._kube, pod.place.subject, pod.place.volume)
        except KubeError as error:
            _log.warning("manifests of %s: %s", pod.place.subject.pod, error)
            for asked in questions:
                book.later(asked.path, asked.stamp, now)
            return
        loop = asyncio.get_running_loop()
        for asked in questions:
            other = known.get(asked.path)
            if other is not None and other.digest == asked.found:
                book.explained(asked.path, asked.stamp, other)
            elif await loop.run_in_executor(self._thread, pod.files.held, asked.stamp):
                book.later(asked.path, asked.stamp, now)
            elif book.unexplained(asked.path, asked.stamp, now):
                self._tell(pod, asked)

    def _tell(self, pod: _Pod, replaced: Replaced) -> None:
        if self._reports is None:
            return
        evidence = {
            "signed digest": replaced.signed,
            "digest": replaced.found,
            "manifest": replaced.manifest,
        }
        if replaced.unseen:
            by = "by a process that was gone, just after an access whose command names it"
        elif replaced.lineage is None:
            by = "by nobody in the pod"
            evidence[FOUND_BY] = HASHING  # whoever had a session just now did not do it there
        else:
            came_in = replaced.lineage.session is not None
            by = "by a session in the pod" if came_in else "from outside the pod"
        self._reports.see(
            pod.place.subject.uid,
            pod.container,
            Observation(
                FindingId.CHECKPOINT_REPLACED,
                f"{replaced.path} has a manifest, and was given other content {by}",
                path=f"{pod.path}/{replaced.path}",
                lineage=replaced.lineage,
                evidence=evidence,
                subject=f"{replaced.path} {replaced.found}",
            ),
        )

    async def _send(self, pod: _Pod) -> None:
        path = path_of(API_VERSION, PLURAL, pod.place.subject.namespace)
        while pod.unsent and self._monotonic() >= self._not_before:
            try:
                await self._kube.create(path, pod.unsent[0])
                _MANIFESTS.inc()
            except ConflictError:
                pass  # made before a restart
            except KubeError as error:
                if error.status not in _UNREPAIRABLE:
                    _log.warning("manifest of %s: %s", pod.place.subject.pod, error)
                    self._not_before = self._monotonic() + _RETRY
                    return
                _REFUSED.inc()
                _log.error("manifest of %s is refused: %s", pod.place.subject.pod, error)
            pod.unsent.popleft()


def _nanoseconds(time_: datetime) -> int:
    return int(time_.timestamp() * 10**9)
