"""An elastic run brought to the size that ``spec.scheduling.replicas`` chooses within its seal.

1. A choice that differs from the members makes the next epoch: signed with the binding, and told in
   the seal's ``epochs`` with who chose it, where the webhook's note says so. No pod comes or goes
   before that.
2. Then ``completions`` and ``parallelism`` of the role's Job are changed together, which an Indexed
   Job allows while both are equal. The Job controller takes away the pods of the highest indexes,
   or makes more.
3. A number that no epoch said is somebody's change of the Job: it is told, found (``comparing``),
   and left until the next epoch.
4. A run that is held keeps its members: to scale it down would take away what is to be looked at.

Epochs are half a minute apart, so that the few that the seal tells of reach back further than the
end of a pod is remembered (``podbook``). The archive has them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from trainseal.api.model import API_VERSION, JsonObject, json_object
from trainseal.api.sealedrun import MAX_EPOCHS, Epoch, SealedRun
from trainseal.api.trainingjob import Scheduling, TrainingJob
from trainseal.cluster.api import KubeError, path_of
from trainseal.controller import objects
from trainseal.controller.liveobjects import LiveObjects
from trainseal.controller.steering import REFUSALS, Steered
from trainseal.controller.world import World
from trainseal.provenance import memberships
from trainseal.provenance.choosers import CHOICE_ANNOTATION, read_choice
from trainseal.provenance.keyrings import UntrustedError, rfc3339
from trainseal.provenance.memberships import Membership
from trainseal.provenance.sealedjobs import asked_digest
from trainseal.provenance.seals import BoundUid, bind

#: Seconds between two epochs of a run.
EPOCH_SECONDS = 30.0
#: A note is older than the epoch before it by no more than what was under way.
_NOTE_LATE = timedelta(seconds=60)
#: Seconds until a choice is tried again that the API server, or somebody, would not have.
_REFUSED_AGAIN = 60.0
_SOON = (
    "spec.scheduling.replicas was changed and counts in a moment: a run is scaled at most every "
    f"{EPOCH_SECONDS:.0f} s"
)
_HELD = (
    "spec.scheduling.replicas was changed while the run is held; it counts once the hold is lifted"
)


@dataclass(frozen=True, slots=True)
class Elastic:
    """An elastic run: its TrainingJob as it is and whole; its seal, with ``spec`` as it is stored,
    and what this is bound to since when; its membership and all that are told; its Jobs.
    """

    obj: JsonObject
    job: TrainingJob
    sealed: SealedRun
    spec: JsonObject
    bound: Sequence[BoundUid]
    bound_at: datetime
    membership: Membership
    epochs: Sequence[Epoch]
    live: LiveObjects


@dataclass(frozen=True, slots=True)
class Scaled:
    """How large the run is now. ``members`` is by elastic role; ``foreign`` says of Jobs what
    somebody made of them; ``reason`` and ``message`` say why a choice does not count yet.
    """

    members: Mapping[str, int] = field(default_factory=dict)
    foreign: tuple[str, ...] = ()
    reason: str = ""
    message: str = ""
    again: float | None = None

    def over(self, steered: Steered, known: Scheduling | None) -> Steered:
        """How far ``spec.scheduling`` counts, with its ``replicas``; ``known``: what it went by."""
        if not self.reason:
            return steered
        went = (known or Scheduling()).replicas
        goes = steered.scheduling or Scheduling()
        return Steered(
            goes.model_copy(update={"replicas": went}),
            steered.reason if steered.message else self.reason,
            steered.message or self.message,
        )


class Scaling:
    """Scales runs. Raises KubeError where the API server cannot be asked."""

    def __init__(self, world: World) -> None:
        self._world = world

    def first(self, job: TrainingJob, sealed: SealedRun) -> Membership | None:
        """The members with which a run is bound; None where no role is elastic."""
        ranges = memberships.ranges_of(sealed.spec)
        if not ranges:
            return None
        wanted, _ = _wanted(job, sealed, memberships.chosen(ranges, {}))
        return Membership(1, wanted, rfc3339(self._world.clock()))

    def fixed(self, job: TrainingJob, sealed: SealedRun) -> Scaled:
        """Of a run without elastic roles, such as one that an earlier release has sealed."""
        asked = _asked(job)
        other = [r for r in sealed.spec.roles if asked.get(r.name, r.replicas) != r.replicas]
        if not other:
            return Scaled()
        sizes = memberships.in_words({r.name: r.replicas for r in other})
        words = (
            f"spec.scheduling.replicas cannot count for this run, which was sealed with {sizes}; "
            "for it to count, delete the TrainingJob and apply it again"
        )
        return Scaled(reason="NextRun", message=words)

    async def bring_about(self, run: Elastic, *, held: bool) -> Scaled:
        """Signs the next epoch where one is due, and makes the Jobs as large as it says."""
        membership = run.membership
        if all(run.live.outcomes()):
            return Scaled(membership.members)
        wanted, faults = _wanted(run.job, run.sealed, membership.members)
        late = Scaled(reason="ScalingOutOfRange", message=faults) if faults else Scaled()
        if wanted != membership.members and held:
            late = Scaled(reason="ScalingHeld", message=_HELD)
        elif wanted != membership.members:
            wait = self._wait(run.epochs)
            if wait <= 0:
                return await self.fit(await self._next(run, wanted), anew=True)
            late = Scaled(reason="NextEpoch", message=_SOON, again=wait)
        fitted = await self.fit(run)
        return Scaled(
            fitted.members,
            fitted.foreign,
            fitted.reason or late.reason,
            fitted.message or late.message,
            fitted.again or late.again,
        )

    async def fit(self, run: Elastic, *, anew: bool = False) -> Scaled:
        """Makes each elastic role's Job as large as the epoch says; ``anew``: whatever it is."""
        membership, told = run.membership, [epoch.wire() for epoch in run.epochs]
        foreign = []
        for role in run.sealed.spec.roles:
            count, owner = membership.members.get(role.name), run.live.owners.get(role.name)
            if count is None or not owner or run.live.engine.outcome(owner) is not None:
                continue
            spec = json_object(owner.get("spec"))
            has = (spec.get("completions"), spec.get("parallelism"))
            if has == (count, count):
                continue
            # It is rendered at its most.
            known = {role.replicas, *memberships.sizes_told(told, role.name)}
            if not anew and (has[0] != has[1] or has[0] not in known):
                foreign.append(
                    f"Job {role.object_name} is not what was sealed: found completions {has[0]} "
                    f"and parallelism {has[1]}, expected {count}, as epoch {membership.epoch} says"
                )
            elif refused := await self._resize(owner, count):
                words = (
                    f"epoch {membership.epoch} says {memberships.in_words(membership.members)}, "
                    f"and the API server does not let Job {role.object_name} change: {refused}"
                )
                return Scaled(
                    membership.members, tuple(foreign), "ScalingRefused", words, _REFUSED_AGAIN
                )
        return Scaled(membership.members, tuple(foreign))

    def chooser(self, obj: JsonObject, sealed: SealedRun) -> str | None:
        """Who chose what the job says now, where the webhook noted it; None where nothing is
        noted, or it is of another choice or of an earlier time.
        """
        metadata = json_object(obj.get("metadata"))
        text = json_object(metadata.get("annotations")).get(CHOICE_ANNOTATION)
        if not isinstance(text, str):
            return None
        asked = memberships.asked_replicas(json_object(obj.get("spec")))
        try:
            digest = asked_digest(sealed.spec.wire())
            choice = read_choice(self._world.ticket_keyring(), text, digest, asked)
        except UntrustedError:
            return None
        epochs = sealed.status.epochs if sealed.status else None
        # What was noted before this is none that is to be signed now.
        since = epochs[-1].since if epochs else sealed.spec.requester.time
        return choice.username if since - choice.time <= _NOTE_LATE else None

    def _wait(self, epochs: Sequence[Epoch]) -> float:
        """Seconds until the next epoch may come."""
        if not epochs:
            return 0.0
        return EPOCH_SECONDS - (self._world.clock() - epochs[-1].since).total_seconds()

    async def _next(self, run: Elastic, wanted: Mapping[str, int]) -> Elastic:
        """The run once its next epoch is signed."""
        world, metadata = self._world, run.sealed.metadata
        before = run.membership
        membership = Membership(before.epoch + 1, wanted, rfc3339(world.clock()))
        binding = bind(
            world.seal_key,
            namespace=metadata.namespace,
            name=metadata.name,
            spec=run.spec,
            objects=tuple(run.bound),
            now=run.bound_at,
            membership=membership,
        )
        user = self.chooser(run.obj, run.sealed)
        told = [*(epoch.wire() for epoch in run.epochs), membership.told(user)][-MAX_EPOCHS:]
        path = path_of(API_VERSION, "sealedruns", metadata.namespace, f"{metadata.name}/status")
        await world.kube.patch(path, {"status": {"binding": binding, "epochs": [*told]}})
        await world.event(
            run.obj,
            warning=False,
            reason="Scaled",
            message=f"epoch {membership.epoch}: {memberships.in_words(wanted)}; before "
            f"{memberships.in_words(before.members)}" + (f"; chosen by {user}" if user else ""),
            occasion=str(membership.epoch),
        )
        epochs = tuple(map(Epoch.model_validate, told))
        return replace(run, membership=membership, epochs=epochs)

    async def _resize(self, owner: JsonObject, count: int) -> str:
        """Why the Job is not changed; empty where it is."""
        metadata = json_object(owner.get("metadata"))
        path = objects.collection("Job", str(metadata["namespace"]))
        change: JsonObject = {
            "metadata": {"uid": objects.uid_of(owner)},
            "spec": {"completions": count, "parallelism": count},
        }
        try:
            await self._world.kube.patch(f"{path}/{metadata['name']}", change)
        except KubeError as error:
            if error.status not in REFUSALS:
                raise
            return error.message
        return ""


def _wanted(
    job: TrainingJob, sealed: SealedRun, present: Mapping[str, int]
) -> tuple[Mapping[str, int], str]:
    """The members that are chosen; where the choice cannot count, the present ones, and why."""
    asked = _asked(job)
    faults = [*memberships.choice_faults(asked, memberships.sizes_of_seal(sealed.spec.wire()))]
    if faults:
        return present, "; ".join(map(str, faults))
    return memberships.chosen(memberships.ranges_of(sealed.spec), asked), ""


def _asked(job: TrainingJob) -> Mapping[str, int]:
    return (job.spec.scheduling.replicas if job.spec.scheduling else None) or {}
