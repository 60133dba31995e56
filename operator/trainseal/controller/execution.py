"""From a seal to a run that ends: objects made, bound, let go, followed."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence

from pydantic import JsonValue

from trainseal.api.model import API_VERSION, InvalidObjectError, JsonObject, json_object
from trainseal.api.sealedrun import Hold, SealedRun
from trainseal.api.trainingjob import Phase, RoleStatus, TrainingJob
from trainseal.cluster.api import NotFoundError, path_of
from trainseal.controller import conditions, isolation, objects, resuming
from trainseal.controller.driftstatus import drift_status, held_words, hold_of
from trainseal.controller.endings import gate_message
from trainseal.controller.engineobjects import (
    EngineObjects,
    NotMadeYetError,
    ObjectChangedError,
    bound_uids,
)
from trainseal.controller.liveobjects import LiveObjects
from trainseal.controller.objects import ForeignObjectError
from trainseal.controller.progress import Progress
from trainseal.controller.scaling import Elastic, Scaled, Scaling
from trainseal.controller.sealing import rendered_again
from trainseal.controller.steering import Steering, queue_of
from trainseal.controller.world import World
from trainseal.provenance.drift import FREEZING
from trainseal.provenance.keyrings import UntrustedError, rfc3339
from trainseal.provenance.memberships import ranges_of
from trainseal.provenance.sealedjobs import is_of, kept_job, whole_job
from trainseal.provenance.seals import (
    SEAL_ANNOTATION,
    BoundUid,
    bind,
    membership_of,
    verify_binding,
    verify_seal,
)

JOBS, SEALS = "trainingjobs", "sealedruns"
#: Seconds until a run looks again at what somebody took from it or changed: we may not hear of it.
OBJECT_CHANGED_AGAIN = 15.0
_log = logging.getLogger(__name__)
Json = Mapping[str, JsonValue]


class LeavingError(Exception):
    """The TrainingJob was deleted while its run was looked at, and took its Jobs along."""


class Execution:
    """Follows sealed runs."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._kube = world.kube
        self._steering = Steering(world.kube, world.kept_by)
        self._objects = EngineObjects(world.kube, self._steering)
        self._scaling = Scaling(world)

    async def advance(self, obj: JsonObject, seal: JsonObject, *, around: bool) -> Progress:
        """Takes the next steps of a sealed job; ``around``: what it leans on is looked at as well.

        Raises LeavingError, KubeError.
        """
        sealed = SealedRun.parse(seal)
        try:
            bound = self._believe(obj, sealed, seal)
        except UntrustedError as error:
            return await self._untrusted(obj, sealed, str(error))
        job = whole_job(sealed, obj)
        # A hold is not the user's to lift: it stands in the seal, which only we write.
        hold = hold_of(seal)
        rendered = rendered_again(self._world, job, sealed)
        taken = ""
        try:
            rendered, differing = await isolation.bring_about(
                self._world, obj, sealed, hold, rendered
            )
            if around or bound is None:
                differing += await objects.ensure_surroundings(
                    self._kube, rendered, job.metadata.uid, new=bound is None
                )
        except ForeignObjectError as error:
            if bound is None:
                raise
            # Who takes a name of the run's must not hide how the run ends; nor does it go on
            # without its surroundings once it was suspended.
            taken, differing = str(error), [str(error)]
        # A quarantined run keeps its pods, also from its user; one that has none gets none.
        kept = hold is not None and hold.response == "Quarantine"
        suspend = not kept and (bool(job.spec.suspend) or _suspends(hold))
        # An elastic one is brought to its size first.
        starts = not (kept or suspend or queue_of(job) or ranges_of(sealed.spec))
        try:
            live = (
                await self._objects.make(job, sealed, rendered, starts=starts)
                if bound is None
                else await self._objects.live(sealed, bound)
            )
        except ObjectChangedError as error:
            return await self._lost(obj, job, sealed, str(error))
        except NotMadeYetError as error:
            return _not_made_yet(sealed, error)
        scaled = await self._scaled(obj, job, sealed, seal, bound, live, held=hold is not None)
        obstacle = None
        if bound is not None and not kept and not suspend:
            obstacle = await self._obstacle(sealed, live)
        suspend = suspend or obstacle is not None
        if suspend or kept:
            # In quarantine what has pods keeps them, and what is suspended stays so.
            await self._steering.hold(live, suspended_only=not suspend)
        steered = await (
            self._steering.place(job, live) if suspend or kept or taken
            else self._steering.let_go(job, live)
        )  # fmt: skip
        stopped = suspend or (kept and live.is_suspended())
        progress = await self._observe(
            job, sealed, live, suspend=stopped, hold=hold, members=scaled.members
        )
        if kept and job.spec.suspend and not stopped:
            progress.message += ". spec.suspend counts once the hold is lifted"
        scaled.over(steered, job.status.scheduling if job.status else None).tell(progress)
        differing += scaled.foreign
        drift = drift_status(seal)
        progress.fields.update(drift.fields)
        progress.conditions += drift.conditions
        for words in differing:
            await self._world.event(obj, warning=True, reason="ObjectChanged", message=words)
        if differing:
            progress.again = OBJECT_CHANGED_AGAIN
        progress.again = min(progress.again, scaled.again, key=_soon)
        if obstacle:
            _say_not_resumed(progress, obstacle)
        if taken and progress.phase == "Sealed":
            progress.message = taken
        progress.whole = not differing and not taken
        return progress

    def _believe(
        self, obj: JsonObject, sealed: SealedRun, seal: JsonObject
    ) -> tuple[BoundUid, ...] | None:
        """What the seal is bound to, None before that. Raises UntrustedError."""
        namespace, name = sealed.metadata.namespace, sealed.metadata.name
        spec = json_object(seal["spec"])
        if not is_of(sealed, obj):
            # Its name holds a part of each only.
            raise UntrustedError(f"SealedRun {namespace}/{name} is of another job")
        binding = conditions.status_of(seal).get("binding")
        if isinstance(binding, dict):
            return verify_binding(
                self._world.seal_keyring(),
                cluster=self._world.cluster,
                namespace=namespace,
                name=name,
                spec=spec,
                binding=binding,
            )
        verify_seal(
            self._world.seal_keyring(),
            sealed.metadata.annotations.get(SEAL_ANNOTATION, ""),
            namespace=namespace,
            name=name,
            spec=spec,
        )
        return None

    async def _obstacle(self, sealed: SealedRun, live: LiveObjects) -> str | None:
        """Why a run that was let in before, and stands still, may not start or go on today."""
        if not live.stands_still():
            return None
        found = await resuming.obstacle(self._world, sealed, sealed.metadata.namespace)
        return None if found is None else found.words

    async def _scaled(
        self,
        obj: JsonObject,
        job: TrainingJob,
        sealed: SealedRun,
        seal: JsonObject,
        bound: Sequence[BoundUid] | None,
        live: LiveObjects,
        *,
        held: bool,
    ) -> Scaled:
        """Binds the seal, where it is not yet, and brings an elastic run to its size."""
        spec = json_object(seal["spec"])
        if bound is None:
            elastic = await self._bind(sealed, spec, live, obj, job)
            return await self._scaling.fit(elastic) if elastic else Scaled()
        # It was verified.
        membership = membership_of(json_object(conditions.status_of(seal).get("binding")))
        status = sealed.status
        if membership is None or status is None or status.binding is None:
            return self._scaling.fixed(job, sealed)
        elastic = Elastic(
            obj, job, sealed, spec, bound, status.binding.bound_at, membership,
            status.epochs or (), live,
        )  # fmt: skip
        return await self._scaling.bring_about(elastic, held=held)

    async def _bind(
        self,
        sealed: SealedRun,
        spec: JsonObject,
        live: LiveObjects,
        obj: JsonObject,
        job: TrainingJob,
    ) -> Elastic | None:
        """Binds the seal; the run, if one of its roles is elastic."""
        now, bound = self._world.clock(), bound_uids(sealed, live)
        membership = self._scaling.first(job, sealed)
        binding = bind(
            self._world.seal_key,
            namespace=sealed.metadata.namespace,
            name=sealed.metadata.name,
            spec=spec,
            objects=bound,
            now=now,
            membership=membership,
        )
        status: JsonObject = {"binding": binding, "phase": "Bound"}
        if membership is not None:
            status["epochs"] = [membership.told(self._scaling.chooser(obj, sealed))]
        if signed := kept_job(sealed, obj):
            status["signed"] = signed
        await self._patch_seal(sealed, status)
        if membership is None:
            return None
        return Elastic(obj, job, sealed, spec, bound, now, membership, (), live)

    async def _patch_seal(self, sealed: SealedRun, status: JsonObject) -> None:
        path = path_of(
            API_VERSION, SEALS, sealed.metadata.namespace, f"{sealed.metadata.name}/status"
        )
        await self._kube.patch(path, {"status": status})

    async def _observe(
        self,
        job: TrainingJob,
        sealed: SealedRun,
        live: LiveObjects,
        *,
        suspend: bool,
        hold: Hold | None,
        members: Mapping[str, int],
    ) -> Progress:
        roles = [
            live.engine.observe(r.name, members.get(r.name, r.replicas), live.owners[r.name])
            for r in sealed.spec.roles
        ]
        outcomes = live.outcomes()
        failed = [o[1] for o in outcomes if o and o[0] == "Failed"]
        phase: Phase = "Suspended" if suspend else "Sealed"
        message = "suspended by the user" if suspend else _waiting(job, live)
        if not suspend and at_work(job, roles):
            phase, message = "Running", f"{_ready(roles)} workers ready"
        if failed:
            phase, message = "Failed", "; ".join(failed)
        elif all(outcomes):
            phase, message = "Succeeded", "all workers completed"
        elif hold is not None and hold.response == "Terminate":
            phase, message = "Failed", held_words(hold)
        if failed or (phase in ("Sealed", "Running") and _lacks(roles)):
            # Not before there is something to explain: a run that recovered is at work again.
            reason = await gate_message(self._kube, sealed.metadata.namespace, sealed.metadata.name)
            if not reason and phase == "Sealed" and any(r.failed for r in roles):
                reason = "a worker failed and is tried again"
            message = reason or message
        ended = sealed.status
        if ended is not None and ended.phase in ("Succeeded", "Failed"):
            # What is on record stays, whatever became of the Jobs before the job's status said so.
            phase, message = ended.phase, ended.message or message
        if hold is not None and phase not in ("Succeeded", "Failed"):
            message = held_words(hold)
        progress = Progress(phase, message)
        progress.wants("Verified", True, "Verified", "every artifact carries what the policy wants")
        progress.wants("Sealed", True, "Bound", f"SealedRun {sealed.metadata.name}")
        progress.wants("Running", phase == "Running", phase, message)
        if phase == "Failed":
            # The run is not watched any more: the workers of other roles end with it.
            await self._steering.hold(live)
        if phase in ("Succeeded", "Failed"):
            held = hold is not None and hold.response == "Terminate" and not any(outcomes)
            ended_as = "Terminated" if held else phase
            progress.wants("Complete", phase == "Succeeded", ended_as, message)
            await self._end(sealed, phase, message)
        progress.fields = {
            **_of_seal(sealed),
            "ready": _ready(roles),
            "roles": [r.wire() for r in roles],
        }
        times = job.status
        if phase == "Running" and (times is None or times.start_time is None):
            progress.fields["startTime"] = rfc3339(self._world.clock())
        if phase in ("Succeeded", "Failed"):
            at = ended.completion_time if ended else None
            progress.fields["completionTime"] = rfc3339(at or self._world.clock())
        return progress

    async def _end(self, sealed: SealedRun, phase: Phase, message: str) -> None:
        """Says in the seal how its run ended; once, whoever is stopped before the job says so."""
        if sealed.status is not None and sealed.status.phase in ("Succeeded", "Failed"):
            return
        status: JsonObject = {"phase": phase, "message": message[:1024]}
        status["completionTime"] = rfc3339(self._world.clock())
        await self._patch_seal(sealed, status)

    async def keep_held(self, owner: str, seal: Json) -> None:
        """Keeps a held or terminated run's Jobs suspended, whoever resumes them."""
        if _suspends(hold_of(seal)):
            await self.stop(owner, seal)

    async def stop(self, owner: str, seal: Json) -> None:
        """Suspends a run's Jobs; of a seal that cannot be read none is known. Raises KubeError."""
        try:
            sealed = SealedRun.parse(seal)
        except InvalidObjectError as error:
            _log.error("the Jobs of a seal cannot be stopped: %s", error)
            return
        await self._objects.suspend_all(owner, sealed)

    async def _untrusted(self, obj: JsonObject, sealed: SealedRun, words: str) -> Progress:
        """The seal is not ours: the run, if there is one, is held."""
        await self._world.event(obj, warning=True, reason="SealNotTrusted", message=words)
        await self._objects.suspend_all(objects.uid_of(obj), sealed)
        progress = Progress(
            "Suspended", f"{words}. The run is held; ask the platform team", again=60.0
        )
        progress.wants("Sealed", False, "SealNotTrusted", words)
        return progress

    async def _leaves(self, job: TrainingJob) -> bool:
        """Whether the TrainingJob is going, gone, or another of its name by now."""
        metadata = job.metadata
        path = path_of(API_VERSION, JOBS, metadata.namespace, metadata.name)
        try:
            found = await self._kube.get(path)
        except NotFoundError:
            return True
        going = json_object(found.get("metadata")).get("deletionTimestamp")
        return bool(going) or objects.uid_of(found) != metadata.uid

    async def _lost(
        self, obj: JsonObject, job: TrainingJob, sealed: SealedRun, words: str
    ) -> Progress:
        """A Job of the run is not there any more, or is not ours. Raises LeavingError."""
        if await self._leaves(job):
            raise LeavingError
        # Its other roles are not watched any more.
        await self._objects.suspend_all(objects.uid_of(obj), sealed)
        await self._end(sealed, "Failed", words)
        progress = Progress("Failed", f"{words}; delete the TrainingJob and apply it again")
        progress.wants("Running", False, "RunLost", words)
        progress.wants("Complete", False, "RunLost", words)
        return progress


def _soon(seconds: float | None) -> float:
    return math.inf if seconds is None else seconds


def _suspends(hold: Hold | None) -> bool:
    """Whether it takes the run's pods away."""
    return hold is not None and hold.response not in FREEZING


def _say_not_resumed(progress: Progress, obstacle: str) -> None:
    if progress.phase == "Suspended":
        progress.message = obstacle
        progress.wants("Running", False, "NotResumed", obstacle)
        progress.again = resuming.AGAIN


def _not_made_yet(sealed: SealedRun, error: NotMadeYetError) -> Progress:
    words = str(error)
    progress = Progress("Sealed", words, again=error.again)
    progress.wants("Verified", True, "Verified", "every artifact carries what the policy wants")
    progress.wants("Sealed", None, "NotMadeYet", words)
    progress.fields = _of_seal(sealed)
    return progress


def _of_seal(sealed: SealedRun) -> JsonObject:
    """What the status says of what was sealed."""
    persons = dict.fromkeys(s.person for a in sealed.spec.artifacts for s in a.signers)
    return {
        "verified": "verified",
        "jobDigest": sealed.spec.job.digest,
        "sealedRun": sealed.metadata.name,
        "run": sealed.spec.run,
        **({"template": sealed.spec.launch.template} if sealed.spec.launch else {}),
        "requester": sealed.spec.requester.username,
        "signers": ", ".join(persons)[:1024],
        "artifacts": [a.wire() for a in sealed.spec.artifacts],
    }


def at_work(job: TrainingJob, roles: Sequence[RoleStatus]) -> bool:
    """Whether the run is on, also while its last workers end: they are ready no more."""
    if any(r.ready or r.succeeded for r in roles):
        return True
    was_running = job.status is not None and job.status.phase == "Running"
    return was_running and any(r.active for r in roles)


def _waiting(job: TrainingJob, live: LiveObjects) -> str:
    """What a run waits for before it has workers."""
    queue = queue_of(job)
    if queue and any(map(live.engine.is_suspended, live.roots)):
        return f"waiting for the queue {queue} to resume it (spec.scheduling.queueName)"
    return "waiting for its pods"


def _lacks(roles: Sequence[RoleStatus]) -> bool:
    """Whether a worker is neither ready nor done, of a run that has had pods."""
    begun = any(r.active or r.failed for r in roles)
    return begun and any(r.ready + r.succeeded < r.replicas for r in roles)


def _ready(roles: Sequence[RoleStatus]) -> str:
    return f"{sum(r.ready for r in roles)}/{sum(r.replicas for r in roles)}"
