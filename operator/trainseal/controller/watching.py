"""The controller's watch, put together: what is watched, what is looked at when it changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from trainseal.api import checkpoint, driftreport, holdrelease
from trainseal.api.model import API_VERSION, JsonObject
from trainseal.cluster.api import path_of
from trainseal.cluster.informer import Event, Informer
from trainseal.controller.alerts import ENFORCEMENT, Alert, Alerts
from trainseal.controller.byseal import BySeal
from trainseal.controller.checkpoints import shape as checkpoint_shape
from trainseal.controller.drift import Drift, Sources, seal_of_alert
from trainseal.controller.ownreport import OwnReports
from trainseal.controller.podbook import PodBook
from trainseal.controller.sealedpods import SealedPods, shape
from trainseal.controller.silence import Silence
from trainseal.controller.workqueue import WorkQueue
from trainseal.controller.world import World
from trainseal.engines.podtemplate import LABEL_SEAL

Key = tuple[str, str]


class Watching:
    """Reports, releases, checkpoints, pods and Leases; ``namespace`` is ours.

    ``book``, where there is one, is kept of the same pods. ``listed`` is set once all were listed.
    ``accepted`` is told of a namespace in which a person signed checkpoints off.
    """

    def __init__(
        self,
        world: World,
        namespace: str,
        book: PodBook | None = None,
        accepted: Callable[[str], None] = lambda _: None,
    ) -> None:
        settings, kube = world.settings, world.kube
        self._volumes = world.volumes
        self._volumes.expect()
        self._pods = SealedPods()
        self._book = book
        self.own = OwnReports(kube, world.clock)
        self.listed = asyncio.Event()
        self._delivered: set[str] = set()
        token = settings.alerts.token_file
        self._alerts = (
            Alerts(settings.alerts.alertmanager_url, Path(token) if token else None, self._was_told)
            if settings.alerts.alertmanager_url
            else None
        )
        reports, releases = BySeal(self.changed), BySeal(self.changed)
        self._checkpoints = BySeal(self.changed)
        drift = Drift(
            world,
            Sources(
                reports=reports,
                releases=releases,
                checkpoints=self._checkpoints,
                pods=self._pods,
                own=self.own,
                alerts=self._alerts,
                delivered=self._delivered,
                accepted=accepted,
            ),
        )
        self._queue = WorkQueue(drift.reconcile)
        self.reports = reports
        self._informers = (
            Informer(
                kube,
                path_of("v1", "pods"),
                listener=self._on_pod,
                query={"labelSelector": LABEL_SEAL},
                shape=book.shape if book else shape,
            ),
            Informer(kube, path_of(API_VERSION, driftreport.PLURAL), listener=reports.listen),
            Informer(kube, path_of(API_VERSION, holdrelease.PLURAL), listener=releases.listen),
            Informer(
                kube,
                path_of(API_VERSION, checkpoint.PLURAL),
                listener=self._on_checkpoint,
                shape=checkpoint_shape,
            ),
        )
        self._silence = (
            Silence(kube, namespace, self._pods, self.own, time.monotonic, world.clock)
            if settings.agents.enabled
            else None
        )

    def changed(self, seal: Key) -> None:
        """Wants a run looked at."""
        self._queue.add(seal)

    def policies_changed(self) -> None:
        """Responses may be others now."""
        for seal in self.reports.seals():
            self.changed(seal)

    async def run(self) -> None:
        """Watches for ever. Nothing is judged before everything was listed once."""
        async with asyncio.TaskGroup() as group:
            for informer in self._informers:
                group.create_task(informer.run())
            for informer in self._informers:
                await informer.synced.wait()
            self.listed.set()
            self._volumes.listed()
            group.create_task(self._queue.run())
            if self._alerts is not None:
                group.create_task(self._alerts.run())
            if self._silence is not None:
                group.create_task(self._silence.run())

    def _on_pod(self, event: Event, key: tuple[str, str], obj: JsonObject) -> None:
        self._pods.listen(event, key, obj)
        if self._book is not None:
            self._book.listen(event, key, obj)

    def _on_checkpoint(self, event: Event, key: tuple[str, str], obj: JsonObject) -> None:
        self._volumes.listen(event, key, obj)
        self._checkpoints.listen(event, key, obj)

    def tell(self, alert: Alert) -> None:
        """Tells the Alertmanager, where there is one, of what is about no run."""
        if self._alerts is not None:
            self._alerts.offer(alert)

    def _was_told(self, alert: str) -> None:
        if alert.startswith(ENFORCEMENT):
            return
        self._delivered.add(alert)
        self.changed(seal_of_alert(alert))
