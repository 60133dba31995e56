"""Looks for agents that are silent while sealed pods run on their nodes: ``watch.silent``.

Each node's agent renews a Lease ``trainseal-agent-NODE``. Before a node is called silent its Lease
is read once more: a watch of ours that hangs is not the agent's silence. Where it cannot be read,
all clocks start anew: an agent cannot renew while the API server is away either.

A node that is lost takes its agent along, and that is nobody's silence: where the kubelet has not
renewed its own Lease either, at a time when the agent should have, the node is waited for. Both
times are of that node's clock. A node that is gone from the API is lost. Who stops both has the
node itself; after ten minutes, in which the cluster tells the node's pods to leave, the silence is
found all the same.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime, timedelta

from prometheus_client import Gauge

from trainseal.api.findings import FindingId
from trainseal.api.model import InvalidObjectError, JsonObject, json_object
from trainseal.cluster.api import Kube, KubeError, NotFoundError, path_of
from trainseal.cluster.informer import Informer
from trainseal.controller.belief import PodFact
from trainseal.controller.disturbances import timestamp
from trainseal.controller.heartbeats import SILENT_SECONDS, Beat, Heartbeats
from trainseal.controller.ownreport import OwnReports, Seen
from trainseal.controller.sealedpods import SealedPods

LEASE_PREFIX = "trainseal-agent-"
EVERY_SECONDS = 2.0
#: For so long a node that is silent as a whole is taken for lost.
LOST_SECONDS = 600.0
#: An agent renews each five seconds; a kubelet that renewed later than this, and its agent has not,
#: is on a node whose agent alone is silent.
_DUE = timedelta(seconds=7)
_KUBELETS = path_of("coordination.k8s.io/v1", "leases", "kube-node-lease")
_SILENT = Gauge(
    "trainseal_agents_silent", "Nodes on which sealed pods run and whose agent is silent."
)
_LOST = Gauge(
    "trainseal_nodes_lost", "Nodes on which sealed pods run and that are silent as a whole."
)
_log = logging.getLogger(__name__)


class Silence:
    """Compares the Leases with the nodes that sealed pods run on. ``monotonic`` gives seconds."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        pods: SealedPods,
        reports: OwnReports,
        monotonic: Callable[[], float],
        clock: Callable[[], datetime],
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._path = path_of("coordination.k8s.io/v1", "leases", namespace)
        self._leases = Informer(kube, self._path, shape=_shape)
        self._pods = pods
        self._reports = reports
        self._monotonic = monotonic
        self._clock = clock
        self._beats = Heartbeats()
        #: Nodes that are lost, and since when (monotonic seconds).
        self._lost: dict[str, float] = {}

    async def run(self) -> None:
        """Looks for ever; what fails is said and tried again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._leases.run())
            await self._leases.synced.wait()
            while True:
                try:
                    await self.look(self._lease)
                except KubeError as error:
                    _log.warning("looking at the agents' Leases: %s", error)
                await asyncio.sleep(EVERY_SECONDS)

    async def look(self, known: Callable[[str], str]) -> None:
        """Once. ``known`` gives a node's ``renewTime`` as last seen, empty for none.

        Raises KubeError where the API server could not be read: then nobody is accused.
        """
        nodes: dict[str, list[tuple[str, PodFact]]] = defaultdict(list)
        for namespace, pod in self._pods.running():
            nodes[pod.node].append((namespace, pod))
        self._beats.keep(nodes.keys())
        self._lost = {node: since for node, since in self._lost.items() if node in nodes}
        silent = 0
        for node, pods in nodes.items():
            now = self._monotonic()
            self._beats.saw(node, known(node), now)
            if self._beats.silent(node, now) is None:
                self._lost.pop(node, None)
                continue
            self._beats.saw(node, await self._read(node), now, "read")
            beat = self._beats.silent(node, now)
            if beat is None:
                continue
            lost_for = await self._lost_for(node, beat, now)
            if lost_for is not None:
                pods = [] if lost_for <= LOST_SECONDS else [p for p in pods if not p[1].leaving]
            if pods:
                silent += 1
                await self._tell(node, beat, pods)
        _SILENT.set(silent)
        _LOST.set(len(self._lost))

    async def _lost_for(self, node: str, beat: Beat, now: float) -> float | None:
        """For how long the whole node has been silent, and not its agent alone; None: it is not."""
        if await self._is_silent(node, beat):
            return now - self._lost.setdefault(node, now)
        if self._lost.pop(node, None) is None:
            return None
        self._beats.back(node, now)
        return 0.0

    async def _is_silent(self, node: str, beat: Beat) -> bool:
        """Whether the kubelet has not renewed either when the agent should have."""
        last = timestamp(beat.renewed)
        if last is None or last.tzinfo is None:
            return False  # of an agent that never came nothing can be said
        try:
            kubelets = timestamp(_renewed(await self._kube.get(f"{_KUBELETS}/{node}")))
        except NotFoundError:
            return await self._is_gone(node)
        except KubeError as error:
            return self._unread(node, error)
        return kubelets is not None and kubelets.tzinfo is not None and kubelets <= last + _DUE

    async def _is_gone(self, node: str) -> bool:
        """Whether the API has no such node any more."""
        try:
            await self._kube.get_metadata(path_of("v1", "nodes", None, node))
        except NotFoundError:
            return True
        except KubeError as error:
            return self._unread(node, error)
        return False

    def _unread(self, node: str, error: KubeError) -> bool:
        """What may not be read excuses nobody; where nobody answers, all clocks start anew."""
        if error.status not in (401, 403):
            self._beats = Heartbeats()
            raise error
        _log.warning("whether node %s is there: %s", node, error)
        return False

    def _lease(self, node: str) -> str:
        return _renewed(self._leases.get(self._namespace, LEASE_PREFIX + node) or {})

    async def _read(self, node: str) -> str:
        try:
            return _renewed(await self._kube.get(f"{self._path}/{LEASE_PREFIX}{node}"))
        except NotFoundError:
            return ""
        except KubeError:
            self._beats = Heartbeats()
            raise

    async def _tell(self, node: str, beat: Beat, pods: list[tuple[str, PodFact]]) -> None:
        since = self._since(beat)
        by_seal: dict[tuple[str, str], list[Seen]] = defaultdict(list)
        for namespace, pod in pods:
            by_seal[namespace, pod.seal].append(_seen(node, beat, pod, since))
        for (namespace, seal), seen in by_seal.items():
            try:
                await self._reports.record(namespace, seal, seen)
            except (KubeError, InvalidObjectError) as error:
                # One run's report must not keep the others' from being written.
                _log.warning("agent of node %s: report on %s/%s: %s", node, namespace, seal, error)

    def _since(self, beat: Beat) -> datetime | None:
        """When it was surely awake; by its own clock, or by ours where that is earlier."""
        renewed = timestamp(beat.renewed)
        if renewed is None or renewed.tzinfo is None:
            return None
        return min(renewed, self._clock() - timedelta(seconds=self._monotonic() - beat.at))


def _seen(node: str, beat: Beat, pod: PodFact, since: datetime | None) -> Seen:
    last = f"its Lease was last renewed at {beat.renewed}" if beat.renewed else "it has no Lease"
    return Seen(
        id=FindingId.WATCH_SILENT,
        subject=pod.uid,
        message=f"pod {pod.name} is not watched: the agent of node {node} has been silent for more "
        f"than {SILENT_SECONDS:.0f} s; {last}",
        occasion=f"{node} {beat.renewed or 'never'}",
        evidence={"pod": pod.name, "podUID": pod.uid, "node": node, "lastRenewal": beat.renewed},
        not_before=since,
    )


def _shape(lease: JsonObject) -> JsonObject:
    return {
        "metadata": lease.get("metadata"),
        "spec": {"renewTime": json_object(lease.get("spec")).get("renewTime")},
    }


def _renewed(lease: JsonObject) -> str:
    return str(json_object(lease.get("spec")).get("renewTime") or "")
