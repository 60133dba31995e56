"""Reconciles one TrainingJob: verified, sealed, rendered, bound, let go, observed.

Level-triggered: each call looks at the job, its seal and its live objects, and takes the next step
that is missing; so a restart in the middle of anything changes nothing in the end. State is in
status and seal alone; nothing is read from labels or annotations but the signed ticket. Steps:

1. *Verify.* The webhook did; the controller does it again, because a webhook can be bypassed.
2. *Seal.* The engine's objects are tried with a server-side dry run, and what the API server makes
   of them is written into the SealedRun.
3. *Bind.* The Jobs are made suspended; the seal is then signed together with their UIDs.
4. *Let go*, unless the user or a hold suspends; follow to the end.

A run that is on is looked at each minute too, whatever is heard of it: an editor can keep its
objects from being watched. One that runs as it should is not read again while its parts, which are
listed by version for that (``runversions``), are those that were looked at.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime

from trainseal.api.model import (
    API_VERSION,
    InvalidObjectError,
    JsonObject,
    Metadata,
    json_object,
    json_objects,
    metadata_name,
)
from trainseal.api.sealedrun import SealedRun
from trainseal.api.trainingjob import RoleStatus, SubmittedJob, TrainingJob
from trainseal.cluster.api import ConflictError, KubeError, NotFoundError, path_of
from trainseal.controller import conditions, objects, pending, resumefrom, resumption, sealing
from trainseal.controller.announcing import announcements, occasion
from trainseal.controller.driftstatus import drift_status, hold_of
from trainseal.controller.execution import OBJECT_CHANGED_AGAIN, Execution, LeavingError
from trainseal.controller.launchbook import LaunchBook
from trainseal.controller.objects import ForeignObjectError
from trainseal.controller.progress import Progress
from trainseal.controller.resumefrom import NotResumedError, Resumed
from trainseal.controller.runreads import references_of
from trainseal.controller.runversions import RunVersions, Standing, parts_of
from trainseal.controller.taintedvolumes import Bar
from trainseal.controller.world import World
from trainseal.engines import job as jobs
from trainseal.engines.catalogue import ENGINES, no_engine, unfit
from trainseal.engines.engine import Engine, Rendered
from trainseal.engines.podtemplate import RenderInputs
from trainseal.provenance.boundseals import has_ended
from trainseal.provenance.canonical import CanonicalError, job_digest
from trainseal.provenance.helppages import ended, of_reasons
from trainseal.provenance.jobrules import RunFacts
from trainseal.provenance.keyrings import UntrustedError, rfc3339
from trainseal.provenance.launches import Launch, counted_by
from trainseal.provenance.seals import SealTooLargeError
from trainseal.provenance.tickets import TICKET_ANNOTATION, read_ticket
from trainseal.provenance.verdicts import Outcome
from trainseal.verifier.jobs import JobVerification
from trainseal.verifier.storedtemplates import stored_template

JOBS = "trainingjobs"
SEALS = "sealedruns"
VERIFY_SECONDS = 60.0
#: A refused or undetermined job is looked at again after this time; a policy change does it sooner.
REFUSED_AGAIN = 120.0
UNDETERMINED_AGAIN = 10.0
#: A job that waits for another run of its template to end is told of it; at the latest then.
WAITING_AGAIN = 60.0
#: A run that is on is looked at again after this time at the latest, and up to the second time
#: later: each run of many at another moment.
LIVE_AGAIN = 60.0
#: One that has just ended: what follows from that is done by a look that finds it so, and nobody
#: says that it has but we.
_ENDED_AGAIN = 0.5
#: One that is being deleted, though what says so may be on its way.
_LEAVING_AGAIN = 0.5
_SPREAD = 15.0
#: Fields of the status that count only while they are said.
_PASSING = ("missing",)
#: Reason of a job whose engine this cluster does not have.
NO_ENGINE = "NoEngine"
ENDED: frozenset[str] = frozenset({"Succeeded", "Failed"})


class Runs:
    """Reconciles TrainingJobs."""

    def __init__(
        self,
        world: World,
        versions: RunVersions | None = None,
        launches: LaunchBook | None = None,
        ended: Callable[[tuple[str, str]], None] = lambda _: None,
        may_be_open: Callable[[tuple[str, str]], bool] = lambda _: True,
    ) -> None:
        """``versions`` may be shared with others who look at the same runs; ``launches`` is fed by
        a watch; ``ended`` is told of seals whose run has ended and of which no statement was made;
        ``may_be_open`` says of a TrainingJob's name whether there may be a seal whose run has not.
        """
        self._ended = ended
        self._may_be_open = may_be_open
        self._world = world
        self._launches = launches or LaunchBook()
        self._kube = world.kube
        self._execution = Execution(world)
        self._versions = versions or RunVersions(world.kube)
        #: Of which something was heard since they were looked at last.
        self._heard: set[tuple[str, str]] = set()
        #: Of which somebody changed something since.
        self._changed: set[tuple[str, str]] = set()
        #: Those that lean on what was sealed, as far as was heard since that was read.
        self._whole: set[tuple[str, str]] = set()
        #: Versions of the parts of those that run as they should.
        self._in_order: dict[tuple[str, str], bytes] = {}

    def heard(self, key: tuple[str, str], *, changed: bool = True) -> None:
        """Something happened that may concern this job: its next look reads all of it; what it
        leans on only if somebody ``changed`` something, or it was not as it should be.
        """
        self._heard.add(key)
        if changed:
            self._changed.add(key)

    async def reconcile(self, key: tuple[str, str]) -> float | None:
        """Takes one job's next steps; returns seconds until it wants to be looked at again."""
        known, heard = self._in_order.pop(key, None), key in self._heard
        around = not heard or key in self._changed or key not in self._whole
        for keys in (self._heard, self._changed, self._whole):
            keys.discard(key)
        try:
            # Listed before it is looked at.
            standing = await self._versions.of(*key)
            if standing is not None and not heard and known == standing.versions:
                self._in_order[key] = standing.versions
                return _look_again(key)
            return await self._look(key, standing, around=around)
        except Exception:
            self.heard(key)
            raise

    async def _look(
        self, key: tuple[str, str], standing: Standing | None, *, around: bool
    ) -> float | None:
        namespace, name = key
        path = path_of(API_VERSION, JOBS, namespace, name)
        try:
            obj = await self._kube.get(path)
        except NotFoundError:
            self._launches.gone(key)
            await self._close_seals(namespace, name, live_uid=None)
            return None
        uid = objects.uid_of(obj)
        seals: Sequence[JsonObject] = ()
        # Seals stay, and to look through all of them for each new job costs more each day. One that
        # was made a moment ago, and is not known yet, is found by the next look.
        if conditions.status_of(obj).get("sealedRun") or self._may_be_open(key):
            # Before all that an editor can make fail: a finalizer, a quota, an object of our name.
            seals = await self._close_seals(namespace, name, live_uid=uid)
        for seal in seals:
            await self._execution.keep_held(uid, seal)
        if json_object(obj.get("metadata")).get("deletionTimestamp"):
            # Somebody's finalizer may keep it for ever, and what holds its run with it.
            return None if all(map(has_ended, seals)) else _look_again(key)
        phase = conditions.status_of(obj).get("phase")
        if phase in ENDED and all(map(has_ended, seals)):
            if phase == "Failed":
                # Jobs of other roles stand still, and give quota back that a queue gave them.
                for seal in seals:
                    await self._execution.stop(uid, seal)
            await self._after_the_end(path, obj)
            return None
        try:
            progress = await self._advance(obj, seals, around=around)
        except LeavingError:
            return _LEAVING_AGAIN
        except ForeignObjectError as error:
            progress = Progress("Pending", str(error), again=OBJECT_CHANGED_AGAIN)
            progress.wants("Sealed", False, "NameTaken", str(error))
            await self._world.event(obj, warning=True, reason="NameTaken", message=str(error))
        await self._write_status(path, obj, progress)
        if progress.whole:
            self._whole.add(key)
        if around and standing is not None and _in_order(progress, seals, standing):
            self._in_order[key] = standing.versions
        if progress.phase in ENDED:
            return _ENDED_AGAIN
        return _look_again(key) if progress.again is None else progress.again

    async def _advance(
        self, obj: JsonObject, seals: Sequence[JsonObject], *, around: bool
    ) -> Progress:
        """``seals`` are those of the job, by their label; ``around``: see ``Execution``."""
        try:
            job = SubmittedJob.parse(obj).metadata
            asked = job_digest(obj)
        except (InvalidObjectError, CanonicalError) as error:
            return self._refused("InvalidJob", str(error))
        name = sealing.seal_name(job, asked)
        seal = next((seal for seal in seals if metadata_name(seal) == name), None)
        if seal is None and conditions.status_of(obj).get("sealedRun"):
            # One that has lost its label is not among those that were listed.
            seal = await self._seal_of(job, asked)
        if seal is None:
            found = await self._make_seal(obj, job, asked)
            if isinstance(found, Progress):
                return found
            seal = found
        return await self._execution.advance(obj, seal, around=around)

    async def _seal_of(self, job: Metadata, asked: str) -> JsonObject | None:
        name = sealing.seal_name(job, asked)
        path = path_of(API_VERSION, SEALS, job.namespace, name)
        try:
            return await self._kube.get(path)
        except NotFoundError:
            return None

    # Verify and seal ----------------------------------------------------------------------------

    async def _make_seal(
        self, obj: JsonObject, identity: Metadata, asked: str
    ) -> JsonObject | Progress:
        world, namespace = self._world, identity.namespace
        try:
            ticket = read_ticket(world.ticket_keyring(), _ticket_text(obj), asked)
        except UntrustedError as error:
            return self._refused(
                "NoTicket",
                f"{error}; this job did not pass TrainSeal's webhook. Delete it and apply it again",
            )
        stored = await stored_template(self._kube, obj)
        runs = (
            await self._runs_of(namespace, asked)
            if stored is None
            else self._launches.runs(namespace, counted_by(obj, asked))
        )
        verification = await world.verifier.verify(
            obj,
            world.policies(namespace),
            RunFacts(cluster=world.cluster, runs=runs, requester=ticket.requester, template=stored),
            deadline=VERIFY_SECONDS,
            broken=world.broken_policies(),
        )
        job = verification.job
        if verification.outcome is not Outcome.VERIFIED or job is None:
            return self._not_verified(verification, ticket.time)
        status = conditions.status_of(obj)
        if late := pending.too_late(verification, status, ticket.time, world.clock()):
            return self._refused(pending.TOO_LATE, late)
        launch = verification.launch
        if launch is not None and (waits := self._no_room(identity, launch)) is not None:
            return waits
        run = sealing.seal_name(identity, asked)
        earlier = await resumption.earlier(world, namespace, job, run)
        if isinstance(earlier, Bar):
            return self._barred(earlier)
        try:
            resumed = await resumefrom.choose(world, identity, job, ticket.requester)
        except NotResumedError as error:
            return self._not_resumed(error)
        made = await self._rendered(job, asked, verification, resumed)
        if isinstance(made, Progress):
            return made
        rendered, templates = made
        references = await references_of(world, namespace, [*templates.values()])
        wanted = sealing.Sealing(
            job=job,
            asked=asked,
            verification=verification,
            rendered=rendered,
            templates=templates,
            ticket=ticket,
            cluster=world.cluster,
            run=runs + 1,
            references=references,
            earlier=tuple(earlier),
            resume=resumed.sealed if resumed else None,
            now=world.clock(),
        )
        if launch is None:
            return await self._write_seal(identity, wanted)
        async with self._launches.turn(namespace, launch.digest):
            if (waits := self._no_room(identity, launch)) is not None:
                return waits
            # Others may have had their turn since this job was judged.
            runs = self._launches.runs(namespace, launch.digest)
            bound = job.spec.validity.max_runs if job.spec.validity else None
            if bound is None or runs < bound:
                seal = await self._write_seal(identity, replace(wanted, run=runs + 1))
                if not isinstance(seal, Progress):
                    name = sealing.seal_name(identity, asked)
                    self._launches.made((namespace, name), launch.digest, identity.name)
                return seal
        return await self._make_seal(obj, identity, asked)

    def _no_room(self, job: Metadata, launch: Launch) -> Progress | None:
        """What the job waits for while as many runs of its template live as may."""
        most = launch.template.spec.launch.max_concurrent
        if most is None or self._launches.live(job.namespace, launch.digest) < most:
            return None
        self._launches.waits((job.namespace, job.name), launch.digest, most)
        return _waits(launch.name, most)

    async def _rendered(
        self,
        job: TrainingJob,
        asked: str,
        verification: JobVerification,
        resumed: Resumed | None,
    ) -> tuple[Rendered, dict[str, JsonObject]] | Progress:
        """The engine's objects, and their pods as the API server would have them."""
        name = job.spec.engine
        if name not in self._world.settings.engines.enabled:
            return self._refused(NO_ENGINE, no_engine(name, self._world.settings.engines.enabled))
        if words := unfit(job):
            return self._refused("InvalidTemplate", words)
        engine = ENGINES[name]
        inputs = self._inputs(job, asked, verification)
        if resumed is not None:
            inputs = replace(inputs, resume=resumed.inputs)
        rendered = engine.render(job, inputs)
        templates: dict[str, JsonObject] = {}
        for role in rendered.roles:
            tried = await self._tried(str(role.tried["kind"]), role.tried)
            if isinstance(tried, str):
                return self._refused(
                    "InvalidTemplate",
                    f"the API server refuses the pods of role {role.name}: {tried}; "
                    "correct the template and sign it again, or correct spec.scheduling",
                )
            templates[role.name] = jobs.template_of(tried)
        # As they will be made: a kind of others may not know each field of the pods.
        wanted = engine.with_templates(rendered, templates)
        for obj in _trials(engine, wanted):
            kind = str(obj["kind"])
            try:
                tried = await self._tried(kind, obj)
            except NotFoundError:
                return self._refused(
                    NO_ENGINE,
                    f"spec.engine is {name}: found no kind {kind} ({obj['apiVersion']}) in this "
                    "cluster, expected it; have the platform team install it, or choose "
                    "`engine: Job` and sign again",
                )
            if isinstance(tried, str):
                return self._refused(
                    "InvalidTemplate",
                    f"the run's {kind} is refused: {tried}; correct the job and sign it again, or "
                    "correct spec.scheduling",
                )
        return rendered, templates

    async def _tried(self, kind: str, obj: JsonObject) -> JsonObject | str:
        """The object as the API server would have it, or why it would not."""
        metadata = json_object(obj.get("metadata"))
        path = objects.collection(kind, str(metadata["namespace"]))
        try:
            return await self._kube.create(path, obj, dry_run=True, strict=True)
        except ConflictError:
            raise ForeignObjectError(
                f"{kind} {metadata['namespace']}/{metadata['name']} exists already; "
                "if it is an earlier run's, it goes away by itself, else delete it"
            ) from None
        except KubeError as error:
            if error.status not in (400, 422):
                raise
            return error.message

    async def _write_seal(self, job: Metadata, wanted: sealing.Sealing) -> JsonObject | Progress:
        try:
            seal = sealing.seal_object(self._world.seal_key, wanted)
        except SealTooLargeError as error:
            return self._refused("SealTooLarge", f"the run cannot be sealed: {error}")
        try:
            return await self._kube.create(
                path_of(API_VERSION, SEALS, job.namespace), seal, strict=True
            )
        except ConflictError:
            again = await self._seal_of(job, wanted.asked)
            if again is None:
                raise
            return again

    async def _runs_of(self, namespace: str, digest: str) -> int:
        """Runs of a job that was signed itself."""
        query = {"labelSelector": f"{sealing.LABEL_DIGEST}={sealing.digest_label(digest)}"}
        seals = self._kube.metadata(path_of(API_VERSION, SEALS, namespace), query)
        return sum([1 async for _ in seals])

    def _not_verified(self, verification: JobVerification, submitted: datetime) -> Progress:
        progress = pending.waits(verification, submitted, self._world.clock())
        if progress is None:
            progress = self._denied(verification)
        progress.fields["artifacts"] = [a.wire() for a in sealing.artifacts(verification.verdicts)]
        if verification.digest:
            progress.fields["jobDigest"] = verification.digest
        return progress

    @staticmethod
    def _denied(verification: JobVerification) -> Progress:
        words = "\n".join(v.sentence() for v in verification.denials)
        undetermined = verification.outcome is Outcome.UNDETERMINED
        progress = Progress(
            "Pending" if undetermined else "Refused",
            words[:4096],
            again=UNDETERMINED_AGAIN if undetermined else REFUSED_AGAIN,
        )
        reason = verification.denials[0].reason
        progress.wants("Verified", None if undetermined else False, reason, words)
        progress.fields = {"verified": verification.outcome.value}
        return progress

    def _barred(self, bar: Bar) -> Progress:
        """The job would go on from tainted checkpoints: no run is counted for it."""
        if bar.waiting:
            return Progress("Pending", bar.words, again=resumption.WAITING_AGAIN)
        progress = self._refused(resumption.REASON, bar.words)
        progress.again = resumption.BARRED_AGAIN
        return progress

    def _not_resumed(self, error: NotResumedError) -> Progress:
        """There is no checkpoint to go on from, or not yet: no run is counted for it."""
        if not error.waiting:
            return self._refused(error.reason, str(error))
        progress = Progress("Pending", str(error), again=resumefrom.WAITING_AGAIN)
        progress.wants("Sealed", False, error.reason, str(error))
        return progress

    @staticmethod
    def _refused(reason: str, message: str) -> Progress:
        progress = Progress("Refused", message[:4096], again=REFUSED_AGAIN)
        progress.wants("Verified", False, reason, message)
        progress.fields = {"verified": Outcome.REFUTED.value}
        return progress

    def _inputs(self, job: TrainingJob, asked: str, verified: JobVerification) -> RenderInputs:
        settings = self._world.settings
        return RenderInputs(
            seal_name=sealing.seal_name(job.metadata, asked),
            job_uid=job.metadata.uid,
            gate_image=settings.gate_image,
            code=verified.code,
            plain_http=tuple(settings.registries.plain_http),
            registry_ca=self._world.registry_ca,
            signs=self._world.seal_key.public if settings.agents.enabled else None,
            of_template=verified.launch is not None,
        )

    # Status and ends ----------------------------------------------------------------------------

    async def _write_status(self, path: str, obj: JsonObject, progress: Progress) -> None:
        before = conditions.status_of(obj)
        number = _generation(obj)
        after = {
            **{field: value for field, value in before.items() if field not in _PASSING},
            **progress.fields,
            "observedGeneration": number,
            "phase": progress.phase,
            "message": self._message(progress),
            "conditions": conditions.merge(
                before.get("conditions"), progress.conditions, number, self._world.clock()
            ),
        }
        if after == before:
            return
        for told in announcements(before, after):
            await self._world.event(
                obj,
                warning=told.warning,
                reason=told.reason,
                message=told.message,
                occasion=occasion(before),
            )
        await objects.put_status(self._kube, path, obj, after)

    def _message(self, progress: Progress) -> str:
        """For people; where it refuses, with the page that helps."""
        reasons = [
            c.reason for c in progress.conditions if c.type == "Verified" and c.status != "True"
        ]
        documents = self._world.settings.documentation_url
        return ended(progress.message, of_reasons(reasons), documents, 4096)

    async def _after_the_end(self, path: str, obj: JsonObject) -> None:
        """What is found once a run has ended is shown all the same."""
        name = conditions.status_of(obj).get("sealedRun")
        namespace = json_object(obj.get("metadata")).get("namespace")
        if not isinstance(name, str):
            return
        try:
            seal = await self._kube.get(path_of(API_VERSION, SEALS, str(namespace), name))
        except NotFoundError:
            return
        uid = json_object(json_object(seal.get("spec")).get("job")).get("uid")
        if uid != objects.uid_of(obj):
            return
        before, drift = conditions.status_of(obj), drift_status(seal)
        after = {
            **before,
            **drift.fields,
            "conditions": conditions.merge(
                before.get("conditions"), drift.conditions, _generation(obj), self._world.clock()
            ),
        }
        if after != before:
            await objects.put_status(self._kube, path, obj, after)

    async def _close_seals(
        self, namespace: str, name: str, live_uid: str | None
    ) -> Sequence[JsonObject]:
        """Says of the seals of deleted jobs how they ended; returns those of the live one.

        The seals themselves stay: evidence. Nobody watches the run of a closed one, so its Jobs are
        stopped first: whoever deletes a job may have had them left behind.
        """
        page = await self._kube.request(
            "GET",
            path_of(API_VERSION, SEALS, namespace),
            query={"labelSelector": f"{sealing.LABEL_JOB}={name}"},
        )
        live = []
        for seal in json_objects(page.get("items")):
            spec, status = seal.get("spec"), conditions.status_of(seal)
            job = spec.get("job") if isinstance(spec, dict) else None
            uid = job.get("uid") if isinstance(job, dict) else None
            if uid == live_uid:
                live.append(seal)
            if has_ended(seal) and status.get("binding") and not status.get("statement"):
                self._ended((namespace, metadata_name(seal)))
            if uid == live_uid or status.get("phase") in (*ENDED, "Deleted"):
                continue
            await self._execution.stop(str(uid), seal)
            metadata = seal["metadata"]
            seal_name = metadata.get("name") if isinstance(metadata, dict) else ""
            await self._kube.patch(
                path_of(API_VERSION, SEALS, namespace, f"{seal_name}/status"),
                {
                    "status": {
                        "phase": "Deleted",
                        "completionTime": rfc3339(self._world.clock()),
                        "message": "the TrainingJob was deleted before its run ended",
                    }
                },
            )
            if status.get("binding"):
                self._ended((namespace, str(seal_name)))
        return live


def _trials(engine: Engine, rendered: Rendered) -> tuple[JsonObject, ...]:
    """What of the engine's is tried beside the owners. A root that needs something beside it would
    be refused before that is there.
    """
    if rendered.beside:
        return (*rendered.beside, *rendered.between)
    return rendered.roots if engine.ROOT != jobs.ROOT else ()


def _in_order(progress: Progress, seals: Sequence[JsonObject], standing: Standing) -> bool:
    """Whether a look at the same parts would find and do the same: the run simply goes on.

    What else could matter to it was heard of (policies), or stands in its seal (holds, findings).
    """
    if progress.phase != "Running" or progress.again is not None or len(seals) != 1:
        return False
    (seal,) = seals
    if hold_of(seal) is not None or not parts_of(SealedRun.parse(seal)) <= standing.parts:
        return False
    if any(c.type == "Placed" and c.status != "True" for c in progress.conditions):
        return False
    roles = [RoleStatus.model_validate(r) for r in json_objects(progress.fields.get("roles"))]
    return all(role.ready + role.succeeded >= role.replicas for role in roles)


def _look_again(key: tuple[str, str]) -> float:
    """Seconds until a run that is on is looked at without having been heard of."""
    return LIVE_AGAIN + zlib.crc32("/".join(key).encode()) % 1000 / 1000 * _SPREAD


def _waits(template: str, most: int) -> Progress:
    """It starts once another run of its template has ended."""
    words = (
        f"waiting: {most} runs of template {template} are on, as many as launch.maxConcurrent lets"
    )
    progress = Progress("Pending", words, again=WAITING_AGAIN)
    progress.wants("Sealed", False, "MaxConcurrent", words)
    return progress


def _generation(obj: JsonObject) -> int:
    generation = json_object(obj.get("metadata")).get("generation")
    return generation if isinstance(generation, int) else 0


def _ticket_text(obj: JsonObject) -> str:
    metadata = obj.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, dict) else None
    return str(annotations.get(TICKET_ANNOTATION, "")) if isinstance(annotations, dict) else ""
