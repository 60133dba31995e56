"""``trainseal agent``: watches the sealed pods of one node until told to stop."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue

from trainseal.agent.cgroups import hierarchy
from trainseal.agent.checkpointobjects import Volume
from trainseal.agent.checkpoints import CheckpointWatch, Place
from trainseal.agent.containers import (
    SealedPods,
    what_is_needed_of_a_pod,
)
from trainseal.agent.driftpolicies import DriftPolicies, what_is_needed_of_a_policy
from trainseal.agent.evidenceitems import Taken
from trainseal.agent.evidencekeeping import EvidenceKeeper
from trainseal.agent.lease import NodeLease
from trainseal.agent.ledger import Person
from trainseal.agent.observed import Observation, Process, WatchedContainer
from trainseal.agent.people import AccessRecords, what_is_needed_of_a_record
from trainseal.agent.reports import Reports, Subject
from trainseal.agent.sealedtemplates import SealedTrees
from trainseal.agent.senses import NodeSenses, node_root
from trainseal.agent.sessions import Command
from trainseal.agent.stackdumps import StackDumps
from trainseal.agent.stacktaking import StackTaker
from trainseal.agent.watch import NodeWatch, subject_of
from trainseal.api.accessrecord import LABEL_NODE, node_label
from trainseal.api.accessrecord import PLURAL as RECORDS
from trainseal.api.driftreport import Finding
from trainseal.api.model import API_VERSION, JsonObject, json_object
from trainseal.api.stackrequest import PLURAL as STACK_REQUESTS
from trainseal.cluster.api import Kube, KubeError, connect, path_of
from trainseal.cluster.health import health
from trainseal.cluster.informer import Event, Informer
from trainseal.cluster.keys import read_keyring
from trainseal.cluster.settings import KEYRING_CONFIG_MAP
from trainseal.provenance.boundseals import kept_by_watchers
from trainseal.provenance.keyrings import UntrustedError

_log = logging.getLogger(__name__)
#: Between two questions while the API server does not answer; seconds.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 5.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line gives. ``namespace`` is the release's, where keyring and Lease are."""

    node: str
    namespace: str
    cgroups: Path = Path("/sys/fs/cgroup")
    may_freeze: bool = True
    metrics_port: int = 8080
    kubeconfig: str | None = None


async def serve(options: Options) -> int:
    """Runs until SIGTERM or SIGINT; then writes what is unwritten and takes the marks away."""
    # Who wrote is asked for while it still runs: the sweep's thread has to give way at once.
    sys.setswitchinterval(0.0005)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    async with connect(options.kubeconfig) as kube:
        cluster = await cluster_uid(kube, stop)
        if cluster is None:
            return 0
        agent = build(kube, options, cluster, _now)
        async with health(options.metrics_port, agent.not_ready), asyncio.TaskGroup() as group:
            tasks = [group.create_task(part) for part in agent.parts()]
            await stop.wait()
            _log.info("stopping")
            await agent.watch.close()
            await agent.evidence.close()
            await agent.reports.close()
            for task in tasks:
                task.cancel()
    return 0


@dataclass(frozen=True, slots=True)
class Agent:
    """The parts of a node's agent, joined."""

    senses: NodeSenses
    watch: NodeWatch
    reports: Reports
    evidence: EvidenceKeeper
    checkpoints: CheckpointWatch
    stacks: StackDumps
    lease: NodeLease
    informers: Mapping[str, Informer]

    def not_ready(self) -> str | None:
        """What is still waited for, in words."""
        waiting = [name for name, i in self.informers.items() if not i.synced.is_set()]
        if self.lease.renewed is None:
            waiting.append("the Lease")
        return f"waiting for {', '.join(waiting)}" if waiting else None

    def parts(self) -> tuple[Coroutine[None, None, None], ...]:
        """What runs as long as the agent does."""
        informers = (informer.run() for informer in self.informers.values())
        own = (self.watch.run(), self.evidence.run(), self.checkpoints.run(), self.stacks.run())
        return (self.senses.run(), *own, self.lease.run(), *informers)


def build(kube: Kube, options: Options, cluster: str, clock: Callable[[], datetime]) -> Agent:
    """Joins the parts. Raises CgroupError where the node's groups are not there."""

    def own_commands(container: WatchedContainer) -> frozenset[Command]:
        pod = pods.pods.get(container.pod_uid)
        found = pod.containers.get(container.container) if pod is not None else None
        return found.own_commands if found is not None else frozenset()

    def sealed_trees(container: WatchedContainer) -> SealedTrees | None:
        pod = pods.pods.get(container.pod_uid)
        return pod.trees if pod is not None else None

    def place_of(container: WatchedContainer) -> Place | None:
        pod = pods.pods.get(container.pod_uid)
        if pod is None or pod.checkpoints is None:
            return None
        return Place(subject_of(pod), Volume(*pod.checkpoints))

    checkpoints = CheckpointWatch(
        kube,
        options.node,
        node_root=node_root(),
        place_of=place_of,
        lives=lambda uid: uid in pods.pods,
        session_of=lambda uid, container, session: senses.opened_by(uid, container, session),
        named=lambda uid, container, path, at: senses.named(uid, container, path, at),
        told=lambda: senses.sees_writes,
        clock=clock,
    )
    senses = NodeSenses(
        lambda uid: records.of_pod(uid),
        own_commands,
        sealed_trees,
        lambda uid: uid in pods.pods,
        clock,
        writes=checkpoints,
        current=lambda: informers["access records"].current,
    )
    for words in senses.lacking:
        _log.warning("not seen on this node: %s", words)
    watch = NodeWatch(
        senses, hierarchy(options.cgroups), may_freeze=options.may_freeze, follower=checkpoints
    )
    policies = DriftPolicies()
    pods = SealedPods(cluster, watch.pod_changed)

    def join(subject: Subject, finding: Finding, session: Process | None) -> Person | None:
        return senses.behind(subject.uid, finding, session)

    def take(uid: str, container: str | None, seen: Observation) -> Taken:
        places = (c for c in watch.containers if (c.pod_uid, c.container) == (uid, container))
        return senses.take(seen, next(places, None))

    evidence = EvidenceKeeper(kube, options.node, take, clock)
    reports = Reports(
        kube,
        options.node,
        policies=policies.for_namespace,
        join=join,
        freeze=watch.freeze,
        clock=clock,
        evidence=evidence,
    )
    evidence.connect(reports)
    records = AccessRecords(options.node, reports.people_changed, lambda uid: uid in pods.pods)
    watch.connect(pods, reports)
    checkpoints.connect(reports)
    stacks = StackDumps(
        kube,
        options.node,
        pods=lambda: pods.pods.values(),
        containers=lambda uid: [c for c in watch.containers if c.pod_uid == uid],
        take=StackTaker(senses.processes).take,
        clock=clock,
    )

    def on_keyring(event: Event, _: tuple[str, str], obj: JsonObject) -> None:
        if event == "DELETED":
            return  # the last known keyring stands: losing it would end every watch
        try:
            pods.use_keyring(read_keyring(obj, "seal"))
        except UntrustedError as error:
            _log.error("keyring: %s", error)

    informers = {
        "the keyring": Informer(
            kube,
            path_of("v1", "configmaps", options.namespace),
            listener=on_keyring,
            query={"fieldSelector": f"metadata.name={KEYRING_CONFIG_MAP}"},
        ),
        "policies": Informer(
            kube,
            path_of(API_VERSION, "provenancepolicies"),
            listener=policies.on_policy,
            shape=what_is_needed_of_a_policy,
        ),
        "seals": Informer(
            kube,
            path_of(API_VERSION, "sealedruns"),
            listener=pods.on_seal,
            shape=kept_by_watchers,
        ),
        "pods": Informer(
            kube,
            path_of("v1", "pods"),
            listener=pods.on_pod,
            query={"fieldSelector": f"spec.nodeName={options.node}"},
            shape=what_is_needed_of_a_pod,
        ),
        "access records": Informer(
            kube,
            path_of(API_VERSION, RECORDS),
            listener=records.on_record,
            query={"labelSelector": f"{LABEL_NODE}={node_label(options.node)}"},
            shape=what_is_needed_of_a_record,
            keep=False,
        ),
        "stack requests": Informer(
            kube,
            path_of(API_VERSION, STACK_REQUESTS),
            listener=stacks.on_request,
            keep=False,
        ),
    }

    def sees() -> dict[str, JsonValue]:
        return {
            "kernel": os.uname().release,
            "containers": len(watch.containers),
            "lacking": list(senses.lacking),
            "freeze": options.may_freeze,
        }

    identity = os.environ.get("POD_NAME") or socket.gethostname()
    lease = NodeLease(kube, options.namespace, options.node, identity, sees, clock)
    return Agent(senses, watch, reports, evidence, checkpoints, stacks, lease, informers)


async def cluster_uid(kube: Kube, stop: asyncio.Event) -> str | None:
    """The UID of kube-system, by which a cluster is known, once the API server says it; None where
    we are told to stop before.

    Whoever ended because it does not answer would be started again later and later, also once it
    does: nobody would watch meanwhile.
    """
    stopping = asyncio.ensure_future(stop.wait())
    pause = _FIRST_PAUSE
    try:
        while not stop.is_set():
            try:
                namespace = await kube.get(path_of("v1", "namespaces", None, "kube-system"))
                return str(json_object(namespace.get("metadata")).get("uid"))
            except KubeError as error:
                _log.warning("waiting for the API server: %s; again in %.1f s", error, pause)
            await asyncio.wait({stopping}, timeout=pause)
            pause = min(2 * pause, _LONGEST_PAUSE)
    finally:
        stopping.cancel()
    return None


def _now() -> datetime:
    return datetime.now(UTC)
