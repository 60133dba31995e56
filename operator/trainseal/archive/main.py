"""``trainseal archive``: records seals, findings, access records and whatever else is to be kept.

It reads these kinds and writes to its volume; beside it, it publishes the log's head in a
ConfigMap, so that a log cut short on the volume does not go unseen. One replica: what changes
while it is down is recorded when it is back, but for what was made *and* deleted meanwhile. Of a
report in which only counts go up a revision a minute is kept, and its last one.

Memory (measured): 70 MiB, and about 1 KiB for each object that is alive in the cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from prometheus_client import Counter, Gauge

from trainseal.api import (
    accessrecord,
    breakglass,
    checkpoint,
    driftreport,
    evidenceitem,
    holdrelease,
    runstatement,
    sealedrun,
    stackrequest,
)
from trainseal.api.model import API_VERSION, JsonObject, json_object
from trainseal.archive.follow import PAGE, follow
from trainseal.archive.revisions import APART, Recorded, is_due, says
from trainseal.archive.store import Store, StoreError
from trainseal.cluster.api import ConflictError, Kube, KubeError, NotFoundError, connect, path_of
from trainseal.cluster.health import health
from trainseal.cluster.settings import EVIDENCE_HEAD_CONFIG_MAP
from trainseal.provenance.canonical import CanonicalError
from trainseal.provenance.evidence import Head

_log = logging.getLogger(__name__)
_APPENDED = Counter("trainseal_archive_records_total", "Records written to the archive.", ["kind"])
_FAILED = Counter("trainseal_archive_failures_total", "Records that the disk did not take.")
_HEAD = Gauge("trainseal_archive_head", "Number of the archive's last record.")
_KINDS = {
    "SealedRun": sealedrun.PLURAL,
    "DriftReport": driftreport.PLURAL,
    "AccessRecord": accessrecord.PLURAL,
    "HoldRelease": holdrelease.PLURAL,
    "BreakGlass": breakglass.PLURAL,
    "EvidenceItem": evidenceitem.PLURAL,
    "Checkpoint": checkpoint.PLURAL,
    "RunStatement": runstatement.PLURAL,
    "StackRequest": stackrequest.PLURAL,
}
#: Objects of one page of a list: these may have a quarter of a megabyte each.
_PAGES = {"EvidenceItem": 10}
_PUBLISH_SECONDS = 1.0
#: How often it is looked whether a revision that was put off is due.
_LATE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line gives."""

    namespace: str
    folder: Path
    metrics_port: int = 8080
    kubeconfig: str | None = None


class Archive:
    """Takes objects into the store, in a thread, one after the other."""

    def __init__(self, store: Store, clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock = clock
        self._one = asyncio.Lock()
        self._recorded: dict[str, Recorded] = {}
        #: Revisions that were put off: their objects, by UID, as (kind, namespace, name).
        self.late: dict[str, tuple[str, str, str]] = {}
        self.changed = asyncio.Event()
        self.failing: str | None = None

    @property
    def head(self) -> Head:
        """The log's head."""
        return self._store.head

    async def take(self, obj: JsonObject, *, deleted: bool = False) -> None:
        """Records it, or puts it off (``late``). Raises OSError where the disk does not take it."""
        metadata, said = json_object(obj.get("metadata")), says(obj)
        uid = str(metadata.get("uid"))
        async with self._one:
            now = self._clock()
            if not deleted and not is_due(self._recorded.get(uid), said, now):
                name = str(metadata.get("name"))
                self.late[uid] = (str(obj.get("kind")), str(metadata.get("namespace", "")), name)
                return
            try:
                new = await asyncio.to_thread(self._store.append, obj, now, deleted=deleted)
            except OSError as error:
                _FAILED.inc()
                self.failing = f"the volume does not take records: {error}"
                raise
            except CanonicalError as error:
                # Nothing that the API server stores for our kinds; it must not stop the rest.
                _FAILED.inc()
                _log.error("%s is not recorded: %s", json_object(obj.get("metadata")), error)
                return
            self.failing = None
            self.late.pop(uid, None)
            if deleted:
                self._recorded.pop(uid, None)
            elif said is not None and new:
                self._recorded[uid] = Recorded(now, said)
        if new:
            _APPENDED.labels(str(obj.get("kind"))).inc()
            self._say()

    def due(self) -> list[tuple[str, tuple[str, str, str]]]:
        """What was put off and has waited long enough."""
        now = self._clock()
        last = self._recorded
        return [
            (u, o) for u, o in self.late.items() if u not in last or now - last[u].time >= APART
        ]

    async def listed(self, kind: str, uids: set[str]) -> None:
        """Records what is gone since the archive last ran."""
        async with self._one:
            if kind == "DriftReport":
                self._recorded = {u: r for u, r in self._recorded.items() if u in uids}
                self.late = {u: o for u, o in self.late.items() if u in uids}
            if await asyncio.to_thread(self._store.note_absent, kind, uids, self._clock()):
                self._say()

    def _say(self) -> None:
        _HEAD.set(self.head.number)
        self.changed.set()


async def serve(options: Options) -> int:
    """Runs until SIGTERM or SIGINT (0); 1 where the folder cannot be used."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    try:
        with Store(options.folder) as store:
            archive = Archive(store, _now)
            _log.info("the archive's head is %s", archive.head)
            async with (
                connect(options.kubeconfig) as kube,
                health(options.metrics_port, lambda: archive.failing),
            ):
                work = asyncio.ensure_future(_work(kube, options.namespace, archive))
                stopping = asyncio.ensure_future(stop.wait())
                await asyncio.wait({work, stopping}, return_when=asyncio.FIRST_COMPLETED)
                stopping.cancel()
                if work.done():
                    work.result()
                work.cancel()
                await asyncio.gather(work, return_exceptions=True)
                with contextlib.suppress(KubeError):
                    await publish(kube, options.namespace, archive.head)
    except StoreError as error:
        _log.error("%s", error)
        return 1
    return 0


async def _work(kube: Kube, namespace: str, archive: Archive) -> None:
    async with asyncio.TaskGroup() as group:
        for kind, plural in _KINDS.items():
            path, page = path_of(API_VERSION, plural), _PAGES.get(kind, PAGE)
            group.create_task(follow(kube, path, kind, archive, page=page))
        group.create_task(_publishing(kube, namespace, archive))
        group.create_task(_catching_up(kube, archive))


async def _catching_up(kube: Kube, archive: Archive) -> None:
    while True:
        await asyncio.sleep(_LATE_SECONDS)
        await catch_up(kube, archive)


async def catch_up(kube: Kube, archive: Archive) -> None:
    """Records what was put off and is due by now, as it stands. What fails is tried again."""
    for uid, (kind, namespace, name) in archive.due():
        try:
            found = await kube.get(path_of(API_VERSION, _KINDS[kind], namespace, name))
            if json_object(found.get("metadata")).get("uid") == uid:
                await archive.take(found)
        except NotFoundError:
            continue  # its deletion, which the watch tells, brings it as it was last
        except (KubeError, OSError) as error:
            _log.warning("%s %s/%s: %s; again in a moment", kind, namespace, name, error)


async def _publishing(kube: Kube, namespace: str, archive: Archive) -> None:
    archive.changed.set()
    while True:
        await archive.changed.wait()
        archive.changed.clear()
        try:
            await publish(kube, namespace, archive.head)
        except KubeError as error:
            _log.warning("publishing the archive's head: %s", error)
            archive.changed.set()
        await asyncio.sleep(_PUBLISH_SECONDS)


async def publish(kube: Kube, namespace: str, head: Head) -> None:
    """Writes the head where whoever can write to the volume cannot. Raises KubeError.

    A head that is ahead of ours stays: the volume is older than what was published, and
    ``trainseal evidence verify`` must be able to say so.
    """
    path = path_of("v1", "configmaps", namespace, EVIDENCE_HEAD_CONFIG_MAP)
    body: JsonObject = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": EVIDENCE_HEAD_CONFIG_MAP, "namespace": namespace},
        "data": {"head": str(head)},
    }
    try:
        found = published(await kube.get(path))
    except NotFoundError:
        with contextlib.suppress(ConflictError):
            await kube.create(path_of("v1", "configmaps", namespace), body)
        return
    if found is not None and found.number > head.number:
        _log.error(
            "the volume's log ends at %s, and %s was published: the log was cut short, or the "
            "volume is an older one; the published head is left as it is",
            head,
            found,
        )
        return
    if found != head:
        await kube.patch(path, {"data": {"head": str(head)}})


def published(config_map: JsonObject) -> Head | None:
    """The head that a ConfigMap says; None where it says none."""
    data = config_map.get("data")
    try:
        return Head.parse(str(data.get("head"))) if isinstance(data, dict) else None
    except ValueError:
        return None


def _now() -> datetime:
    return datetime.now(UTC)
