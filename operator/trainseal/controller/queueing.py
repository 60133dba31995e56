"""Answers Kueue's admission checks: those AdmissionChecks whose ``controllerName`` is ours.

Level-triggered: each call looks at one Workload, at the seal that its pods name and at the live
job, and writes the answer (``workloads``) where it is another. A Workload's labels and owner are
what Kueue wrote, or whoever may write Workloads: they say where to look, and the seal's binding,
which we signed, says whether what the Workload stands for is of the run.

What is not promised: between the moment in which Kueue reserves quota and our answer, it is
reserved; and a Workload that lists no check of ours is Kueue's alone.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable

from trainseal.api.model import API_VERSION, InvalidObjectError, JsonObject, json_object
from trainseal.api.sealedrun import SealedRun
from trainseal.cluster.api import ConflictError, Kube, NotFoundError, path_of
from trainseal.cluster.informer import Event, Informer
from trainseal.controller import conditions, resuming
from trainseal.controller.conditions import Wanted
from trainseal.controller.driftstatus import held_words, hold_of
from trainseal.controller.resuming import Obstacle
from trainseal.controller.workloads import (
    API,
    CHECKS,
    CONTROLLER_NAME,
    LABEL_JOB_UID,
    WORKLOADS,
    Judgement,
    answered,
    has,
    is_admitted,
    label,
    owner_of,
    queue_kept_out,
    states,
    templates,
)
from trainseal.controller.workqueue import WorkQueue
from trainseal.controller.world import World
from trainseal.engines.podtemplate import LABEL_JOB, LABEL_SEAL
from trainseal.provenance.boundseals import bound_roles, has_ended
from trainseal.provenance.canonical import CanonicalError
from trainseal.provenance.differences import Json
from trainseal.provenance.drift import FREEZING
from trainseal.provenance.gpuasks import asked
from trainseal.provenance.keyrings import UntrustedError
from trainseal.provenance.policies import only_audited

_log = logging.getLogger(__name__)
Key = tuple[str, str]
#: Seconds until a Workload that may not be admitted now is judged again, if nothing is heard.
NOT_NOW_AGAIN = 15.0
NEVER_AGAIN = 120.0
_CONFLICT_AGAIN = 0.2


class Kept:
    """Which AdmissionChecks are ours, and which runs they keep out of their queues."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self.ours: set[str] = set()

    async def queue(self, namespace: str, uid: str) -> str:
        """The queue whose label the object of this UID may bear though it must not run.

        Empty where a queue could let it go, or where it has no Workload. Read live: what was heard
        may be late. Raises KubeError.
        """
        if not self.ours:
            return ""
        path = path_of(API, WORKLOADS, namespace)
        query = {"labelSelector": f"{LABEL_JOB_UID}={uid}"}
        found = (await self._kube.request("GET", path, query=query)).get("items")
        queues = {
            queue_kept_out(item, self.ours)
            for item in (found if isinstance(found, list) else ())
            if isinstance(item, dict) and owner_of(item).get("uid") == uid
        }
        return queues.pop() if len(queues) == 1 else ""


class Queueing:
    """Follows AdmissionChecks and Workloads; ``kept`` is told which checks are ours.

    ``shut_out`` is told of a TrainingJob that our check keeps out: its Job may be labelled again.
    """

    def __init__(
        self, world: World, kept: Kept, shut_out: Callable[[Key], None] = lambda _: None
    ) -> None:
        self._world = world
        self._shut_out = shut_out
        self._kube = world.kube
        self._kept = kept
        self._of_job: dict[Key, set[Key]] = defaultdict(set)
        self._queue = WorkQueue(self.reconcile)
        self._checks = Informer(self._kube, path_of(API, CHECKS), listener=self._on_check)
        self._workloads = Informer(
            self._kube, path_of(API, WORKLOADS), listener=self._on_workload, shape=_shape
        )

    def job_changed(self, namespace: str, job: str) -> None:
        """A TrainingJob or its seal changed."""
        for key in tuple(self._of_job.get((namespace, job), ())):
            self._queue.add(key)

    def policies_changed(self) -> None:
        """What was refused may pass now."""
        for key in tuple(self._workloads.objects):
            self._queue.add(key)

    async def run(self) -> None:
        """Answers for ever. Where Kueue is not there, it is looked for again and again."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._checks.run())
            group.create_task(self._workloads.run())
            await self._checks.synced.wait()
            await self._workloads.synced.wait()
            group.create_task(self._queue.run())

    async def reconcile(self, key: Key) -> float | None:
        """Answers one Workload, or says of an AdmissionCheck that it is answered."""
        namespace, name = key
        if not namespace:
            await self._tell_active(name)
            return None
        workload = self._workloads.get(namespace, name)
        found = states(workload or {}, self._kept.ours)
        if workload is None or not found or has(workload, "Finished"):
            return None
        judgement = await self.judge(workload)
        checks = answered(workload, self._kept.ours, judgement, self._world.clock())
        if checks is not None:
            version = json_object(workload["metadata"]).get("resourceVersion")
            try:
                # Kueue writes the same list: of two, the one who has not seen the other's waits.
                await self._kube.patch(
                    path_of(API, WORKLOADS, namespace, f"{name}/status"),
                    {
                        "metadata": {"resourceVersion": version},
                        "status": {"admissionChecks": checks},
                    },
                )
            except ConflictError:
                return _CONFLICT_AGAIN
            except NotFoundError:
                return None
        if judgement.standing == "InOrder":
            return None
        return NOT_NOW_AGAIN if judgement.standing == "NotNow" else NEVER_AGAIN

    async def judge(self, workload: JsonObject) -> Judgement:
        """Whether it may be admitted, or stay so. Raises KubeError."""
        name = label(workload, LABEL_SEAL)
        if not name:
            return self._of_no_run(workload)
        namespace = str(json_object(workload["metadata"])["namespace"])
        try:
            seal = await self._kube.get(path_of(API_VERSION, "sealedruns", namespace, name))
            sealed = SealedRun.parse(seal)
            roles = bound_roles(
                self._world.seal_keyring(),
                cluster=self._world.cluster,
                namespace=namespace,
                name=name,
                seal=seal,
            )
        except NotFoundError:
            return Judgement("Never", f"its pods name SealedRun {name}, which is not there")
        except (InvalidObjectError, UntrustedError, CanonicalError) as error:
            return Judgement("Never", f"SealedRun {name} is not trusted: {error}")
        if not roles:
            return Judgement("NotNow", f"SealedRun {name} is not bound yet")
        owner = owner_of(workload)
        # What waits in a queue is a root: what the pods' owners are made from, or these themselves.
        roots = {role.root.uid if role.root else role.object_uid for role in roles}
        if owner.get("uid") not in roots:
            words = f"{owner.get('kind')} {owner.get('name')} is not what SealedRun {name} sealed"
            return Judgement("Never", words)
        return await self._of_run(workload, sealed, seal, namespace)

    async def _of_run(
        self, workload: Json, sealed: SealedRun, seal: Json, namespace: str
    ) -> Judgement:
        if has_ended(seal):
            return Judgement("NotNow", "the run has ended")
        admitted, hold = is_admitted(workload), hold_of(seal)
        # A frozen run, and one in quarantine, keep their pods, and so their quota.
        if hold is not None and not (admitted and hold.response in FREEZING):
            return Judgement("NotNow", held_words(hold))
        job = await resuming.live_job(self._world, sealed, namespace)
        if isinstance(job, Obstacle):
            return _kept_out(job)
        if json_object(job.get("spec")).get("suspend") and hold is None:
            return Judgement("NotNow", "suspended by the user (spec.suspend)")
        if not admitted:
            obstacle = await resuming.obstacle(self._world, sealed, namespace, job)
            if obstacle is not None:
                return _kept_out(obstacle)
        return Judgement("InOrder", f"of SealedRun {sealed.metadata.name}, verified")

    def _of_no_run(self, workload: Json) -> Judgement:
        namespace = str(json_object(workload["metadata"])["namespace"])
        found = next(
            filter(None, (asked(t, self._world.settings.gpus) for t in templates(workload))), ""
        )
        if not found:
            return Judgement("InOrder", "it asks for no GPU")
        if namespace in self._world.settings.excluded_namespaces:
            return Judgement("InOrder", f"{namespace} is not TrainSeal's to look after")
        words = f"it {found} and is of no sealed run"
        policies = self._world.policies(namespace)
        if only_audited(policies, broken=bool(self._world.broken_policies())):
            return Judgement("InOrder", f"{words}; the policies of {namespace} only audit")
        return Judgement("Never", f"{words}: expected a signed TrainingJob, which makes it")

    async def _tell_active(self, name: str) -> None:
        check = self._checks.get("", name)
        if check is None or name not in self._kept.ours:
            return
        generation = json_object(check.get("metadata")).get("generation")
        present = conditions.status_of(check).get("conditions")
        merged = conditions.merge(
            present,
            [Wanted("Active", "True", "Active", "TrainSeal's controller answers it")],
            generation if isinstance(generation, int) else 0,
            self._world.clock(),
        )
        if merged != present:
            path = path_of(API, CHECKS, None, f"{name}/status")
            await self._kube.patch(path, {"status": {"conditions": merged}})

    def _on_check(self, event: Event, key: Key, obj: JsonObject) -> None:
        mine = json_object(obj.get("spec")).get("controllerName") == CONTROLLER_NAME
        if event == "DELETED" or not mine:
            self._kept.ours.discard(key[1])
            return
        if key[1] not in self._kept.ours:
            self._kept.ours.add(key[1])
            self.policies_changed()
        self._queue.add(key)

    def _on_workload(self, event: Event, key: Key, obj: JsonObject) -> None:
        job = (key[0], label(obj, LABEL_JOB))
        if event == "DELETED":
            self._of_job[job].discard(key)
            if not self._of_job[job]:
                del self._of_job[job]
            return
        if job[1]:
            self._of_job[job].add(key)
            if queue_kept_out(obj, self._kept.ours):
                self._shut_out(job)
        self._queue.add(key)


def _kept_out(obstacle: Obstacle) -> Judgement:
    return Judgement("Never" if obstacle.refuted else "NotNow", obstacle.words)


def _shape(workload: JsonObject) -> JsonObject:
    """One that is over stays in the cluster for long; of it nothing is asked any more."""
    if has(workload, "Finished"):
        return {"metadata": workload["metadata"], "status": workload["status"]}
    return workload
