"""Pods of sealed runs as the API server has them, whole, by the seal that their label names.

What pods of a run have in common is kept once a run: thousands of workers cost little more than
their statuses. A pod that is gone stays for a while, so that its end can be explained.
"""

from __future__ import annotations

import hashlib
import sys
from collections import OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import dataclass

import orjson
from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.cluster.informer import Event
from trainseal.controller.disturbances import disturbed, uid_of
from trainseal.engines.podtemplate import LABEL_SEAL

Key = tuple[str, str]
#: Seconds for which a pod that went is remembered.
GONE_SECONDS = 120.0
#: Parts that a run's pods may share: a run has five of them for each role, and few roles.
_MOST_SHARED = 1024
_SHARED_PARTS = (
    "affinity", "containers", "initContainers", "securityContext", "tolerations", "volumes",
)  # fmt: skip
_METADATA = (
    "annotations", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "labels",
    "name", "namespace", "ownerReferences", "resourceVersion", "uid",
)  # fmt: skip
_STATUS = ("phase", "reason", "message")
_OF_A_CONTAINER = ("name", "imageID", "state", "lastState")


@dataclass(slots=True)
class Tracked:
    """A pod; times are seconds of the book's clock. ``gone`` is None while it is there."""

    pod: JsonObject
    appeared: float
    disturbed: float | None = None
    gone: float | None = None


class PodBook:
    """Fed by an informer; ``shape`` is for that informer. ``monotonic`` gives seconds."""

    def __init__(self, changed: Callable[[Key], None], monotonic: Callable[[], float]) -> None:
        self._changed = changed
        self._monotonic = monotonic
        self._pods: dict[Key, dict[str, Tracked]] = defaultdict(dict)
        self._seal_of: dict[str, Key] = {}
        self._shared: dict[Key, OrderedDict[bytes, JsonValue]] = defaultdict(OrderedDict)

    def shape(self, pod: JsonObject) -> JsonObject:
        """What is kept of a pod."""
        metadata, status = json_object(pod.get("metadata")), json_object(pod.get("status"))
        spec = json_object(pod.get("spec"))
        run = _seal_of(pod)
        kept: JsonObject = {k: status[k] for k in _STATUS if k in status}
        kept["conditions"] = [
            c for c in json_objects(status.get("conditions")) if c.get("type") == "DisruptionTarget"
        ]
        for kind in ("initContainerStatuses", "containerStatuses"):
            kept[kind] = [
                {k: c[k] for k in _OF_A_CONTAINER if k in c} for c in json_objects(status.get(kind))
            ]
        return {
            "metadata": {
                k: self._once(run, metadata[k])
                if k == "ownerReferences"
                else _interned(metadata[k])
                for k in _METADATA
                if k in metadata
            },
            "spec": {k: self._once(run, v) if k in _SHARED_PARTS else v for k, v in spec.items()},
            "status": _interned(kept),
        }

    def _once(self, run: Key, value: JsonValue) -> JsonValue:
        shared = self._shared[run]
        digest = hashlib.sha256(orjson.dumps(value, option=orjson.OPT_SORT_KEYS)).digest()
        found = shared.setdefault(digest, value)
        shared.move_to_end(digest)
        while len(shared) > _MOST_SHARED:
            shared.popitem(last=False)
        return found

    def listen(self, event: Event, key: tuple[str, str], obj: JsonObject) -> None:
        """The informer's listener."""
        seal, uid, now = (key[0], _seal_of(obj)[1]), uid_of(obj), self._monotonic()
        before = self._seal_of.get(uid, seal)
        if before != seal:  # somebody gave it another run's label
            self._pods[before].pop(uid, None)
            self._changed(before)
        self._seal_of[uid] = seal
        tracked = self._pods[seal].setdefault(uid, Tracked(obj, now))
        tracked.pod = obj
        if event == "DELETED":
            tracked.gone = now
        if tracked.disturbed is None and disturbed(obj):
            tracked.disturbed = now
        self._changed(seal)

    def of(self, seal: Key) -> list[Tracked]:
        """The pods that bear the seal's label, those that went a moment ago among them."""
        now, pods = self._monotonic(), self._pods.get(seal, {})
        for uid in [
            u for u, t in pods.items() if t.gone is not None and now - t.gone > GONE_SECONDS
        ]:
            del pods[uid]
            self._seal_of.pop(uid, None)
        if not pods:
            self._pods.pop(seal, None)
            self._shared.pop(seal, None)
        return list(pods.values())

    def seals(self) -> list[Key]:
        """All seals that pods name."""
        return list(self._pods)


def _seal_of(pod: JsonObject) -> Key:
    metadata = json_object(pod.get("metadata"))
    seal = json_object(metadata.get("labels")).get(LABEL_SEAL)
    return str(metadata.get("namespace")), str(seal)


def _interned(value: JsonValue) -> JsonValue:
    """The same with each text kept once: images, labels' values and times stand in many pods."""
    if isinstance(value, str):
        return sys.intern(value)
    if isinstance(value, list):
        return [_interned(item) for item in value]
    return {k: _interned(v) for k, v in value.items()} if isinstance(value, dict) else value
