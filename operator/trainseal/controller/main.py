"""``trainseal controller``: waits for the Lease, then reconciles until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import kopf
from prometheus_client import Gauge

from trainseal.api.gateplan import MAX_REGISTRY_CA_BYTES
from trainseal.api.model import API_VERSION, JsonObject
from trainseal.api.trainingjob import TrainingJob
from trainseal.cluster.api import Kube, connect, path_of
from trainseal.cluster.health import health
from trainseal.cluster.informer import Informer
from trainseal.cluster.keys import (
    Purpose,
    ensure_in_keyring,
    ensure_private_key,
    new_output_key_pem,
    read_keyring,
)
from trainseal.cluster.settings import (
    KEYRING_CONFIG_MAP,
    OUTPUT_KEY_SECRET,
    SEAL_KEY_SECRET,
    TICKET_KEY_SECRET,
    TLS_SECRET,
    Settings,
    SettingsError,
    load_settings,
)
from trainseal.controller import handlers, lostgpus
from trainseal.controller.certificates import CONFIGURATIONS, ensure_webhook_tls
from trainseal.controller.comparing import Comparing
from trainseal.controller.floor import Floor
from trainseal.controller.hearing import Hearing, News
from trainseal.controller.launchbook import LABEL_TEMPLATE, LaunchBook
from trainseal.controller.launchbook import shape as launches_shape
from trainseal.controller.leadership import LeadershipLostError, lead
from trainseal.controller.policystatus import POLICIES, ROOTS, PolicyStatus
from trainseal.controller.queueing import Kept, Queueing
from trainseal.controller.ruleswatch import RulesWatch
from trainseal.controller.runs import Runs
from trainseal.controller.runversions import RunVersions
from trainseal.controller.stackexpiry import StackExpiry
from trainseal.controller.watching import Watching
from trainseal.controller.workqueue import WorkQueue
from trainseal.controller.world import World
from trainseal.provenance.keys import PrivateKey
from trainseal.registry.client import RegistryClient
from trainseal.registry.credentials import default_config_file, from_file
from trainseal.registry.transport import Options as RegistryOptions
from trainseal.registry.trustanchors import InvalidAnchors, read_anchors
from trainseal.verifier.artifacts import ArtifactVerifier
from trainseal.verifier.jobs import JobVerifier
from trainseal.verifier.policystore import PolicyStore

_log = logging.getLogger(__name__)
_LEADING = Gauge("trainseal_controller_leading", "1 while this replica leads.")
SERVICE = "trainseal-webhook"


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line gives."""

    namespace: str
    config: Path
    metrics_port: int = 8080
    kubeconfig: str | None = None


async def serve(options: Options) -> int:
    """Runs until SIGTERM or SIGINT (then 0), or until the Lease is lost (then 1)."""
    settings = load_settings(options.config)
    registry_ca = _registry_ca(settings)
    stop = asyncio.Event()
    _on_signals(stop)
    async with connect(options.kubeconfig) as kube, health(options.metrics_port, _always):
        identity = f"{os.environ.get('POD_NAME') or socket.gethostname()}_{os.getpid()}"
        leading = asyncio.ensure_future(
            lead(
                kube,
                options.namespace,
                identity,
                lambda: _work(kube, options, settings, registry_ca, stop),
            )
        )
        stopping = asyncio.ensure_future(stop.wait())
        await asyncio.wait({leading, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if stopping.done():
            leading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await leading
            return 0
        stopping.cancel()
        try:
            leading.result()
        except LeadershipLostError as error:
            _log.error("%s; exiting", error)
        return 1


def _registry_ca(settings: Settings) -> str:
    """The registries' authorities, for gates; a file that is unfit for it keeps us from starting.

    Else the jobs of some namespace would meet it, one by one and much later.
    """
    if settings.registries.ca_file is None:
        return ""
    try:
        return read_anchors(Path(settings.registries.ca_file), MAX_REGISTRY_CA_BYTES)
    except InvalidAnchors as error:
        raise SettingsError(f"registries.caFile (registries.caConfigMap): {error}") from None


class _Look(Protocol):
    """Wants a TrainingJob looked at; ``changed``: somebody changed something of its run."""

    def __call__(self, key: tuple[str, str], *, changed: bool = True) -> None: ...


async def _work(
    kube: Kube, options: Options, settings: Settings, registry_ca: str, stop: asyncio.Event
) -> None:
    """What the leader does, for as long as it leads."""
    _LEADING.set(1)
    clock = _now
    home = options.namespace
    seal_key = await ensure_private_key(kube, home, SEAL_KEY_SECRET)
    ticket_key = await ensure_private_key(kube, home, TICKET_KEY_SECRET)
    output_key = await ensure_private_key(kube, home, OUTPUT_KEY_SECRET, new_output_key_pem)
    keys: dict[Purpose, PrivateKey] = {
        "seal": seal_key,
        "ticket": ticket_key,
        "output": output_key,
    }
    await ensure_in_keyring(kube, home, keys, clock())
    keyring = await kube.get(path_of("v1", "configmaps", home, KEYRING_CONFIG_MAP))
    cluster = await kube.get(path_of("v1", "namespaces", None, "kube-system"))
    metadata = cluster["metadata"]
    uid = str(metadata["uid"]) if isinstance(metadata, dict) else ""
    seal_ring, ticket_ring = read_keyring(keyring, "seal"), read_keyring(keyring, "ticket")

    known: set[tuple[str, str]] = set()

    def policies_changed() -> None:
        floor.changed()
        # A job that was refused, or could not be judged, may pass now.
        for key in tuple(known):
            look(key)
        watching.policies_changed()
        if queueing is not None:
            queueing.policies_changed()

    store = PolicyStore(policies_changed)
    floor = Floor(kube, home, store, settings.is_gpu)
    registry_options = RegistryOptions(
        plain_http=frozenset(settings.registries.plain_http),
        ca_file=Path(settings.registries.ca_file) if settings.registries.ca_file else None,
    )
    credentials = from_file(default_config_file())
    async with (
        RegistryClient(registry_options, credentials) as registry,
        asyncio.TaskGroup() as group,
    ):
        verifier = JobVerifier(ArtifactVerifier(registry, time.monotonic), clock)
        kept = Kept(kube)
        world = World(
            kube=kube,
            settings=settings,
            cluster=uid,
            seal_key=seal_key,
            ticket_keyring=lambda: ticket_ring,
            seal_keyring=lambda: seal_ring,
            policies=store.for_namespace,
            broken_policies=lambda: store.broken,
            verifier=verifier,
            clock=clock,
            registry_ca=registry_ca,
            kept_by=kept.queue,
            output_key=output_key,
        )
        queueing = Queueing(world, kept, lambda key: look(key)) if settings.kueue else None
        versions = RunVersions(kube, engines=settings.engines.enabled)
        launches = LaunchBook(lambda key: look(key))
        hearing = Hearing()
        runs = Runs(
            replace(world, kube=kube.telling(hearing.writing)),
            versions,
            launches,
            lambda seal: watching.changed(seal),
            lambda job: comparing.may_be_open(job),
        )
        queue = WorkQueue(runs.reconcile)
        comparing = Comparing(world, versions)

        def look(key: tuple[str, str], *, changed: bool = True) -> None:
            runs.heard(key, changed=changed)
            queue.add(key)

        def accepted(namespace: str) -> None:
            for key in tuple(known):
                if key[0] == namespace:
                    look(key)

        watching = Watching(world, home, comparing.book, accepted)

        def heard(namespace: str, name: str, obj: JsonObject, *, gone: bool) -> None:
            left = gone and obj.get("kind") == TrainingJob.kind_name
            (known.discard if left else known.add)((namespace, name))
            then = functools.partial(_tell, (namespace, name), look, comparing)
            hearing.hear(obj, gone=gone, then=then)
            if queueing is not None:
                queueing.job_changed(namespace, name)

        status = PolicyStatus(kube, store, clock)
        policies = Informer(
            kube, path_of(API_VERSION, POLICIES), listener=status.listener(POLICIES)
        )
        roots = Informer(kube, path_of(API_VERSION, ROOTS), listener=status.listener(ROOTS))
        launched = Informer(
            kube,
            path_of(API_VERSION, "sealedruns"),
            listener=launches.listen,
            query={"labelSelector": LABEL_TEMPLATE},
            shape=launches_shape,
        )
        group.create_task(roots.run())
        group.create_task(policies.run())
        group.create_task(launched.run())
        group.create_task(_lost_gpus(world).run())
        if settings.manage_certificates:
            group.create_task(_certificates(kube, home, clock))
        await roots.synced.wait()
        await policies.synced.wait()
        await launched.synced.wait()
        group.create_task(status.run())
        group.create_task(floor.run())
        group.create_task(floor.follow_devices())
        group.create_task(queue.run())
        group.create_task(watching.run())
        if queueing is not None:
            group.create_task(queueing.run())
        group.create_task(comparing.run(watching.own, watching.reports, watching.listed))
        group.create_task(RulesWatch(kube, home, clock, watching.tell).run())
        group.create_task(StackExpiry(kube, clock).run())
        group.create_task(_watch(heard, settings.engines.enabled, options.kubeconfig, stop))


def _tell(key: tuple[str, str], look: _Look, comparing: Comparing, news: News) -> None:
    """Whom it concerns what was heard of a run."""
    if news is not News.NOTHING:
        look(key, changed=news is News.CHANGE)
    if news is News.CHANGE:
        comparing.job_changed(*key)


def _lost_gpus(world: World) -> Informer:
    """Follows every seal, for what holds cost."""
    lostgpus.METRIC.clock = world.clock
    return Informer(
        world.kube,
        path_of(API_VERSION, "sealedruns"),
        listener=lostgpus.METRIC.listen,
        shape=lostgpus.shape(world.settings.gpus),
    )


async def _watch(
    heard: handlers.Heard, engines: Sequence[str], kubeconfig: str | None, stop: asyncio.Event
) -> None:
    """kopf's part: it watches, and tells what it hears."""
    if kubeconfig:
        os.environ["KUBECONFIG"] = kubeconfig
    # It says of each event that it was heard: a line for each, and nothing to learn from it.
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
    ours = asyncio.all_tasks()
    tasks = await kopf.spawn_tasks(
        registry=handlers.registry(heard, engines),
        settings=handlers.settings(engines),
        clusterwide=True,
        # Else it asks for the user's name, and a container's user need not have one.
        identity="trainseal",  # type: ignore[arg-type] # a NewType that kopf keeps to itself
    )
    # It took the signals for itself; we have more to end than it knows of.
    _on_signals(stop)
    await kopf.run_tasks(tasks, ignored=ours)
    raise RuntimeError("the watch ended by itself")


def _on_signals(stop: asyncio.Event) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)


async def _certificates(kube: Kube, namespace: str, clock: Callable[[], datetime]) -> None:
    """Keeps the webhook's certificate valid, and its authority in the configurations."""
    while True:
        pause = 5.0
        try:
            due = await ensure_webhook_tls(
                kube, namespace, SERVICE, TLS_SECRET, CONFIGURATIONS, clock()
            )
            pause = max(1.0, min(60.0, (due - clock()).total_seconds()))
        except Exception as error:  # noqa: BLE001 - whatever it was, it is tried again and said
            _log.warning("webhook certificate: %s: %s", type(error).__name__, error)
        await asyncio.sleep(pause)


def _always() -> None:
    """A standby is ready: it is ready to lead."""


def _now() -> datetime:
    return datetime.now(UTC)
