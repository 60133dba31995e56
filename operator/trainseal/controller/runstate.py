"""One run as the API has it: its TrainingJob, its Jobs, and what these explain of its pods."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.api.sealedrun import SealedRun
from trainseal.cluster.api import Kube, path_of
from trainseal.controller import objects
from trainseal.controller.disturbances import RunState, timestamp
from trainseal.engines.catalogue import ENGINES, OWNERS
from trainseal.engines.job import seen_suspended
from trainseal.provenance.boundseals import BoundRole
from trainseal.provenance.memberships import shrunk
from trainseal.provenance.seals import BoundUid

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class LiveRun:
    """A sealed run. ``job`` is None where the TrainingJob is gone or going (``leaving_since`` then
    says since when); ``engines`` are the owners of pods of the bound names, by bound UID, and None
    where there is none; ``root`` is what these were made from, where that is another object, and
    ``above`` what else they were.
    """

    key: Key
    seal: JsonObject
    sealed: SealedRun
    roles: tuple[BoundRole, ...]
    job: JsonObject | None
    engines: dict[str, JsonObject | None]
    leaving_since: datetime | None = None
    root: JsonObject | None = None
    above: Mapping[BoundUid, JsonObject | None] = field(default_factory=dict)

    def stands(self, uid: str) -> bool:
        """Whether the bound object of this UID is there."""
        above = {bound.uid: obj for bound, obj in self.above.items()}
        live = self.root if uid == self.root_uid else (above | self.engines).get(uid)
        return live is not None and objects.uid_of(live) == uid

    @property
    def root_uid(self) -> str | None:
        """What the owners are bound as made from."""
        return next((r.root.uid for r in self.roles if r.root is not None), None)

    @property
    def epochs(self) -> list[JsonObject]:
        """The memberships that the seal tells of."""
        return json_objects(json_object(self.seal.get("status")).get("epochs"))

    @property
    def root_ended(self) -> bool:
        """Whether it has, or what was made of it: what still runs is then taken away."""
        engine = ENGINES[self.sealed.spec.engine]
        ends = [engine.outcome(self.root)] if self.root is not None else []
        for made in engine.BETWEEN:
            live = (obj for bound, obj in self.above.items() if bound.kind == made.ROOT.kind)
            ends += [made.outcome(obj) for obj in live if obj is not None]
        return any(end is not None for end in ends)


async def read_run(
    kube: Kube, key: Key, seal: JsonObject, sealed: SealedRun, roles: tuple[BoundRole, ...]
) -> LiveRun:
    """Reads the live objects of a run. Raises KubeError."""
    namespace = key[0]
    path = path_of("trainseal.dev/v1alpha1", "trainingjobs", namespace, sealed.spec.job.name)
    job = await objects.found(kube, path)
    if job is not None and objects.uid_of(job) != sealed.spec.job.uid:
        job = None
    leaving_since = None if job is None else _leaving_since(job)
    if leaving_since is not None:
        job = None
    engine = ENGINES[sealed.spec.engine]
    owners = objects.collection(engine.OWNER.kind, namespace)
    engines = {r.object_uid: await objects.found(kube, f"{owners}/{r.object_name}") for r in roles}
    root, above = None, {}
    for bound in {r.root for r in roles if r.root is not None}:
        root = await objects.found(kube, _path(bound, namespace))
    for bound in dict.fromkeys(item for r in roles for item in r.above):
        above[bound] = await objects.found(kube, _path(bound, namespace))
    return LiveRun(key, seal, sealed, roles, job, engines, leaving_since, root, above)


def _path(bound: BoundUid, namespace: str) -> str:
    return f"{objects.collection(bound.kind, namespace)}/{bound.name}"


def state_of(run: LiveRun, uid: str | None = None) -> RunState:
    """What explains the end of the pods of one of the run's objects; without ``uid`` only what
    holds for all of them.
    """
    requester = run.sealed.spec.requester.username
    completed = run.sealed.status.completion_time if run.sealed.status else None
    if uid is None:
        return RunState(requester, completed=completed)
    live = run.engines.get(uid) or {}
    going = [t for t in (run.leaving_since, _leaving_since(live)) if t is not None]
    owners = OWNERS[ENGINES[run.sealed.spec.engine].OWNER.kind]
    status = json_object(live.get("status"))
    return RunState(
        requester,
        leaving=(run.job is None and run.leaving_since is None) or not run.stands(uid),
        leaving_since=max(going, default=None),
        over=owners.is_ending(live),
        # One that was resumed has no new start until its controller says so: its pods of before
        # went because it was suspended.
        suspended=owners.is_suspended(live) or seen_suspended(status),
        started=timestamp(status.get("startTime")),
        completed=completed,
        shrunk=shrunk(run.epochs, next((r.role for r in run.roles if r.object_uid == uid), "")),
    )


def _leaving_since(obj: JsonObject) -> datetime | None:
    return timestamp(json_object(obj.get("metadata")).get("deletionTimestamp"))
