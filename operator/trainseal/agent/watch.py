"""The watch of a node: containers found, eyes on each, sweeps over all, findings to the reports.

Everything here runs in one event loop, but for what may take long: marking and walking a new
container, the sweeps, and waiting for a pod to stand still, each in a thread of its own kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

from prometheus_client import Gauge, Histogram

from trainseal.agent.addedcontainers import is_told
from trainseal.agent.cgroups import (
    FolderWatch,
    container_id_of,
    containers_in,
    pod_parents,
    pod_uid_of,
    processes_in,
)
from trainseal.agent.containers import SealedPod, SealedPods, recognise
from trainseal.agent.freezing import Freezing
from trainseal.agent.observed import Observation, Process, Profile, WatchedContainer
from trainseal.agent.profiles import report_of
from trainseal.agent.reports import Reports, Subject
from trainseal.api.driftreport import Finding
from trainseal.api.findings import FindingId

_log = logging.getLogger(__name__)
_CONTAINERS = Gauge("trainseal_agent_containers", "Containers that are watched.")
_TO_MARKS = Histogram(
    "trainseal_agent_start_to_marks_seconds",
    "From the start of a container's first process until its files are watched.",
    buckets=(0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 30),
)
_SWEEP = Histogram("trainseal_agent_sweep_seconds", "One sweep over all containers.")

SWEEP_SECONDS = 10.0
#: A sweep, or the marking of a container, that takes longer waits for something: it is said.
HANGS_SECONDS = 120.0
#: A new group's first process is looked for this often, more seldom the longer it takes.
_FIRST_LOOK, _LONGEST_LOOK = 0.004, 0.1
#: So long: the pause container never is one of the template's.
_LOOK_SECONDS = 15.0
#: Reads of one container's events at a time, before others have their turn.
_READS = 16


class Eyes(Protocol):
    """Who sees the file events of one container."""

    def open(self) -> Iterable[Observation]:
        """Sets the marks, then walks what was written before them. May take long."""

    def filenos(self) -> Sequence[int]:
        """Readable where there is something to read."""

    def read(self, *, final: bool = False) -> Iterable[Observation]:
        """What happened since; bounded. ``final``: with what is put off."""

    @property
    def lacking(self) -> Sequence[str]:
        """In words, what is not seen of it now, or late."""

    def close(self) -> None:
        """Takes the marks away."""


class Senses(Protocol):
    """What the watch sees with."""

    @property
    def lacking(self) -> Sequence[str]:
        """In words, what this node does not let us see now."""

    @property
    def sweeping(self) -> str:
        """What the sweep that goes on looks at."""

    def process(self, pid: int) -> Process | None:
        """One process, now."""

    def runs(self, pid: int) -> bool:
        """Whether a process is there and does not end."""

    def eyes(self, container: WatchedContainer) -> Eyes:
        """Raises OSError where the container is gone."""

    def sweep(
        self, containers: Sequence[WatchedContainer]
    ) -> Iterable[tuple[WatchedContainer, Observation | Profile]]:
        """What events miss, and each container's profile; takes its time."""


class Follower(Protocol):
    """Who wants to know which containers are watched."""

    def opened(self, container: WatchedContainer) -> None:
        """From now on its events are read."""

    def closed(self, container: WatchedContainer) -> None:
        """It has ended; its last events were read."""


@dataclass(slots=True)
class _Watched:
    container: WatchedContainer
    eyes: Eyes | None


class NodeWatch:
    """All sealed containers of the node."""

    def __init__(
        self,
        senses: Senses,
        cgroups: Path,
        *,
        proc: Path = Path("/proc"),
        may_freeze: bool = True,
        follower: Follower | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._clock = clock
        self._follower = follower
        self._senses = senses
        self._top = cgroups
        self._proc = proc
        self._may_freeze = may_freeze
        self._folders = FolderWatch()
        self._groups: dict[str, Path] = {}
        self._looking: dict[str, asyncio.Task[None]] = {}
        #: Looked at for long in vain, by pod: the pause container, and others' helpers.
        self._strangers: dict[str, set[str]] = {}
        self._watched: dict[str, _Watched] = {}
        #: Containers that are being marked and walked, and the sweep that goes on: since when.
        self._opening: dict[str, tuple[WatchedContainer, float]] = {}
        self._sweeping: float | None = None
        self._walker = ThreadPoolExecutor(2, "walk")
        self._sweeper = ThreadPoolExecutor(1, "sweep")
        self._freezer: Freezing | None = None
        self._pods: SealedPods | None = None
        self._reports: Reports | None = None

    def connect(self, pods: SealedPods, reports: Reports) -> None:
        """Where pods come from, and findings go to."""
        self._pods, self._reports = pods, reports
        self._freezer = Freezing(reports, allowed=self._may_freeze)

    @property
    def containers(self) -> tuple[WatchedContainer, ...]:
        """Those that are watched now."""
        return tuple(w.container for w in self._watched.values())

    # Pods and their containers --------------------------------------------------------------------

    def pod_changed(self, uid: str) -> None:
        """A sealed pod came, changed or went."""
        pod = self._pod(uid)
        if pod is None:
            self._forget(uid)
            return
        if uid not in self._groups:
            self._report().begin(subject_of(pod))
            self._tell_whether_whole(uid)
            group = self._group_of(uid)
            if group is not None:
                self._enter(uid, group)
        else:
            self._look_again(uid)
        ground = self._groups.get(uid)
        if ground is None or (pod.ends is not None and self._let_end(uid, ground, pod.ends)):
            return
        if pod.order is not None:
            self._freezing().obey(uid, ground, pod.order)

    def _let_end(self, uid: str, group: Path, ends: datetime) -> bool:
        return self._freezing().let_end(uid, group, ends, self._clock())

    def _group_of(self, uid: str) -> Path | None:
        for parent in pod_parents(self._top):
            with contextlib.suppress(OSError):
                for folder in parent.iterdir():
                    if pod_uid_of(folder.name) == uid:
                        return folder
        return None

    def _enter(self, uid: str, group: Path) -> None:
        self._groups[uid] = group
        self._folders.add(group)
        self._look_again(uid)

    def _look_again(self, uid: str) -> None:
        """Containers that are there and not known; those that are known and gone, or have other
        mounts to be watched than before.
        """
        for container in [w.container for w in self._of(uid)]:
            if self._has_moved(container) or not self._lives(container):
                self._close(container.container_id)
        for container_id, folder in containers_in(self._groups[uid]).items():
            self._look_for(uid, container_id, folder)

    def _look_for(self, uid: str, container_id: str, folder: Path) -> None:
        if container_id in self._watched or container_id in self._looking:
            return
        task = asyncio.ensure_future(self._look(uid, container_id, folder))
        self._looking[container_id] = task
        task.add_done_callback(lambda _: self._looked(uid, container_id))

    def _looked(self, uid: str, container_id: str) -> None:
        self._looking.pop(container_id, None)
        watched = self._watched.get(container_id)
        if watched is not None and self._has_moved(watched.container) and uid in self._groups:
            self._look_again(uid)  # the gate ended meanwhile

    def _has_moved(self, container: WatchedContainer) -> bool:
        pod = self._pod(container.pod_uid)
        known = pod.containers.get(container.container) if pod is not None else None
        return known is not None and known.mounts != container.mounts

    async def _look(self, uid: str, container_id: str, folder: Path) -> None:
        strangers = self._strangers.setdefault(uid, set())
        # Once more for who was none of the template's: the pod's status may tell by now.
        patience = 0.0 if container_id in strangers else _LOOK_SECONDS
        began, pause = time.monotonic(), _FIRST_LOOK
        while True:
            pod = self._pod(uid)
            pids = processes_in(folder)
            if pod is None or (not pids and container_id not in containers_in(folder.parent)):
                return
            found = recognise(pod, container_id, pids, self._senses.process, self._proc)
            if found is not None:
                await self._open(found)
                return
            if time.monotonic() - began >= patience:
                strangers.add(container_id)
                return
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_LOOK)

    async def _open(self, container: WatchedContainer) -> None:
        loop = asyncio.get_running_loop()
        eyes: Eyes | None = None
        self._opening[container.container_id] = container, time.monotonic()
        try:
            eyes = await loop.run_in_executor(self._walker, self._senses.eyes, container)
            seen = await loop.run_in_executor(self._walker, lambda e: list(e.open()), eyes)
            if not self._runs(container):
                # What was mounted there went while it was marked: that says nothing of the watch.
                seen = [o for o in seen if o.finding is not FindingId.WATCH_BLIND]
        except OSError as error:
            if eyes is not None:
                eyes.close()
            if not self._runs(container):
                return
            eyes = None
            seen = [_blind("marks", f"no mark could be set: {error}")]
        finally:
            del self._opening[container.container_id]
        self._watched[container.container_id] = _Watched(container, eyes)
        _CONTAINERS.set(len(self._watched))
        age = time.time() - container.started.timestamp()
        _TO_MARKS.observe(max(age, 0.0))
        _log.info(
            "watching %s/%s %s (process %d), %.0f ms after its start",
            *(container.namespace, container.pod, container.container, container.pid, age * 1000),
        )
        self._take(container, seen)
        if self._follower is not None and not container.added:
            self._follower.opened(container)
        if eyes is not None:
            for number in eyes.filenos():
                loop.add_reader(number, self._read, container.container_id)

    def _read(self, container_id: str) -> None:
        watched = self._watched.get(container_id)
        if watched is None or watched.eyes is None:
            return
        try:
            self._take(watched.container, watched.eyes.read())
        except OSError as error:
            _log.warning("reading events of %s: %s", watched.container.pod, error)
            if not self._lives(watched.container):
                self._close(container_id)

    def _take(self, container: WatchedContainer, seen: Iterable[Observation]) -> None:
        if self._pod(container.pod_uid) is None and container.container_id not in self._watched:
            return  # it ended while a sweep looked at it
        for observation in seen:
            if is_told(container, observation):
                self._report().see(container.pod_uid, container.container, observation)

    def _lives(self, container: WatchedContainer) -> bool:
        process = self._senses.process(container.pid)
        return process is not None and process.container_id == container.container_id

    def _runs(self, container: WatchedContainer) -> bool:
        return self._lives(container) and self._senses.runs(container.pid)

    def _of(self, uid: str) -> list[_Watched]:
        return [w for w in self._watched.values() if w.container.pod_uid == uid]

    def _close(self, container_id: str) -> None:
        watched = self._watched.pop(container_id, None)
        if watched is None:
            return
        _CONTAINERS.set(len(self._watched))
        if watched.eyes is not None:
            # What happened up to its end is still in the queue.
            with contextlib.suppress(OSError):
                for _ in range(_READS):
                    seen = list(watched.eyes.read())
                    self._take(watched.container, seen)
                    if not seen:
                        break
                self._take(watched.container, watched.eyes.read(final=True))
            for number in watched.eyes.filenos():
                asyncio.get_running_loop().remove_reader(number)
            watched.eyes.close()
        if self._follower is not None and not watched.container.added:
            self._follower.closed(watched.container)
        _log.info("no longer watching %s/%s", watched.container.namespace, watched.container.pod)

    def _forget(self, uid: str) -> None:
        self._freezing().forget(uid, self._groups.get(uid))
        for watched in self._of(uid):
            self._close(watched.container.container_id)
        self._groups.pop(uid, None)
        self._strangers.pop(uid, None)
        self._report().end(uid)

    # The loops ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Watches until cancelled."""
        loop = asyncio.get_running_loop()
        for parent in pod_parents(self._top):
            self._folders.add(parent)
        loop.add_reader(self._folders.fileno(), self._new_folders)
        try:
            while True:
                await asyncio.sleep(SWEEP_SECONDS)
                self._everything_again()
                await self._sweep()
        finally:
            loop.remove_reader(self._folders.fileno())

    def _new_folders(self) -> None:
        folders, lost = self._folders.read()
        if lost:
            self._everything_again()
        for folder in folders:
            container_id, uid = container_id_of(folder.name), pod_uid_of(folder.name)
            if uid is not None:
                if self._pod(uid) is not None and uid not in self._groups:
                    self._enter(uid, folder)
            elif container_id is not None:
                uid = pod_uid_of(folder.parent.name)
                if uid is not None and self._pod(uid) is not None:
                    self._look_for(uid, container_id, folder)
                    if self._freezing().holds(uid):
                        self.order(uid, frozen=True, why="one container more")
            else:
                self._folders.add(folder)  # a quality of service that had no group yet

    def _everything_again(self) -> None:
        if self._pods is not None:
            for uid in list(self._pods.pods):
                self.pod_changed(uid)
                if uid in self._groups:
                    self._tell_whether_whole(uid)
        for container, words in self._hanging():
            self._report().see(container.pod_uid, container.container, _blind("waiting", words))

    async def _sweep(self) -> None:
        loop = asyncio.get_running_loop()
        self._sweeping = time.monotonic()
        with _SWEEP.time():
            sweep = loop.run_in_executor(self._sweeper, self._sweep_all, loop, self.containers)
            while not (await asyncio.wait({sweep}, timeout=SWEEP_SECONDS))[0]:
                if time.monotonic() - self._sweeping > HANGS_SECONDS:
                    _log.warning("a sweep goes on and on, at %s", self._senses.sweeping)
                self._everything_again()
        self._sweeping = None
        sweep.result()

    def _hanging(self) -> Iterator[tuple[WatchedContainer, str]]:
        """What is waited for too long, such as a network file system that does not answer."""
        before = time.monotonic() - HANGS_SECONDS
        long = f"not done within {HANGS_SECONDS:.0f} s, perhaps for a file that does not answer"
        for container, since in self._opening.values():
            if since < before:
                yield container, f"files of container {container.container}: its marking is {long}"
        if self._sweeping is not None and self._sweeping < before:
            at = self._senses.sweeping
            words = f"what events miss, on all of the node: a sweep is {long}; it is at "
            for container in self.containers:
                # Who reads this report may not know of other namespaces' pods.
                known = "/" not in at or at.startswith(f"{container.namespace}/")
                yield container, words + (at if known else "a pod of another namespace")

    def _sweep_all(
        self, loop: asyncio.AbstractEventLoop, containers: Sequence[WatchedContainer]
    ) -> None:
        """In its thread; what is seen is told at once and not at the end."""
        try:
            for container, seen in self._senses.sweep(containers):
                if isinstance(seen, Profile):
                    if container.added:
                        continue  # what it has nobody sealed: there is nothing to compare
                    profile = report_of(container.container, container.started, seen)
                    report = self._report()
                    loop.call_soon_threadsafe(report.compare_by, container.pod_uid, profile)
                else:
                    loop.call_soon_threadsafe(self._take, container, (seen,))
        except OSError as error:  # processes and files come and go while they are looked at
            _log.info("sweep: %s", error)

    async def close(self) -> None:
        """Takes all marks away; what is in the queues is read first."""
        for task in list(self._looking.values()):
            task.cancel()
        for container_id in list(self._watched):
            self._close(container_id)
        self._folders.close()
        self._freezing().close()
        for threads in (self._walker, self._sweeper):
            threads.shutdown(wait=False, cancel_futures=True)

    # Freezing -------------------------------------------------------------------------------------

    def freeze(self, subject: Subject, finding: Finding) -> None:
        """Stops a pod for a finding that its policies answer so; its report says whether it did."""
        self.order(subject.uid, frozen=True, why=f"{finding.id} {finding.path or ''}".strip())

    def order(self, uid: str, *, frozen: bool, why: str) -> None:
        """Freezes or thaws a pod of this node; returns at once, the report's `Frozen` condition
        tells the outcome. A pod that is not here is passed over.
        """
        group = self._groups.get(uid)
        if group is not None and self._pod(uid) is not None:
            self._freezing().set(uid, group, frozen=frozen, why=why)

    def _tell_whether_whole(self, uid: str) -> None:
        eyes = [w.eyes for w in self._of(uid) if w.eyes is not None]
        late = [words for e in eyes for words in e.lacking]
        hanging = [words for container, words in self._hanging() if container.pod_uid == uid]
        lacking = "; ".join(dict.fromkeys([*self._senses.lacking, *late, *hanging]))
        if lacking:
            self._report().say(uid, "Watching", "False", "Blind", f"Not seen here: {lacking}")
        else:
            self._report().say(uid, "Watching", "True", "Watching", "Everything is seen.")

    def _pod(self, uid: str) -> SealedPod | None:
        return None if self._pods is None else self._pods.pods.get(uid)

    def _freezing(self) -> Freezing:
        if self._freezer is None:
            raise RuntimeError("connect() comes first")
        return self._freezer

    def _report(self) -> Reports:
        if self._reports is None:
            raise RuntimeError("connect() comes first")
        return self._reports


def subject_of(pod: SealedPod) -> Subject:
    """What a pod's report is about."""
    return Subject(pod.namespace, pod.name, pod.uid, pod.seal)


def _blind(subject: str, words: str) -> Observation:
    return Observation(FindingId.WATCH_BLIND, words, subject=subject)
