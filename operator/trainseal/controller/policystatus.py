"""Says on each ProvenancePolicy and TrustRoot whether it can be used: the condition ``Ready``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime

from trainseal.api.model import API_VERSION, JsonObject
from trainseal.cluster.api import Kube, KubeError, NotFoundError, path_of
from trainseal.cluster.informer import Event, Listener
from trainseal.controller import conditions
from trainseal.controller.conditions import Wanted
from trainseal.verifier.policystore import PolicyStore

_log = logging.getLogger(__name__)
POLICIES = "provenancepolicies"
ROOTS = "trustroots"
_PAUSE_SECONDS = 5.0


class PolicyStatus:
    """Writes the condition after the store has taken an object in."""

    def __init__(self, kube: Kube, store: PolicyStore, clock: Callable[[], datetime]) -> None:
        self._kube = kube
        self._store = store
        self._clock = clock
        self._objects: dict[tuple[str, str], JsonObject] = {}
        self._changed = asyncio.Event()

    def listener(self, plural: str) -> Listener:
        """A listener for one of the two kinds: the store's, and then ours."""
        into = self._store.on_policy if plural == POLICIES else self._store.on_trust_root

        def listen(event: Event, key: tuple[str, str], obj: JsonObject) -> None:
            into(event, key, obj)
            if event == "DELETED":
                self._objects.pop((plural, key[1]), None)
            else:
                self._objects[plural, key[1]] = obj
            self._changed.set()

        return listen

    async def run(self) -> None:
        """Writes for ever, whenever something changed; what fails is tried again."""
        while True:
            await self._changed.wait()
            self._changed.clear()
            for (plural, name), obj in tuple(self._objects.items()):
                try:
                    await self._write(plural, name, obj)
                except NotFoundError:
                    continue
                except KubeError as error:
                    _log.warning("status of %s %s: %s", plural, name, error)
                    await asyncio.sleep(_PAUSE_SECONDS)
                    self._changed.set()

    async def _write(self, plural: str, name: str, obj: JsonObject) -> None:
        metadata, status = obj.get("metadata"), conditions.status_of(obj)
        found = metadata.get("generation") if isinstance(metadata, dict) else None
        generation = found if isinstance(found, int) else 0
        merged = conditions.merge(
            status.get("conditions"), [self._ready(plural, name)], generation, self._clock()
        )
        wanted: JsonObject = {"observedGeneration": generation, "conditions": merged}
        if {k: status.get(k) for k in wanted} != wanted:
            path = path_of(API_VERSION, plural, None, f"{name}/status")
            await self._kube.patch(path, {"status": wanted})

    def _ready(self, plural: str, name: str) -> Wanted:
        if plural == POLICIES:
            why = next((b.why for b in self._store.broken if b.name == name), None)
            if why is None:
                return Wanted("Ready", "True", "Compiled", "the policy is in use")
            return Wanted("Ready", "False", "NotUsable", why)
        _, root = self._store.trust_roots.get(name, ("", "not read yet"))
        if isinstance(root, str):
            return Wanted("Ready", "False", "NotUsable", root)
        return Wanted("Ready", "True", "Loaded", "the trust root is in use")
