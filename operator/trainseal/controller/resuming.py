"""A suspended run goes on only if its job would be admitted today: policies may have changed, and
its checkpoints may be tainted by now.

Else a job could be parked: let in and suspended, and resumed when its ``notAfter`` is past, or when
the policy does not name its signer any more. It counts whoever suspended it, a queue too.
"""

from __future__ import annotations

from dataclasses import dataclass

from trainseal.api.model import API_VERSION, JsonObject
from trainseal.api.sealedrun import SealedRun
from trainseal.cluster.api import NotFoundError, path_of
from trainseal.controller import resumefrom, resumption
from trainseal.controller.world import World
from trainseal.provenance.canonical import CanonicalError
from trainseal.provenance.jobrules import RunFacts
from trainseal.provenance.requesters import Requester
from trainseal.provenance.sealedjobs import is_of, whole_job
from trainseal.provenance.verdicts import Outcome
from trainseal.verifier.storedtemplates import stored_template

#: Seconds until what found an obstacle is tried again.
AGAIN = 15.0
_VERIFY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why a run may not go on. ``refuted``: evidence was read and speaks against it."""

    words: str
    refuted: bool = False


async def live_job(world: World, sealed: SealedRun, namespace: str) -> JsonObject | Obstacle:
    """The run's TrainingJob as it is; an obstacle where it is not the one that was sealed. Raises
    KubeError.
    """
    name = sealed.spec.job.name
    try:
        job = await world.kube.get(path_of(API_VERSION, "trainingjobs", namespace, name))
        same = is_of(sealed, job)
    except NotFoundError:
        return Obstacle(f"TrainingJob {name} is gone")
    except CanonicalError as error:
        return Obstacle(f"TrainingJob {name}: {error}", refuted=True)
    if not same:
        return Obstacle(f"TrainingJob {name} is not the one that was sealed", refuted=True)
    return job


async def obstacle(
    world: World, sealed: SealedRun, namespace: str, job: JsonObject | None = None
) -> Obstacle | None:
    """Why the run may not go on; None where it may. ``job``: its ``live_job``, which is else
    read. Raises KubeError.
    """
    found = job or await live_job(world, sealed, namespace)
    if isinstance(found, Obstacle):
        return found
    job = found
    requester = sealed.spec.requester
    verification = await world.verifier.verify(
        job,
        world.policies(namespace),
        RunFacts(
            cluster=world.cluster,
            runs=sealed.spec.run - 1,
            requester=Requester(requester.username, frozenset(requester.groups or ())),
            template=await stored_template(world.kube, job),
        ),
        deadline=_VERIFY_SECONDS,
        broken=world.broken_policies(),
    )
    if verification.outcome is Outcome.VERIFIED:
        bar = await resumption.bar(world, namespace, whole_job(sealed, job), sealed.metadata.name)
        if bar is not None:
            return Obstacle(bar.words)
        tainted = await resumefrom.tainted_since(world, namespace, sealed)
        return None if tainted is None else Obstacle(tainted)
    words = "; ".join(v.sentence() for v in verification.denials)
    return Obstacle(
        f"verified again, the job is {verification.outcome.value}: {words}",
        refuted=verification.outcome is Outcome.REFUTED,
    )
