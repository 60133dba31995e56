"""Reconciles what was found on one run: believed, added up, told, answered.

Keys are seals. Level-triggered: each call looks at all reports on the run, the seal's status and
the releases, and writes into the seal's status what follows; so a restart in the middle of
anything repeats nothing. The TrainingJob's own status is written by ``runs``, from the seal's.

1. *Believe* (``belief``). A report from elsewhere is dropped, and that is a finding of our own.
2. *Add up* (``sightings``): counts and times, the condition ``Drifted``.
3. *Answer* (``holds``): hold the run, let a person lift the hold. Who keeps the engine suspended
   by it, or the run off the network, is ``execution``.
4. *Tell*, each finding once: an event on the job and, by policy, an alert.
5. *Checkpoints* (``taints``, ``checkpoints``): sign their manifests, taint what came after.
6. *Attest* (``attesting``): once the run has ended, make the statement on it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from trainseal.api.driftreport import DriftReport, Finding, PodIdentity
from trainseal.api.findings import FindingId
from trainseal.api.holdrelease import HoldRelease
from trainseal.api.model import API_VERSION, InvalidObjectError, JsonObject, json_object
from trainseal.api.sealedrun import (
    MAX_MARKS,
    BrokenGlass,
    HeldTime,
    Hold,
    Lifted,
    SealedRun,
    SealedRunStatus,
)
from trainseal.cluster.api import KubeError, NotFoundError, path_of
from trainseal.controller import brokenglass, conditions, holds, resuming, taints
from trainseal.controller.alerts import Alerts, alert
from trainseal.controller.attesting import Attesting
from trainseal.controller.belief import PodFact, judge
from trainseal.controller.byseal import BySeal
from trainseal.controller.checkpoints import Checkpoints, RunFacts
from trainseal.controller.findingmetrics import METRICS
from trainseal.controller.heldtime import with_period
from trainseal.controller.ownreport import OwnReports, Seen
from trainseal.controller.sealedpods import SealedPods
from trainseal.controller.sightings import Sighting, in_short, reason_of, summary, worst
from trainseal.controller.signedlists import SignedLists
from trainseal.controller.world import World
from trainseal.engines.podtemplate import LABEL_SEAL
from trainseal.provenance.drift import FREEZING, CompiledDrift, response_to
from trainseal.provenance.freezeorders import Order, sign_order
from trainseal.provenance.keyrings import UntrustedError, rfc3339
from trainseal.provenance.seals import verify_binding

_log = logging.getLogger(__name__)
SEALS = "sealedruns"
Key = tuple[str, str]
#: Phases after which a run cannot be held.
_OVER = frozenset({"Succeeded", "Failed", "Deleted"})
#: Seconds until findings that were not told yet are looked at again.
_UNTOLD_AGAIN = 30.0


@dataclass(frozen=True, slots=True)
class Sources:
    """What is watched. ``alerts`` is None where nobody is to be told; ``accepted`` is told of a
    namespace in which checkpoints were signed off.
    """

    reports: BySeal
    releases: BySeal
    checkpoints: BySeal
    pods: SealedPods
    own: OwnReports
    alerts: Alerts | None
    delivered: set[str]
    accepted: Callable[[str], None]


@dataclass(slots=True)
class _Run:
    """One run while it is looked at. ``known``: UIDs of the reports believed so far."""

    key: Key
    seal: JsonObject
    sealed: SealedRun
    status: SealedRunStatus
    now: datetime
    policies: tuple[CompiledDrift, ...]
    bound: list[str] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    broken: list[BrokenGlass] = field(default_factory=list)
    held_time: list[HeldTime] = field(default_factory=list)
    change: JsonObject = field(default_factory=dict)
    again: float | None = None

    def end_of(self, hold: Hold) -> None:
        """The run is held in this way no more: its time goes on record with that."""
        self.held_time = with_period(self.held_time, hold, self.now)
        self.change["heldTime"] = [item.wire() for item in self.held_time]

    def wants_again(self, seconds: float) -> None:
        self.again = seconds if self.again is None else min(self.again, seconds)


class Drift:
    """Reconciles the findings on runs."""

    def __init__(self, world: World, sources: Sources) -> None:
        self._world = world
        self._sources = sources
        self._checkpoints = Checkpoints(world)
        self._lists = SignedLists(world)
        self._attesting = Attesting(world)

    async def reconcile(self, key: Key) -> float | None:
        """One run; returns seconds until it wants to be looked at again. Raises KubeError."""
        path = path_of(API_VERSION, SEALS, *key)
        reports = self._sources.reports.of(key)
        try:
            seal = await self._world.kube.get(path)
        except NotFoundError:
            METRICS.forget(key)
            self._lists.forget(key)
            self._world.volumes.judged(key)
            if reports:
                _log.warning("%d DriftReports on %s/%s, which is no seal", len(reports), *key)
            return None
        sealed = SealedRun.parse(seal)
        run = _Run(
            key=key,
            seal=seal,
            sealed=sealed,
            status=sealed.status or SealedRunStatus(),
            now=self._world.clock().replace(microsecond=0),
            policies=tuple(p.drift for p in self._world.policies(key[0])),
        )
        run.held_time = list(run.status.held_time or ())
        if not await self._believe(run, reports):
            self._world.volumes.judged(key)  # what its checkpoints' own status says stands
            return None
        METRICS.count(key, run.sightings)
        self._add_up(run)
        await self._answer(run)
        await self._write(run)  # else whoever causes thousands of findings puts it off
        await self._tell(run)
        await self._write(run)
        told = SealedRunStatus.model_validate({"told": run.change.get("told")}).told or ()
        self._sources.delivered.difference_update(alert_id(key, mark) for mark in told)
        await self._sign(run)
        if (again := await self._attest(run, reports)) is not None:
            run.wants_again(again)
        return run.again

    async def _write(self, run: _Run) -> None:
        present = json_object(run.seal.get("status"))
        if change := {k: v for k, v in run.change.items() if present.get(k) != v}:
            path = path_of(API_VERSION, SEALS, *run.key, "status")
            run.seal = await self._world.kube.patch(path, {"status": change})

    # 1 ------------------------------------------------------------------------------------------

    async def _believe(self, run: _Run, reports: Sequence[JsonObject]) -> bool:
        """Fills in the sightings; False where the seal itself is not ours."""
        namespace, name = run.key
        binding = json_object(run.seal.get("status")).get("binding")
        if isinstance(binding, dict):
            try:
                run.bound = [
                    o.uid
                    for o in verify_binding(
                        self._world.seal_keyring(),
                        cluster=self._world.cluster,
                        namespace=namespace,
                        name=name,
                        spec=json_object(run.seal.get("spec")),
                        binding=binding,
                    )
                ]
            except UntrustedError as error:
                _log.warning("findings on a seal that is not ours: %s", error)
                return False
        run.known = list(run.status.reports or ())
        astray = []
        for report in _parsed(reports):
            if not report.status or not report.status.findings:
                continue
            pod = await self._pod(namespace, report.spec.pod) if report.spec.pod else None
            judgement = judge(report, name, run.bound, pod, run.known)
            if judgement.standing == "Dropped":
                astray.append(_astray(report, judgement.why))
                continue
            proved = judgement.standing == "Believed"
            uid = report.metadata.uid
            if proved and report.spec.pod and uid not in run.known and len(run.known) < MAX_MARKS:
                run.known.append(uid)
            run.sightings += [
                Sighting(report.metadata.name, _pod_of(report, f), f, proved)
                for f in report.status.findings
            ]
        try:
            await self._sources.own.record(namespace, name, astray)
        except (KubeError, InvalidObjectError) as error:  # it keeps no hold from the run
            _log.warning("report on %s/%s: %s", namespace, name, error)
            run.wants_again(_UNTOLD_AGAIN)
        if run.known:
            run.change["reports"] = [*run.known]
        return True

    async def _pod(self, namespace: str, pod: PodIdentity) -> PodFact | None:
        found = self._sources.pods.find(pod.uid)
        if found is not None and found.node:
            return found
        # The report may have been faster than our watch of pods.
        path = path_of("v1", "pods", namespace, pod.name)
        try:
            fact = PodFact.of(await self._world.kube.get(path), LABEL_SEAL)
        except NotFoundError:
            return found
        return fact if fact.uid == pod.uid else found

    # 2 ------------------------------------------------------------------------------------------

    def _add_up(self, run: _Run) -> None:
        waiting = run.status.broken_glass or ()
        releases = tuple(self._releases(run.key))
        run.broken = brokenglass.unreviewed(waiting, run.sightings, releases)
        run.change["brokenGlass"] = [b.wire() for b in run.broken] or None
        taint = taints.run_taint(run.status.taint, run.sightings, run.now, _began(run))
        if taint is not None:
            run.change["taint"] = taint.wire()
        total = summary(run.sightings, run.status.drift)
        if total is None:
            return
        run.change["drift"] = total.wire()
        if run.sightings:
            first = worst(run.sightings)
            wanted = conditions.Wanted(
                "Drifted",
                "True",
                reason_of(first.finding.id),
                f"{in_short(total)}; {first.words()}",
            )
            run.change["conditions"] = conditions.merge(
                json_object(run.seal.get("status")).get("conditions"), [wanted], 1, run.now
            )

    # 3 ------------------------------------------------------------------------------------------

    async def _answer(self, run: _Run) -> None:
        METRICS.held(run.key, None)
        if run.status.phase in _OVER:
            return
        handled = list(run.status.handled or ())
        hold = holds.next_hold(run.status.hold, run.sightings, handled, run.policies, run.now)
        if hold is None:
            return
        self._count(run, hold)
        lift = holds.lift_of(hold, run.key[1], self._releases(run.key), run.sightings)
        waiting = lift.refusal if lift else None
        if lift and not lift.refusal:
            if hold.response not in FREEZING:
                # What froze goes on as it was; what was suspended starts anew, so it is verified.
                obstacle = await resuming.obstacle(self._world, run.sealed, run.key[0])
                waiting = obstacle.words if obstacle else None
            if not waiting:
                self._lift(run, hold, lift.release, handled)
                return
            run.wants_again(resuming.AGAIN)
        hold = hold.model_copy(update={"waiting": waiting[:1024] if waiting else None})
        run.change["hold"] = hold.wire()
        METRICS.held(run.key, hold.response)
        if hold.response == "Freeze":
            until = holds.frozen_until(hold.since, run.policies)
            self._order(run, Order("Frozen", hold.since, until))
            run.wants_again(max(0.1, (until - run.now).total_seconds()))
        elif hold.response == "Quarantine":
            self._order(run, Order("Frozen", hold.since))

    def _count(self, run: _Run, hold: Hold) -> None:
        """The time by another response is over."""
        before = run.status.hold
        if before is not None and before.response != hold.response:
            run.end_of(before)

    def _releases(self, key: Key) -> Iterator[HoldRelease]:
        for obj in self._sources.releases.of(key):
            try:
                yield HoldRelease.parse(obj)
            except InvalidObjectError as error:
                _log.warning("%s/%s: %s", *key, error)

    def _lift(self, run: _Run, hold: Hold, release: HoldRelease, handled: list[str]) -> None:
        run.change["hold"] = None
        run.end_of(hold)
        # Those that do not fit would hold the run again: a person lifts that, too.
        kept = dict.fromkeys([*handled, *hold.findings])
        run.change["handled"] = [*list(kept)[-MAX_MARKS:]]
        run.change["lifted"] = Lifted(
            hold=hold.id,
            release=release.metadata.name,
            user=release.spec.user,
            reason=release.spec.reason,
            time=run.now,
        ).wire()
        if run.status.freeze is not None:
            self._order(run, Order("Thawed", run.now))

    def _order(self, run: _Run, order: Order) -> None:
        before = run.status.freeze
        if before and Order(before.state, before.since, before.until) == order:
            return
        namespace, name = run.key
        change: JsonObject = {
            "state": order.state,
            "since": rfc3339(order.since),
            "until": rfc3339(order.until) if order.until else None,
            "order": sign_order(
                self._world.seal_key,
                order,
                cluster=self._world.cluster,
                namespace=namespace,
                name=name,
                spec=json_object(run.seal.get("spec")),
            ),
        }
        run.change["freeze"] = change

    # 4 ------------------------------------------------------------------------------------------

    async def _tell(self, run: _Run) -> None:
        job = run.sealed.spec.job
        told = list(run.status.told or ())
        before = set(told)
        who: JsonObject = {"metadata": {"namespace": run.key[0], "name": job.name, "uid": job.uid}}
        for sighting in run.sightings:
            mark, finding = sighting.mark, sighting.finding
            if mark in before or len(told) >= MAX_MARKS:
                continue
            await self._world.event(
                who,
                warning=finding.severity != "Info",
                reason=reason_of(finding.id),
                message=f"{sighting.words()} ({sighting.report}, {finding.key})",
            )
            wanted = response_to(finding.severity, run.policies) != "Record"
            if wanted and not self._alerted(run, sighting):
                run.wants_again(_UNTOLD_AGAIN)
                continue
            told.append(mark)
        if told:
            run.change["told"] = [*told]

    def _alerted(self, run: _Run, sighting: Sighting) -> bool:
        """Whether nobody is left to be told; else it is on its way."""
        alerts, delivered = self._sources.alerts, self._sources.delivered
        if alerts is None:
            return True
        id_ = alert_id(run.key, sighting.mark)
        if id_ in delivered:
            # Forgotten only once the status says so.
            return True
        alerts.offer(
            alert(
                id_,
                namespace=run.key[0],
                job=run.sealed.spec.job.name,
                pod=sighting.pod,
                finding=sighting.finding,
                now=run.now,
            )
        )
        return False

    # 5 ------------------------------------------------------------------------------------------

    async def _sign(self, run: _Run) -> None:
        objects = self._sources.checkpoints.of(run.key)
        if not objects:
            return
        lasting = SealedRunStatus.model_validate({"taint": run.change.get("taint")}).taint
        taint = brokenglass.with_glass(lasting, run.broken)
        releases = tuple(self._releases(run.key))
        facts = RunFacts(run.key, run.seal, run.sealed, run.bound, taint, releases, self._pod)
        outcome = await self._checkpoints.reconcile(facts, objects)
        if run.status.phase not in _OVER:
            again = await self._lists.keep(run.key, run.sealed, objects)
            if again is not None:
                run.wants_again(again)
        await self._sources.own.record(*run.key, outcome.astray)
        if outcome.accepted:
            self._sources.accepted(run.key[0])

    # 6 ------------------------------------------------------------------------------------------

    async def _attest(self, run: _Run, reports: Sequence[JsonObject]) -> float | None:
        shapes = self._sources.checkpoints.of(run.key)
        return await self._attesting.reconcile(run.key, run.seal, run.sightings, reports, shapes)


def alert_id(key: Key, mark: str) -> str:
    """An alert's id, which says whose seal it is about."""
    return "/".join([*key, mark])


def seal_of_alert(id_: str) -> Key:
    """The seal of an alert's id."""
    namespace, name, _ = id_.split("/")
    return namespace, name


def _began(run: _Run) -> datetime:
    """No worker of the run is older than its seal."""
    return run.sealed.metadata.creation_timestamp or datetime.min.replace(tzinfo=UTC)


def _parsed(reports: Sequence[JsonObject]) -> Iterator[DriftReport]:
    for obj in reports:
        try:
            yield DriftReport.parse(obj)
        except InvalidObjectError as error:
            _log.warning("DriftReport %s: %s", _name(obj), error)


def _pod_of(report: DriftReport, finding: Finding) -> str:
    """Name of the pod; the controller's own reports are on runs, and say it in the evidence."""
    if report.spec.pod is not None:
        return report.spec.pod.name
    return (finding.evidence or {}).get("pod", "")


def _name(obj: Mapping[str, object]) -> str:
    metadata = obj.get("metadata")
    found = metadata if isinstance(metadata, dict) else {}
    return f"{found.get('namespace')}/{found.get('name')}"


def _astray(report: DriftReport, why: str) -> Seen:
    spec = report.spec
    return Seen(
        id=FindingId.WATCH_MISREPORTED,
        subject=report.metadata.uid,
        message=f"DriftReport {report.metadata.name} was dropped: {why}",
        occasion=why,
        evidence={
            "report": report.metadata.name,
            "node": spec.node or "",
            "pod": spec.pod.name if spec.pod else "",
        },
    )
