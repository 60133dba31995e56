"""Compares what the API shows of runs with their seals, by watch and by a full pass each minute.

Keys are seals. Level-triggered: each call looks at the live objects and writes what it finds into
the controller's own DriftReport, where what is known already is not written again; so a restart
repeats nothing, and finds what happened meanwhile as far as live objects and access records show
it. What becomes of a finding is ``drift``'s.

What is not promised: a pod that was deleted past the webhook, replaced and gone while no controller
ran is not found, nor is why it went; who asked the API server for it is in the audit log.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import reduce

from trainseal.api import accessrecord, breakglass
from trainseal.api.breakglass import BreakGlass
from trainseal.api.findings import FindingId
from trainseal.api.model import API_VERSION, InvalidObjectError, JsonObject, json_object
from trainseal.api.sealedrun import SealedRun
from trainseal.cluster.api import WATCH_SECONDS, KubeError, path_of
from trainseal.cluster.informer import Event, Informer
from trainseal.controller import brokenglass, disturbances, podfindings
from trainseal.controller.byseal import BySeal
from trainseal.controller.disturbances import Record, RunState, timestamp
from trainseal.controller.objects import found
from trainseal.controller.openings import Network, Openings
from trainseal.controller.ownreport import OwnReports, Seen
from trainseal.controller.podbook import PodBook, Tracked
from trainseal.controller.podfindings import Sealed
from trainseal.controller.rankwatch import RankWatch
from trainseal.controller.records import records
from trainseal.controller.resizes import Resizes
from trainseal.controller.runreferences import findings_beside, reference_findings
from trainseal.controller.runstate import LiveRun, read_run, state_of
from trainseal.controller.runversions import FRESH_SECONDS, RunVersions, Standing, parts_of
from trainseal.controller.unexplainedkills import METRIC, UnexplainedKill, in_words, on_record
from trainseal.controller.workqueue import WorkQueue
from trainseal.controller.world import World
from trainseal.engines.catalogue import expected_pod
from trainseal.engines.podtemplate import LABEL_JOB
from trainseal.provenance.additions import Additions
from trainseal.provenance.boundseals import BoundRole, bound_roles, has_ended
from trainseal.provenance.canonical import CanonicalError
from trainseal.provenance.keyrings import UntrustedError
from trainseal.provenance.livepods import known_images

_log = logging.getLogger(__name__)
SEALS = "sealedruns"
Key = tuple[str, str]
#: Between two full passes over a run; and between its binding, or our start, and the first.
FULL_PASS_SECONDS = 60.0
#: Runs that are due are looked for so often.
_DUE_SECONDS = 5.0
#: Changes within this time are looked at together.
_GATHER_SECONDS = 1.0
#: An end is judged once its causes have had this long to show; so is a second pod of an index.
_SETTLE_SECONDS = 5.0
#: While somebody may get in by a BreakGlass it is looked at so often whether they did.
_GLASS_SECONDS = 10.0
#: Clocks differ, and a record may be on its way.
_GLASS_LATE = timedelta(minutes=5)
#: A watch of pods that hangs is behind by so much at most: it ends, and all is listed anew.
_WATCH_LATE = timedelta(seconds=WATCH_SECONDS + 60)
#: What the API shows of these does not tell since when it can have been so.
_SINCE_WHENEVER = frozenset({FindingId.RANK_DIFFERS, FindingId.SEAL_BROKEN})
_ENDING = frozenset({"Delete", "Evict"})
#: What may have come of a deletion that is on record.
_GONE = frozenset({FindingId.OBJECT_DELETED, FindingId.VOLUME_REPLACED})
#: Pods compared before others have their turn.
_AT_ONCE = 100


@dataclass(frozen=True, slots=True)
class _Right:
    """A run that was found in order: under which policies, of which versions of its objects, and
    when its first worker had started.
    """

    token: str
    versions: bytes
    first_worker: datetime | None


class Comparing:
    """``book`` is to be fed with the pods of sealed runs; ``reports`` holds all DriftReports."""

    def __init__(
        self,
        world: World,
        versions: RunVersions | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._world = world
        self._versions = versions or RunVersions(world.kube, monotonic)
        self._monotonic = monotonic
        self.book = PodBook(self.changed, monotonic)
        self._queue = WorkQueue(self.reconcile, workers=4)
        self._jobs: dict[Key, set[Key]] = defaultdict(set)
        self._seals = Informer(
            world.kube, path_of(API_VERSION, SEALS), listener=self._on_seal, shape=_shape
        )
        self._openings = Openings(world.kube, self._on_network)
        self._glasses = BySeal(self._on_glass)
        self._glass_informer = Informer(
            world.kube,
            path_of(API_VERSION, breakglass.PLURAL),
            listener=self._glasses.listen,
        )
        #: Runs whose BreakGlasses are over, and whose uses were all read since.
        self._glass_over: set[Key] = set()
        self._full: set[Key] = set()
        #: Runs of whose objects something was heard since they were looked at: all is read.
        self._heard: set[Key] = set()
        self._judged: dict[str, tuple[str, list[Seen]]] = {}
        self._ranks: dict[Key, frozenset[str]] = {}
        self._resizes = Resizes(world.kube)
        #: When what is of no run any more was forgotten.
        self._forgotten = monotonic()
        #: When the next full pass over a run is due.
        self._due: dict[Key, float] = {}
        #: When the last full pass over a run began.
        self._passed: dict[Key, datetime] = {}
        #: What the last full pass over a run found in order.
        self._right: dict[Key, _Right] = {}
        self._profiles = RankWatch(world.clock, monotonic)
        self._own: OwnReports | None = None
        self._reports: BySeal | None = None

    def changed(self, seal: Key) -> None:
        """Something about the pods of this seal changed."""
        self._queue.add_after(seal, _GATHER_SECONDS)

    def job_changed(self, namespace: str, job: str) -> None:
        """A TrainingJob, or an object of its run, changed."""
        for seal in self._jobs.get((namespace, job), ()):
            self._heard.add(seal)
            self._full.add(seal)
            self.changed(seal)

    def may_be_open(self, job: Key) -> bool:
        """Whether there may be a seal of a TrainingJob of this name whose run has not ended."""
        return not self._seals.synced.is_set() or bool(self._jobs.get(job))

    def _on_seal(self, event: Event, key: Key, obj: JsonObject) -> None:
        job = str(json_object(json_object(obj.get("spec")).get("job")).get("name"))
        ended = event == "DELETED" or has_ended(obj)
        if ended:
            self._jobs[key[0], job].discard(key)
            if not self._jobs[key[0], job]:
                del self._jobs[key[0], job]
        else:
            self._jobs[key[0], job].add(key)
        if ended and event != "ADDED":
            self._heard.add(key)
            self._full.add(key)
            self.changed(key)
        elif not ended and (_is_bound(obj) or self.book.of(key)):
            # What it leans on was compared before it was bound. What becomes of that is heard of,
            # or found by the next full pass.
            self.changed(key)

    def _on_network(self, namespace: str, network: Network) -> None:
        """Of the runs there those whose pods it chooses: others make many, and each run has one."""
        if network.name == network.seal:
            return
        for key in [(namespace, network.seal)] if network.seal else self.book.seals():
            if key[0] == namespace and any(network.chooses(t.pod) for t in self.book.of(key)):
                self.changed(key)

    def _on_glass(self, seal: Key) -> None:
        self._glass_over.discard(seal)
        self.changed(seal)

    async def run(self, own: OwnReports, reports: BySeal, listed: asyncio.Event) -> None:
        """Compares for ever; begins once pods and reports were ``listed``."""
        self._own, self._reports = own, reports
        METRIC.reports = _All(reports)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._seals.run())
            group.create_task(self._glass_informer.run())
            group.create_task(self._openings.informer.run())
            await self._seals.synced.wait()
            await self._glass_informer.synced.wait()
            await self._openings.informer.synced.wait()
            await listed.wait()
            group.create_task(self._queue.run())
            begin = self._monotonic()
            while True:
                self._pass_what_is_due(begin)
                await asyncio.sleep(_DUE_SECONDS)
                begin = self._monotonic() + FULL_PASS_SECONDS

    def _pass_what_is_due(self, begin: float) -> None:
        """``begin``: when the first pass over a run is due that was not known before."""
        now = self._monotonic()
        # Seals of runs that have ended stay, and are more than all others.
        live = set().union(*self._jobs.values())
        live |= {key for key in self.book.seals() if self._seals.get(*key) is None}
        self._due = {key: self._due.get(key, begin) for key in live}
        for key, due in self._due.items():
            if due <= now:
                self._due[key] = now + FULL_PASS_SECONDS
                self._full.add(key)
                self.changed(key)
        if self._forgotten + FULL_PASS_SECONDS <= now:
            self._forgotten = now
            self._forget()

    def _forget(self) -> None:
        uids = {disturbances.uid_of(t.pod) for k in self.book.seals() for t in self.book.of(k)}
        self._judged = {uid: judged for uid, judged in self._judged.items() if uid in uids}
        self._resizes.keep(uids)
        seals = set(self.book.seals())
        self._ranks = {key: ranks for key, ranks in self._ranks.items() if key in seals}
        self._profiles.keep(seals)
        seals |= self._seals.objects.keys()
        self._passed = {key: at for key, at in self._passed.items() if key in seals}
        self._right = {key: right for key, right in self._right.items() if key in seals}

    async def reconcile(self, key: Key) -> float | None:
        """One run; returns seconds until it wants to be looked at again. Raises KubeError."""
        full, heard = key in self._full, key in self._heard
        self._full.discard(key)
        self._heard.discard(key)
        try:
            return await self._compare(key, full=full, heard=heard)
        except KubeError:
            if full:
                self._full.add(key)
            if heard:
                self._heard.add(key)
            raise

    async def _compare(self, key: Key, *, full: bool, heard: bool) -> float | None:
        pods = self.book.of(key)
        seal = await found(self._world.kube, path_of(API_VERSION, SEALS, *key))
        if seal is None:
            await self._without_seal(key, pods)
            return None
        try:
            sealed = SealedRun.parse(seal)
            roles = bound_roles(
                self._world.seal_keyring(),
                cluster=self._world.cluster,
                namespace=key[0],
                name=key[1],
                seal=seal,
            )
        except (UntrustedError, CanonicalError, InvalidObjectError) as error:
            if not has_ended(seal):
                await self._broken(key, seal, str(error))
            return None
        standing = [t for t in pods if t.gone is None]
        if not roles:
            if standing and not has_ended(seal):
                await self._broken(key, seal, "it has pods, and its binding was taken away")
            return None
        now, began = self._monotonic(), self._world.clock()
        ends = [t for t in pods if t.disturbed is not None]
        seen: list[Seen] = []
        again: float | None = None
        if not has_ended(seal):
            seen += await self._pods(key, sealed, roles, standing, full=full)
            if _has_new_peer(standing, now):
                again = _SETTLE_SECONDS
        unsettled = [
            t.disturbed + _SETTLE_SECONDS - now
            for t in ends
            if t.disturbed is not None and now - t.disturbed < _SETTLE_SECONDS
        ]
        if unsettled:
            again = max(unsettled) + 0.1
        # One after the other: what cannot be read of one part must not hide another.
        await self._record(key, seen, late=_WATCH_LATE)
        if not has_ended(seal):
            await self._record(key, await self._opened(key, seal, standing), late=_WATCH_LATE)
        if await self._broken_glass(key):
            again = min(again or _GLASS_SECONDS, _GLASS_SECONDS)
        if full or ends:
            unread = LiveRun(key, seal, sealed, roles, None, {})
            await self._around(unread, pods, now, began if full else None, heard=heard)
        return again

    async def _around(
        self,
        unread: LiveRun,
        pods: Sequence[Tracked],
        now: float,
        began: datetime | None,
        *,
        heard: bool,
    ) -> None:
        """How pods ended, and what the run leans on; ``began``: when the full pass did, if it is
        one. ``unread`` has none of the live objects.
        """
        key, sealed = unread.key, unread.sealed
        if began is None:
            run = await read_run(self._world.kube, key, unread.seal, sealed, unread.roles)
            await self._record(key, await self._ends(run, pods, now))
            return
        additions, token = self._additions(key[0], sealed)
        # Listed before all is read.
        standing = await self._standing(sealed)
        right = self._right.pop(key, None)
        if (
            right is not None
            and standing is not None
            and (right.token, right.versions) == (token, standing.versions)
            and not heard
            and all(t.disturbed is None for t in pods)
            and not await findings_beside(self._world, sealed, right.first_worker)
        ):
            await self._record(key, await self._ends(unread, pods, now))
            self._right[key] = right
            self._passed[key] = began - timedelta(seconds=FRESH_SECONDS)
            return
        run = await read_run(self._world.kube, key, unread.seal, sealed, unread.roles)
        await self._record(key, await self._ends(run, pods, now))
        wrong, whole = await reference_findings(self._world, run, additions)
        await self._record(key, await self._by_whom(key, wrong), late=timedelta())
        if whole:
            self._passed[key] = began
        if whole and not wrong and standing is not None:
            self._right[key] = _Right(token, standing.versions, _started(run.job))

    async def _standing(self, sealed: SealedRun) -> Standing | None:
        """What the run is made of; None unless all of it was listed."""
        standing = await self._versions.of(sealed.metadata.namespace, sealed.spec.job.name)
        return standing if standing and parts_of(sealed) <= standing.parts else None

    # Pods as they stand ---------------------------------------------------------------------------

    async def _pods(
        self,
        key: Key,
        run: SealedRun,
        roles: Sequence[BoundRole],
        standing: Sequence[Tracked],
        *,
        full: bool,
    ) -> list[Seen]:
        """What is wrong with them. Thousands of pods take seconds: others have their turn."""
        sealed = Sealed(
            {r.object_uid: expected_pod(r) for r in roles},
            known_images(run.spec.wire()),
        )
        additions, token = self._additions(key[0], run)
        seen: list[Seen] = []
        for number, tracked in enumerate(standing):
            uid = disturbances.uid_of(tracked.pod)
            version = json_object(tracked.pod.get("metadata")).get("resourceVersion")
            before = self._judged.get(uid)
            if before is None or before[0] != f"{token} {version}":
                judged = await self._resizes.findings_on(key, tracked.pod, sealed, additions)
                before = self._judged[uid] = (f"{token} {version}", judged)
            seen += before[1]
            if number % _AT_ONCE == _AT_ONCE - 1:
                await asyncio.sleep(0)
        now = self._monotonic()
        at_work = [
            t.pod
            for t in standing
            if podfindings.is_at_work(t.pod) and now - t.appeared >= _SETTLE_SECONDS
        ]
        ranks = frozenset(disturbances.uid_of(pod) for pod in at_work)
        if full or self._ranks.get(key) != ranks:
            # What is compared of a pod with its peers does not change while it lives.
            self._ranks[key] = ranks
            seen += await asyncio.to_thread(
                lambda: list(podfindings.findings_among(at_work, sealed))
            )
        if full and self._reports is not None:
            reports = self._reports.of(key)
            seen += await asyncio.to_thread(self._profiles.look, key, at_work, reports, sealed)
        return seen

    async def _opened(
        self, key: Key, seal: JsonObject, standing: Sequence[Tracked]
    ) -> Sequence[Seen]:
        isolated = bool(json_object(seal.get("status")).get("isolatedSince"))
        return await self._openings.on(key, [t.pod for t in standing], isolated=isolated)

    def _additions(self, namespace: str, run: SealedRun) -> tuple[Additions | None, str]:
        """What the run's policies let a platform add; None where they are not as they were."""
        then = {p.name: p.digest for p in run.spec.policies}
        policies = [p for p in self._world.policies(namespace) if p.name in then]
        if {p.name: p.digest for p in policies} != then:
            return None, "changed"
        enforcing = [p for p in policies if p.mode == "Enforce"]
        allowed = [p.additions for p in enforcing or policies]
        return reduce(Additions.both, allowed) if allowed else Additions(), "as sealed"

    # Ends -----------------------------------------------------------------------------------------

    async def _ends(self, run: LiveRun, pods: Sequence[Tracked], now: float) -> list[Seen]:
        records = await self._records(run.key, _ENDING)
        states = {uid: state_of(run, uid) for uid in run.engines}
        standing = {disturbances.uid_of(t.pod): t.pod for t in pods if t.gone is None}
        seen = list(disturbances.people(state_of(run), records, standing))
        for tracked in pods:
            state = states.get(podfindings.owner_of(tracked.pod))
            if state is None or tracked.disturbed is None:
                continue
            if now - tracked.disturbed >= _SETTLE_SECONDS:
                opened: Sequence[Record] = ()
                if any(True for _ in disturbances.kills(tracked.pod)):
                    uid = disturbances.uid_of(tracked.pod)
                    opened = await self._records(run.key, disturbances.SESSIONS, uid)
                seen += self._end(run.key, tracked.pod, state, [*records, *opened])
        return seen

    def _end(
        self, key: Key, pod: JsonObject, state: RunState, records: Sequence[Record]
    ) -> Iterator[Seen]:
        for kill in disturbances.kills(pod):
            yield self._counted(key, disturbances.killed(pod, kill, records))
        at = disturbances.unexplained_deletion(pod, state, records)
        if at is not None:
            yield self._counted(key, disturbances.unrecorded(pod, at))

    def _counted(self, key: Key, seen: Seen) -> Seen:
        at = timestamp(seen.evidence["at"])
        if seen.user or at is None or self._reports is None:
            return seen
        kill = UnexplainedKill(key[0], (*key, seen.key), seen.evidence["node"], at)
        words = in_words(kill, on_record(_All(self._reports)))
        return dataclasses.replace(
            seen,
            message=f"{seen.message}; {words}",
            evidence={**seen.evidence, "within24Hours": words},
        )

    async def _records(self, key: Key, actions: Iterable[str], pod: str = "") -> list[Record]:
        """Records of these actions, on one pod if its UID is given."""
        selector = f"{accessrecord.LABEL_ACTION} in ({','.join(sorted(actions))})"
        if pod:
            selector += f",{accessrecord.LABEL_POD}={pod}"
        return await self._selected(key, selector)

    async def _selected(self, key: Key, selector: str) -> list[Record]:
        """Records on the run that a label selector chooses.

        People make as many sessions as they like: those are read only of a pod that was killed, or
        by a BreakGlass, and no more than so many. What else is read a flood of them neither slows
        nor hides.
        """
        of_the_run = f"{accessrecord.LABEL_SEAL}={key[1]},{selector}"
        return await records(self._world.kube, key[0], of_the_run)

    async def _by_whom(self, key: Key, wrong: Sequence[Seen]) -> Sequence[Seen]:
        """Findings on what was deleted, with who did it."""
        if not any(item.id in _GONE for item in wrong):
            return wrong
        records = await self._records(key, {"DeleteObject"})
        return [disturbances.by_whom(item, records) if item.id in _GONE else item for item in wrong]

    # Broken glass ---------------------------------------------------------------------------------

    async def _broken_glass(self, key: Key) -> bool:
        """Records who got in by a BreakGlass; whether somebody still may."""
        glasses = {}
        for obj in self._glasses.of(key):
            with contextlib.suppress(InvalidObjectError):  # the webhook takes none of these
                glass = BreakGlass.parse(obj)
                glasses[glass.metadata.name] = glass
        if not glasses or key in self._glass_over:
            return False
        valid = self._world.clock() - _GLASS_LATE
        over = all(glass.spec.not_after < valid for glass in glasses.values())
        records = await self._selected(key, accessrecord.LABEL_BREAK_GLASS)
        await self._record(key, list(brokenglass.uses(glasses, records)))
        if over:
            self._glass_over.add(key)
        return not over

    # The seal itself ------------------------------------------------------------------------------

    async def _without_seal(self, key: Key, pods: Sequence[Tracked]) -> None:
        """Its pods tell of a run whose TrainingJob goes on and still names the seal."""
        labels = [json_object(json_object(t.pod["metadata"]).get("labels")) for t in pods]
        for name in {str(of_pod.get(LABEL_JOB)) for of_pod in labels}:
            job = await found(self._world.kube, path_of(API_VERSION, "trainingjobs", key[0], name))
            if job is None or json_object(job.get("metadata")).get("deletionTimestamp"):
                continue
            if json_object(job.get("status")).get("sealedRun") == key[1]:
                await self._broken(key, {"spec": {"job": {"name": name}}}, "it was deleted")

    async def _broken(self, key: Key, seal: JsonObject, words: str) -> None:
        message = f"SealedRun {key[0]}/{key[1]}: {words}"
        await self._record(key, [Seen(FindingId.SEAL_BROKEN, key[1], message, words)])
        name = json_object(json_object(seal.get("spec")).get("job")).get("name")
        path = path_of(API_VERSION, "trainingjobs", key[0], str(name))
        job = await found(self._world.kube, path)
        if job is not None:
            # `drift` believes nothing about a seal that is not ours, and so tells nothing.
            await self._world.event(job, warning=True, reason="SealBroken", message=message)

    async def _record(
        self, key: Key, seen: Sequence[Seen], *, late: timedelta | None = None
    ) -> None:
        """``late``: by so much later than it was so the last full pass may have looked at it; None
        where it did not look.
        """
        passed = self._passed.get(key)
        if passed is not None and late is not None:
            seen = [
                item
                if item.id in _SINCE_WHENEVER
                else dataclasses.replace(item, not_before=passed - late)
                for item in seen
            ]
        if self._own is not None:
            await self._own.record(*key, seen)


class _All:
    """All DriftReports, as they are when they are asked for."""

    def __init__(self, reports: BySeal) -> None:
        self._reports = reports

    def __iter__(self) -> Iterator[JsonObject]:
        return (obj for seal in self._reports.seals() for obj in self._reports.of(seal))


def _has_new_peer(standing: Sequence[Tracked], now: float) -> bool:
    """Whether pods are to be compared with each other once the last one has settled."""
    return len(standing) > 1 and any(now - t.appeared < _SETTLE_SECONDS for t in standing)


def _started(job: JsonObject | None) -> datetime | None:
    return timestamp(json_object((job or {}).get("status")).get("startTime"))


def _shape(seal: JsonObject) -> JsonObject:
    metadata, job = json_object(seal.get("metadata")), json_object(seal.get("spec")).get("job")
    status = json_object(seal.get("status"))
    return {
        "metadata": {k: metadata.get(k) for k in ("name", "namespace", "resourceVersion")},
        "spec": {"job": {"name": json_object(job).get("name")}},
        "status": {"phase": status.get("phase"), "binding": bool(status.get("binding"))},
    }


def _is_bound(seal: JsonObject) -> bool:
    return bool(json_object(seal.get("status")).get("binding"))
