"""How many pods and GPUs a lane holds in a namespace, counted over all replicas of the webhook.

Pods that are there are listed; those that were let in and are not there yet stand in ConfigMap
``trainseal-lanes`` for as long as the API server may take to store them. That object is replaced
under its resource version, so that of two replicas which would give the last place away, one reads
again. A pod that is refused afterwards by somebody else, or deleted at once, keeps its place for as
long.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from trainseal.admission.reviews import meta
from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.api.policylanes import LABEL_LANE
from trainseal.cluster.api import ConflictError, Kube, path_of
from trainseal.provenance.lanes import Lane, gpus

CONFIG_MAP = "trainseal-lanes"
#: After our answer other webhooks have 30 s at most (admissionregistration/v1, timeoutSeconds).
_KEPT_SECONDS = 35.0
_CALL_SECONDS = 2.0
_TRIES = 5
#: What has ended holds nothing.
_HOLDS = "status.phase!=Succeeded,status.phase!=Failed"


class CrowdedError(Exception):
    """Others wrote each time before we did; try again."""


@dataclass(frozen=True, slots=True)
class Place:
    """What one pod takes of a lane, by the pod's name."""

    namespace: str
    pod: str
    gpus: int


class LaneBook:
    """Gives the places of lanes away; ``now`` is in seconds since 1970, the same for replicas."""

    def __init__(
        self, kube: Kube, home: str, is_gpu: Callable[[str], bool], now: Callable[[], float]
    ) -> None:
        self._kube = kube
        self._path = path_of("v1", "configmaps", home, CONFIG_MAP)
        self._is_gpu = is_gpu
        self._now = now
        self._turn = asyncio.Lock()

    async def take(self, place: Place, lane: Lane, *, dry_run: bool) -> str:
        """Takes a place; why there is none, else nothing. Raises KubeError or CrowdedError."""
        async with self._turn:
            for _ in range(_TRIES):
                # First what was promised, then what is there: what is in neither does not come.
                book = await self._kube.get(self._path, seconds=_CALL_SECONDS)
                there = await self._there(place.namespace, lane.name)
                data = self._promised(json_object(book.get("data")))
                key = f"{place.namespace}.{lane.name}"
                promised = data.get(key, {})
                held = {
                    **{name: of[0] for name, of in promised.items()},
                    **there,
                }
                held.pop(place.pod, None)
                if said := _full(held, place, lane):
                    return said
                if dry_run:
                    return ""
                data[key] = {
                    **{name: of for name, of in promised.items() if name not in there},
                    place.pod: (place.gpus, self._now() + _KEPT_SECONDS),
                }
                written: JsonObject = {k: json.dumps(v) for k, v in data.items()}
                try:
                    await self._kube.replace(self._path, {**book, "data": written})
                except ConflictError:
                    continue
                return ""
        raise CrowdedError("others took places of lanes at the same moment")

    async def _there(self, namespace: str, lane: str) -> dict[str, int]:
        """GPUs of the lane's pods that have not ended, by name."""
        found = await self._kube.request(
            "GET",
            path_of("v1", "pods", namespace),
            query={"labelSelector": f"{LABEL_LANE}={lane}", "fieldSelector": _HOLDS},
            seconds=_CALL_SECONDS,
        )
        return {
            str(meta(pod).get("name")): gpus(pod, self._is_gpu)
            for pod in json_objects(found.get("items"))
        }

    def _promised(self, data: JsonObject) -> dict[str, dict[str, tuple[int, float]]]:
        """What was let in lately: GPUs, and until when that counts, by lane and pod.

        Raises ValueError where somebody else wrote there.
        """
        now, found = self._now(), {}
        for key, text in data.items():
            pods = {
                name: (int(held), float(until))
                for name, (held, until) in json.loads(str(text)).items()
                if float(until) > now
            }
            if pods:
                found[key] = pods
        return found


def _full(held: Mapping[str, int], place: Place, lane: Lane) -> str:
    named = ", ".join(sorted(held)[:3]) + (", …" if len(held) > 3 else "")
    if len(held) >= lane.max_pods:
        return f"found {len(held)} pods in it ({named}), expected at most {lane.max_pods}"
    total = sum(held.values())
    if total + place.gpus > lane.max_gpus:
        return (
            f"found {total} GPUs held in it ({named}) and {place.gpus} asked for, expected at most "
            f"{lane.max_gpus}"
        )
    return ""
