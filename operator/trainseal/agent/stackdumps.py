"""StackRequests on their way to StackDumps: one pod of this node after the other.

Whoever may create a request may see the stacks: the API server has checked that, and who it is. A
request is answered once, for each pod of its run that is here within the next half minute; one that
is minutes old is not answered any more, so that a restart brings nothing back.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from prometheus_client import Counter
from pydantic import JsonValue

from trainseal.agent.containers import SealedPod
from trainseal.agent.observed import WatchedContainer
from trainseal.agent.stacktaking import Taken
from trainseal.api.accessrecord import LABEL_SEAL
from trainseal.api.model import API_VERSION, InvalidObjectError, JsonObject
from trainseal.api.stackdump import NO_STACKS, PLURAL, name_of
from trainseal.api.stackrequest import StackRequest
from trainseal.cluster.api import ConflictError, Kube, KubeError, NotFoundError, path_of
from trainseal.cluster.informer import Event
from trainseal.provenance.keyrings import rfc3339

_log = logging.getLogger(__name__)
_READ = Counter(
    "trainseal_agent_stacks_total", "Python processes whose stacks were asked for.", ["outcome"]
)
#: By this node's clock and the API server's together.
OLDEST = timedelta(minutes=2)
#: So long a pod of the run is waited for, that may just be coming into the watch.
PATIENCE_SECONDS = 30.0
#: Requests that are known at once. Those of runs that have no pod here go first.
MOST_REQUESTS = 64
_PAUSE_SECONDS = 1.0
_ATTEMPTS = 3
_LONGEST_MESSAGE = 1024

Pods = Callable[[], Iterable[SealedPod]]
Containers = Callable[[str], Sequence[WatchedContainer]]
Take = Callable[[Sequence[WatchedContainer]], Taken]


@dataclass(slots=True)
class _Asked:
    """A request. ``until`` by the monotonic clock; ``done`` are UIDs of pods."""

    namespace: str
    name: str
    uid: str
    seal: str
    until: float
    done: set[str] = field(default_factory=set)


class StackDumps:
    """Answers for one node. ``containers`` are those watched of a pod, by its UID."""

    def __init__(
        self,
        kube: Kube,
        node: str,
        *,
        pods: Pods,
        containers: Containers,
        take: Take,
        clock: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kube = kube
        self._node = node
        self._pods = pods
        self._containers = containers
        self._take = take
        self._clock = clock
        self._monotonic = monotonic
        self._asked: dict[str, _Asked] = {}
        self._news = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "stacks")

    def on_request(self, event: Event, key: tuple[str, str], obj: JsonObject) -> None:
        """Listener for StackRequests; a request may come again."""
        if event == "DELETED":
            return
        try:
            request = StackRequest.parse(obj)
        except InvalidObjectError as error:
            _log.error("%s/%s: %s", *key, error)
            return
        uid, made = request.metadata.uid, request.metadata.creation_timestamp
        if made is None or abs(self._clock() - made) > OLDEST:
            return
        if uid in self._asked:
            return
        until = self._monotonic() + PATIENCE_SECONDS
        self._asked[uid] = _Asked(*key, uid, request.spec.sealed_run, until)
        if len(self._asked) > MOST_REQUESTS:
            here = self._by_run()
            others = (u for u, a in self._asked.items() if (a.namespace, a.seal) not in here)
            del self._asked[next(others, next(iter(self._asked)))]
        self._news.set()

    async def run(self) -> None:
        """Answers until cancelled."""
        try:
            while True:
                await self._news.wait()
                self._news.clear()
                while self._waiting():
                    await self._answer()
                    await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            self._thread.shutdown(wait=False, cancel_futures=True)

    def _waiting(self) -> bool:
        """Whether a request is still waited on. Those whose time is over stay known until they are
        too old to count: a broken watch tells them again.
        """
        now = self._monotonic()
        kept = OLDEST.total_seconds() * 2
        self._asked = {u: a for u, a in self._asked.items() if now < a.until + kept}
        return any(now < a.until for a in self._asked.values())

    async def _answer(self) -> None:
        here = self._by_run()
        for asked in list(self._asked.values()):
            for pod in here[asked.namespace, asked.seal]:
                if pod.uid not in asked.done and self._monotonic() < asked.until:
                    asked.done.add(pod.uid)
                    await self._one(asked, pod)

    def _by_run(self) -> Mapping[tuple[str, str], list[SealedPod]]:
        found = defaultdict[tuple[str, str], list[SealedPod]](list)
        for pod in self._pods():
            found[pod.namespace, pod.seal].append(pod)
        return found

    async def _one(self, asked: _Asked, pod: SealedPod) -> None:
        began = self._clock()
        loop = asyncio.get_running_loop()
        containers = self._containers(pod.uid)
        try:
            taken = await loop.run_in_executor(self._thread, self._take, containers)
        except Exception as error:  # noqa: BLE001 - what a process holds must not end the watch
            _log.exception("stacks of pod %s/%s", pod.namespace, pod.name)
            taken = Taken((), message=f"{NO_STACKS}: reading failed: {error}"[:_LONGEST_MESSAGE])
        for process in taken.processes:
            _READ.labels("none" if process.problem else "read").inc()
        status: dict[str, JsonValue] = {
            "request": asked.name,
            "takenAt": rfc3339(began),
            "processes": [p.wire() for p in taken.processes] or None,
            "processesOmitted": taken.omitted or None,
            "message": taken.message or None,
        }
        for _ in range(_ATTEMPTS):
            try:
                await self._write(asked, pod, status)
                return
            except KubeError as error:
                _log.warning("StackDump of pod %s/%s: %s", pod.namespace, pod.name, error)
                if error.status not in (0, 404, 409, 429) and error.status < 500:
                    return
            await asyncio.sleep(_PAUSE_SECONDS)

    async def _write(self, asked: _Asked, pod: SealedPod, status: JsonObject) -> None:
        collection = path_of(API_VERSION, PLURAL, pod.namespace)
        path = f"{collection}/{name_of(pod.name, pod.uid)}/status"
        try:
            await self._kube.patch(path, {"status": status})
        except NotFoundError:
            try:
                await self._kube.create(collection, self._dump(asked, pod))
            except ConflictError:
                _log.info("StackDump of pod %s/%s was made meanwhile", pod.namespace, pod.name)
            await self._kube.patch(path, {"status": status})

    def _dump(self, asked: _Asked, pod: SealedPod) -> JsonObject:
        """Empty. The request that it is made for takes it along when it goes."""
        owner: JsonObject = {
            "apiVersion": API_VERSION,
            "kind": "StackRequest",
            "name": asked.name,
            "uid": asked.uid,
        }
        return {
            "apiVersion": API_VERSION,
            "kind": "StackDump",
            "metadata": {
                "name": name_of(pod.name, pod.uid),
                "namespace": pod.namespace,
                "labels": {LABEL_SEAL: pod.seal[:63]},
                "ownerReferences": [owner],
            },
            "spec": {
                "sealedRun": pod.seal,
                "node": self._node,
                "pod": {"name": pod.name, "uid": pod.uid},
            },
        }
