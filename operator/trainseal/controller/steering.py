"""A run's objects, steered: suspended, resumed or left to a queue, and placed.

1. Where the user or a hold wants it, each root is suspended and bears no queue's label, so that no
   queue resumes it; so is what the engine's controller made of it. Once our admission check keeps
   it out of its queue, it bears the label again: without it, Kueue would count its quota as taken
   for as long as the object is there.
2. Else it bears the label of ``scheduling.queueName``. With a queue, the queue alone resumes the
   root, and may suspend it; without one, we resume whatever is suspended. A label that we may not
   take off, as where Kueue has a default queue, stays the queue's word.
3. While it is suspended and has no pods, it is placed as ``spec.scheduling`` says.
4. Where the engine's controller would take them for failed, pods of before are gone first.

What the API server, or a webhook behind it, refuses of 2 and 3 is told and keeps nothing else from
being done.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.api.trainingjob import Scheduling, TrainingJob
from trainseal.cluster.api import JSON_PATCH, Kube, KubeError, path_of
from trainseal.controller import objects
from trainseal.controller.liveobjects import LiveObjects
from trainseal.controller.placing import Placing, placing, resolved
from trainseal.controller.progress import Progress
from trainseal.controller.world import no_queue
from trainseal.engines import job as jobs
from trainseal.engines.catalogue import OWNERS
from trainseal.engines.engine import LABEL_QUEUE, Engine, ObjectKind
from trainseal.engines.podtemplate import LABEL_ROLE, LABEL_SEAL, placement

Json = Mapping[str, JsonValue]
#: Seconds until it is looked again whether pods of before are gone.
PODS_AGAIN = 3.0
#: Answers that mean no, not now: a request that is malformed here, forbidden or not valid.
REFUSALS = frozenset({400, 403, 422})


@dataclass(frozen=True, slots=True)
class Steered:
    """How far ``spec.scheduling`` counts, for status. ``scheduling``: what the run goes by now.
    ``again``: seconds until there may be more to do.
    """

    scheduling: Scheduling | None
    reason: str = "AsScheduled"
    message: str = ""
    again: float | None = None

    def tell(self, progress: Progress) -> None:
        """Sets the condition ``Placed`` and the field, and when to look again."""
        progress.again = self.again or progress.again
        progress.wants("Placed", not self.message, self.reason, self.message)
        if self.scheduling is not None:
            progress.fields["scheduling"] = self.scheduling.wire()


class Steering:
    """Steers them. Raises KubeError where the API server cannot be asked."""

    def __init__(
        self, kube: Kube, kept_by: Callable[[str, str], Awaitable[str]] = no_queue
    ) -> None:
        """``kept_by``: see ``World``."""
        self._kube = kube
        self._kept_by = kept_by

    async def hold(self, live: LiveObjects, *, suspended_only: bool = False) -> None:
        """Suspends the run, out of reach of a queue; what has ended is left as it is.

        ``suspended_only``: only what is suspended already is kept so.
        """
        for root in live.roots:
            if not suspended_only or live.engine.is_suspended(root):
                await self.hold_root(live.engine, root)
        # It waits for no other controller, which may be away.
        for engine, obj in (*live.between, *((jobs, owner) for owner in live.made)):
            if not suspended_only or engine.is_suspended(obj):
                await self.hold_root(engine, obj)

    async def suspended(self, engine: Engine, root: JsonObject) -> JsonObject:
        """The object, suspended if it is not; one that has ended is left as it is."""
        if engine.outcome(root) is not None or engine.is_suspended(root):
            return root
        return await self._merge(engine.ROOT, root, engine.suspension(True))

    async def hold_root(self, engine: Engine, root: Json) -> None:
        """Suspends one object."""
        if engine.outcome(root) is not None:
            return
        stop: JsonObject = {} if engine.is_suspended(root) else engine.suspension(True)
        # What runs is stopped first, and out of reach: the queue may not know yet.
        queue = "" if stop else await self._kept_by(_namespace(root), objects.uid_of(root))
        label: JsonObject = {}
        if _labels(root).get(LABEL_QUEUE, "") != queue:
            label = {"metadata": {"labels": {LABEL_QUEUE: queue or None}}}
        if not stop and not label:
            return
        if await self._try(engine.ROOT, root, {**stop, **label}) and stop:
            # A label that we may not take off keeps nothing from being stopped.
            await self._merge(engine.ROOT, root, stop)

    async def let_go(self, job: TrainingJob, live: LiveObjects) -> Steered:
        """Places the run as the job asks for, and lets it go."""
        steered = await self.place(job, live)
        engine = live.engine
        queue = queue_of(job)
        for root in live.roots:
            if engine.outcome(root) is not None:
                continue
            if _labels(root).get(LABEL_QUEUE) != queue:
                # Before it is resumed: a queue lets its label change on a suspended Job only.
                label: JsonObject = {"metadata": {"labels": {LABEL_QUEUE: queue}}}
                refused = await self._try(engine.ROOT, root, label)
                if refused:
                    steered = Steered(
                        steered.scheduling, "QueueRefused", _queue_words(root, queue, refused)
                    )
                if refused and not queue:
                    continue
            if queue is None and engine.is_suspended(root):
                if OWNERS[engine.OWNER.kind].WAITS_FOR_PODS and await self._has_pods(root):
                    steered = dataclasses.replace(steered, again=PODS_AGAIN)
                    continue
                await self._merge(engine.ROOT, root, engine.suspension(False))
        return steered

    async def _has_pods(self, root: Json) -> bool:
        """Whether pods of it are there, in whatever state."""
        labels = {k: v for k, v in _labels(root).items() if k in (LABEL_SEAL, LABEL_ROLE)}
        selector = ",".join(f"{k}={v}" for k, v in sorted(labels.items()))
        query = {"labelSelector": selector, "limit": "1"}
        page = await self._kube.request("GET", path_of("v1", "pods", _namespace(root)), query=query)
        return bool(json_objects(page.get("items")))

    async def place(self, job: TrainingJob, live: LiveObjects) -> Steered:
        """Places what can be placed now."""
        known = job.status.scheduling if job.status else None
        wanted = job.spec.scheduling or Scheduling()
        if known == wanted:
            return Steered(wanted)
        engine, owners = live.engine, OWNERS[live.engine.OWNER.kind]
        waiting: list[str] = []
        fixed: list[str] = []
        ending = True
        for role in job.spec.roles:
            owner = live.owners[role.name]
            if not owner or owners.outcome(owner) is not None:
                continue
            before, after = placement(role, known), placement(role, wanted)
            plans = []
            for kind, obj in live.placed(owner):
                at = engine.pods_at(obj, role.name)
                if not at:
                    continue
                spec = json_object(resolved(obj, at))
                plan = placing(before, after, spec).without(engine.FIXED)
                plans.append((kind, obj, at, spec, plan))
            fixed += plans[-1][-1].fixed
            if not any(plan.movable for *_, plan in plans):
                continue
            if not owners.is_idle(owner):
                waiting += plans[-1][-1].movable
                ending = ending and owners.is_suspended(owner)
                continue
            for kind, obj, at, spec, plan in plans:
                refused = await self._place(kind, obj, plan.operations(at, spec))
                if refused:
                    return Steered(known, "PlacementRefused", _refused_words(plan, refused))
        if waiting:
            return Steered(known, "PodsEnd" if ending else "NextStart", _waiting_words(waiting))
        if fixed:
            return Steered(known, "NextRun", _fixed_words(fixed))
        return Steered(wanted)

    async def _place(self, kind: ObjectKind, live: Json, operations: list[JsonValue]) -> str:
        if not operations:
            return ""
        uid: JsonObject = {"op": "test", "path": "/metadata/uid", "value": objects.uid_of(live)}
        try:
            await self._kube.patch(_path(kind, live), [uid, *operations], JSON_PATCH)
        except KubeError as error:
            if error.status not in REFUSALS:
                raise
            return error.message
        return ""

    async def _try(self, kind: ObjectKind, live: Json, change: JsonObject) -> str:
        """What the refusal says; empty where the change was made."""
        try:
            await self._merge(kind, live, change)
        except KubeError as error:
            if error.status not in REFUSALS:
                raise
            return error.message
        return ""

    async def _merge(self, kind: ObjectKind, live: Json, change: JsonObject) -> JsonObject:
        metadata = {"uid": objects.uid_of(live), **json_object(change.get("metadata"))}
        return await self._kube.patch(_path(kind, live), {**change, "metadata": metadata})


def queue_of(job: TrainingJob) -> str | None:
    """The queue that a run is to wait in, or None for a run that waits in none."""
    return job.spec.scheduling.queue_name if job.spec.scheduling else None


def _waiting_words(fields: Sequence[str]) -> str:
    return (
        f"spec.scheduling was changed while the run is on: {_names(fields)} counts from its next "
        "start on; to have it count now, suspend the job (spec.suspend) and resume it"
    )


def _fixed_words(fields: Sequence[str]) -> str:
    return (
        f"spec.scheduling was changed, and Kubernetes does not let {_names(fields)} of a Job "
        "change; for it to count, delete the TrainingJob and apply it again"
    )


def _refused_words(plan: Placing, refused: str) -> str:
    return (
        f"spec.scheduling was changed, and the API server does not let {_names(plan.movable)} of "
        f"the run's Job change: {refused}; before Kubernetes 1.36 it does so only until the first "
        "start. For it to count, delete the TrainingJob and apply it again"
    )


def _queue_words(live: Json, queue: str | None, refused: str) -> str:
    if queue:
        return f"the queue {queue} was refused: {refused}"
    return (
        f"the run is in the queue {_labels(live)[LABEL_QUEUE]}, which spec.scheduling.queueName "
        f"does not name, and cannot be taken out of it: {refused}"
    )


def _names(fields: Iterable[str]) -> str:
    return ", ".join(sorted(set(fields)))


def _path(kind: ObjectKind, live: Json) -> str:
    metadata = json_object(live.get("metadata"))
    return f"{objects.collection(kind.kind, _namespace(live))}/{metadata['name']}"


def _namespace(live: Json) -> str:
    return str(json_object(live.get("metadata"))["namespace"])


def _labels(live: Json) -> JsonObject:
    return json_object(json_object(live.get("metadata")).get("labels"))
