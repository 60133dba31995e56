"""Asks what a job would go on from, and whether that is tainted. Reads claims alone."""

from __future__ import annotations

from trainseal.api.model import JsonObject
from trainseal.api.sealedrun import EarlierRun
from trainseal.api.trainingjob import TrainingJob
from trainseal.cluster.api import Kube, NotFoundError, path_of
from trainseal.controller.taintedvolumes import Bar, Place, mounted, place_of
from trainseal.controller.world import World

REASON = "TaintedCheckpoint"
#: Seconds until it is looked again at what will be told in a moment; at what a person must do.
WAITING_AGAIN = 1.0
BARRED_AGAIN = 30.0


async def bar(world: World, namespace: str, job: TrainingJob, run: str) -> Bar | None:
    """What keeps the job from going on now, as this run; None where nothing does.

    Where no policy of the namespace enforces, nothing does either. Raises KubeError where a claim
    cannot be read.
    """
    if not world.volumes.matter() or not _enforced(world, namespace):
        return None
    return world.volumes.bar(await _places(world, namespace, job, run))


async def earlier(
    world: World, namespace: str, job: TrainingJob, run: str
) -> list[EarlierRun] | Bar:
    """The runs that the job could go on from, as a seal names them; or what keeps it from starting.

    Until all checkpoints are known that is so under every policy: a seal names them whatever the
    policies do. Raises KubeError where a claim cannot be read.
    """
    places = await _places(world, namespace, job, run)
    found = world.volumes.bar(places)
    if found is not None and (_enforced(world, namespace) or not world.volumes.known):
        return found
    return world.volumes.earlier(places)


def _enforced(world: World, namespace: str) -> bool:
    return any(policy.mode == "Enforce" for policy in world.policies(namespace))


async def _places(world: World, namespace: str, job: TrainingJob, run: str) -> list[Place]:
    claims: dict[str, JsonObject | None] = {}
    places = []
    for claim, path in mounted(job, run):
        if claim not in claims:
            claims[claim] = await read_claim(world.kube, namespace, claim)
        places.append(place_of(namespace, claim, path, claims[claim]))
    return places


async def read_claim(kube: Kube, namespace: str, name: str) -> JsonObject | None:
    """The claim, None where there is none. Raises KubeError."""
    try:
        return await kube.get(path_of("v1", "persistentvolumeclaims", namespace, name))
    except NotFoundError:
        return None
