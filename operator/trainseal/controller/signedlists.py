"""Keeps, for each run whose gates ask for it, the signed list of what its checkpoints are.

Called with each look at a run, after its manifests were judged. The list is made anew where the
manifests are others than before, and now and then looked at: an editor may have deleted it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from trainseal.api.model import JsonObject, json_object
from trainseal.api.sealedrun import SealedRun
from trainseal.cluster.api import JSON_PATCH, ConflictError
from trainseal.controller.objects import collection, found, owned_by, uid_of
from trainseal.controller.runmanifests import manifests_of
from trainseal.controller.world import World
from trainseal.engines.podtemplate import asks_for_list
from trainseal.engines.surroundings import owned_metadata
from trainseal.provenance.checkpointmanifests import verify
from trainseal.provenance.keyrings import UntrustedError
from trainseal.provenance.signedfiles import KEY, Said, files_of, list_name, said_by, says, sign

Key = tuple[str, str]
#: It is looked whether the list is still there; and so long one stands at least: each of hundreds
#: of workers may tell of its part of a checkpoint.
_LOOKED_AGAIN, _PACE = timedelta(minutes=5), timedelta(seconds=20)


@dataclass(slots=True)
class SignedLists:
    """Of all runs."""

    world: World
    _stand: dict[Key, tuple[int, datetime]] = field(default_factory=dict)

    async def keep(self, key: Key, sealed: SealedRun, shapes: Sequence[JsonObject]) -> float | None:
        """The list of one run, whose manifests are these; returns seconds until it wants to be
        made again. Raises KubeError.
        """
        if not any(asks_for_list(role.template) for role in sealed.spec.roles):
            return None
        now = self.world.clock()
        versions = hash(frozenset((_of(s, "name"), _of(s, "resourceVersion")) for s in shapes))
        stands = self._stand.get(key)
        if stands is not None and now - stands[1] < _PACE:
            return None if stands[0] == versions else (_PACE - (now - stands[1])).total_seconds()
        if stands is None or stands[0] != versions or now - stands[1] >= _LOOKED_AGAIN:
            await self._put(key, sealed)
            self._stand[key] = versions, now
        return None

    def forget(self, key: Key) -> None:
        """The run is over."""
        self._stand.pop(key, None)

    async def _put(self, key: Key, sealed: SealedRun) -> None:
        world, (namespace, run) = self.world, key
        ring = world.seal_keyring()
        manifests: list[Said] = []
        async for obj in manifests_of(world.kube, namespace, run):
            try:
                verify(ring, obj)
            except UntrustedError:
                continue
            manifests.append(said_by(obj))
        files, name = files_of(manifests), list_name(run)
        path = collection("ConfigMap", namespace)
        there = await found(world.kube, f"{path}/{name}")
        job = sealed.spec.job
        if there is not None:
            text = str(json_object(there.get("data")).get(KEY))
            if not owned_by(there, job.uid) or says(ring, namespace, run, text, files):
                return
        text = sign(world.seal_key, namespace, run, files, world.clock())
        if there is None:
            wanted: JsonObject = {
                "apiVersion": "v1",
                "kind": "ConfigMap",
                "metadata": owned_metadata(namespace, name, job.name, job.uid, run),
                "data": {KEY: text},
            }
            try:
                await world.kube.create(path, wanted)
            except ConflictError:
                return  # made this moment by somebody; the next look sees by whom
        else:
            await world.kube.patch(
                f"{path}/{name}",
                [
                    {"op": "test", "path": "/metadata/uid", "value": uid_of(there)},
                    {"op": "add", "path": "/data", "value": {KEY: text}},
                ],
                JSON_PATCH,
            )


def _of(shape: JsonObject, field_: str) -> str:
    return str(json_object(shape.get("metadata")).get(field_))
