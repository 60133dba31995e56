"""The Jobs of a run, steered: suspended, resumed or left to a queue, and placed.

1. Where the user or a hold wants it, a Job is suspended and bears no queue's label, so that no
   queue resumes it. Once our admission check keeps it out of its queue, it bears the label again:
   without it, Kueue would count its quota as taken for as long as the Job is there.
2. Else it bears the label of ``scheduling.queueName``. With a queue, the queue alone resumes the
   Job, and may suspend it; without one, we resume whatever is suspended. A label that we may not
   take off, as where Kueue has a default queue, stays the queue's word.
3. While it is suspended and has no pods, it is placed as ``spec.scheduling`` says.

What the API server, or a webhook behind it, refuses of 2 and 3 is told and keeps nothing else from
being done.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.api.trainingjob import Scheduling, TrainingJob
from trainseal.cluster.api import JSON_PATCH, Kube, KubeError
from trainseal.controller import objects
from trainseal.controller.placing import Placing, placing
from trainseal.controller.progress import Progress
from trainseal.controller.world import no_queue
from trainseal.engines import job as engine
from trainseal.engines.job import LABEL_QUEUE
from trainseal.engines.podtemplate import placement

Json = Mapping[str, JsonValue]
#: Answers that mean no, not now: a request that is malformed here, forbidden or not valid.
_REFUSALS = frozenset({400, 403, 422})


@dataclass(frozen=True, slots=True)
class Steered:
    """How far ``spec.scheduling`` counts, for status. ``scheduling``: what the run goes by now."""

    scheduling: Scheduling | None
    reason: str = "AsScheduled"
    message: str = ""

    def tell(self, progress: Progress) -> None:
        """Sets the condition ``Placed`` and the field."""
        progress.wants("Placed", not self.message, self.reason, self.message)
        if self.scheduling is not None:
            progress.fields["scheduling"] = self.scheduling.wire()


class Steering:
    """Steers Jobs. Raises KubeError where the API server cannot be asked."""

    def __init__(
        self, kube: Kube, kept_by: Callable[[str, str], Awaitable[str]] = no_queue
    ) -> None:
        """``kept_by``: see ``World``."""
        self._kube = kube
        self._kept_by = kept_by

    async def hold(self, live: Json) -> None:
        """Suspends the Job, out of reach of a queue; one that has ended is left as it is."""
        if engine.outcome(live) is not None:
            return
        stop: JsonObject = {} if is_suspended(live) else {"spec": {"suspend": True}}
        # What runs is stopped first, and out of reach: the queue may not know yet.
        queue = "" if stop else await self._kept_by(_namespace(live), objects.uid_of(live))
        label: JsonObject = {}
        if _labels(live).get(LABEL_QUEUE, "") != queue:
            label = {"metadata": {"labels": {LABEL_QUEUE: queue or None}}}
        if not stop and not label:
            return
        if await self._try(live, {**stop, **label}) and stop:
            # A label that we may not take off keeps nothing from being stopped.
            await self._merge(live, stop)

    async def let_go(self, job: TrainingJob, jobs: Mapping[str, JsonObject]) -> Steered:
        """Places the Jobs, by role, as the job asks for, and lets them run."""
        steered = await self.place(job, jobs)
        queue = job.spec.scheduling.queue_name if job.spec.scheduling else None
        for live in jobs.values():
            if engine.outcome(live) is not None:
                continue
            if _labels(live).get(LABEL_QUEUE) != queue:
                # Before it is resumed: a queue lets its label change on a suspended Job only.
                refused = await self._try(live, {"metadata": {"labels": {LABEL_QUEUE: queue}}})
                if refused:
                    steered = Steered(
                        steered.scheduling, "QueueRefused", _queue_words(live, queue, refused)
                    )
                if refused and not queue:
                    continue
            if queue is None and is_suspended(live):
                await self._merge(live, {"spec": {"suspend": False}})
        return steered

    async def place(self, job: TrainingJob, jobs: Mapping[str, JsonObject]) -> Steered:
        """Places the Jobs that can be placed now."""
        known = job.status.scheduling if job.status else None
        wanted = job.spec.scheduling or Scheduling()
        if known == wanted:
            return Steered(wanted)
        waiting: list[str] = []
        fixed: list[str] = []
        ending = True
        for role in job.spec.roles:
            live = jobs[role.name]
            if engine.outcome(live) is not None:
                continue
            spec = _pods_spec(live)
            plan = placing(placement(role, known), placement(role, wanted), spec)
            fixed += plan.fixed
            if not plan.movable:
                continue
            if not _idle(live):
                waiting += plan.movable
                ending = ending and is_suspended(live)
                continue
            refused = await self._place(live, plan, spec)
            if refused:
                return Steered(known, "PlacementRefused", _refused_words(plan, refused))
        if waiting:
            return Steered(known, "PodsEnd" if ending else "NextStart", _waiting_words(waiting))
        if fixed:
            return Steered(known, "NextRun", _fixed_words(fixed))
        return Steered(wanted)

    async def _place(self, live: Json, plan: Placing, spec: Json) -> str:
        uid: JsonObject = {"op": "test", "path": "/metadata/uid", "value": objects.uid_of(live)}
        patch: list[JsonValue] = [uid, *plan.operations(spec)]
        try:
            await self._kube.patch(_path(live), patch, JSON_PATCH)
        except KubeError as error:
            if error.status not in _REFUSALS:
                raise
            return error.message
        return ""

    async def _try(self, live: Json, change: JsonObject) -> str:
        """What the refusal says; empty where the change was made."""
        try:
            await self._merge(live, change)
        except KubeError as error:
            if error.status not in _REFUSALS:
                raise
            return error.message
        return ""

    async def _merge(self, live: Json, change: JsonObject) -> None:
        metadata = {"uid": objects.uid_of(live), **json_object(change.get("metadata"))}
        await self._kube.patch(_path(live), {**change, "metadata": metadata})


def stands_still(jobs: Iterable[Json]) -> bool:
    """Whether a Job is suspended that has not ended: what lets it go on starts it anew."""
    return any(is_suspended(live) and engine.outcome(live) is None for live in jobs)


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


def _path(live: Json) -> str:
    metadata = json_object(live.get("metadata"))
    return f"{objects.collection('Job', _namespace(live))}/{metadata['name']}"


def _namespace(live: Json) -> str:
    return str(json_object(live.get("metadata"))["namespace"])


def _labels(live: Json) -> JsonObject:
    return json_object(json_object(live.get("metadata")).get("labels"))


def is_suspended(live: Json) -> bool:
    """Whether the Job is."""
    return bool(json_object(live.get("spec")).get("suspend"))


def _pods_spec(live: Json) -> JsonObject:
    template = json_object(json_object(live.get("spec")).get("template"))
    return json_object(template.get("spec"))


def _idle(live: Json) -> bool:
    """Whether the Job is suspended and the Job controller has taken its pods away."""
    status = json_object(live.get("status"))
    stopped = status.get("startTime") is None or any(
        c.get("type") == "Suspended" and c.get("status") == "True"
        for c in json_objects(status.get("conditions"))
    )
    return is_suspended(live) and stopped and not status.get("active")
