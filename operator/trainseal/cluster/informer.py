"""A collection of objects kept in memory: listed once, then watched.

``synced`` is set after the first list and never cleared: after a broken watch the last known
state stands until the next list, and ``current`` says so meanwhile. Objects are plain JSON and
are replaced whole, never changed in place. Who wrote which field (``managedFields``) nobody reads,
and it can be more than all else: it is dropped here.

With ``keep=False`` nothing is kept: the listener is told each object of each list anew, as ADDED,
and of what was deleted only where the watch says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from typing import Literal

from trainseal.api.model import JsonObject
from trainseal.cluster.api import GoneError, Kube, KubeError

Event = Literal["ADDED", "MODIFIED", "DELETED"]
#: Called with the event, the key and the object (as it was, for DELETED).
Listener = Callable[[Event, tuple[str, str], JsonObject], None]

#: What is kept of an object: at least its name, namespace and resource version.
Shape = Callable[[JsonObject], JsonObject]

_log = logging.getLogger(__name__)
#: A page of pods is read whole before what nobody needs is dropped: 27 KiB each.
_PAGE = 200
_LONGEST_PAUSE = 15.0


class Informer:
    """One collection; ``run`` keeps it current until cancelled."""

    def __init__(
        self,
        kube: Kube,
        path: str,
        *,
        listener: Listener | None = None,
        query: Mapping[str, str] | None = None,
        shape: Shape = lambda item: item,
        keep: bool = True,
    ) -> None:
        self._keep = keep
        self._kube = kube
        self._path = path
        self._query = dict(query or {})
        self._listener = listener
        self._shape = shape
        self._objects: dict[tuple[str, str], JsonObject] = {}
        self.synced = asyncio.Event()
        #: Whether the watch goes on: what there is, is known, but for what is just on its way.
        self.current = False

    @property
    def objects(self) -> Mapping[tuple[str, str], JsonObject]:
        """All objects by (namespace, name); cluster-scoped ones under an empty namespace."""
        return self._objects

    def get(self, namespace: str, name: str) -> JsonObject | None:
        """One object as last seen."""
        return self._objects.get((namespace, name))

    async def run(self) -> None:
        """Lists and watches for ever; errors are logged and tried again with growing pauses."""
        pause = 0.2
        while True:
            try:
                version = await self._list()
                self.synced.set()
                self.current = True
                pause = 0.2
                while True:
                    version = await self._watch(version)
            except GoneError:
                self.current = False
                continue
            except KubeError as error:
                self.current = False
                _log.warning("watching %s: %s; trying again", self._path, error)
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _list(self) -> str:
        seen: dict[tuple[str, str], JsonObject] = {}
        query = {**self._query, "limit": str(_PAGE)}
        while True:
            page = await self._kube.request("GET", self._path, query=query, seconds=30)
            items = page.get("items")
            for item in items if isinstance(items, list) else ():
                if isinstance(item, dict) and self._keep:
                    seen[_key(item)] = self._kept(item)
                elif isinstance(item, dict):
                    self._tell("ADDED", _key(item), self._kept(item))
            metadata = page.get("metadata")
            found = metadata if isinstance(metadata, dict) else {}
            token = found.get("continue")
            if not token:
                break
            query["continue"] = str(token)
        for key in [k for k in self._objects if k not in seen]:
            self._tell("DELETED", key, self._objects.pop(key))
        for key, item in seen.items():
            before = self._objects.get(key)
            self._objects[key] = item
            if before is None or _version(before) != _version(item):
                self._tell("ADDED" if before is None else "MODIFIED", key, item)
        return str(found.get("resourceVersion", ""))

    async def _watch(self, version: str) -> str:
        async with contextlib.aclosing(
            self._kube.watch(self._path, version, self._query)
        ) as events:
            async for kind, item in events:
                version = _version(item) or version
                key = _key(item)
                item = self._kept(item)
                if kind == "DELETED":
                    self._objects.pop(key, None)
                    self._tell("DELETED", key, item)
                elif kind in ("ADDED", "MODIFIED"):
                    if self._keep:
                        self._objects[key] = item
                    self._tell("ADDED" if kind == "ADDED" else "MODIFIED", key, item)
        return version

    def _kept(self, item: JsonObject) -> JsonObject:
        metadata = item.get("metadata")
        if isinstance(metadata, dict):
            metadata.pop("managedFields", None)
        return self._shape(item)

    def _tell(self, event: Event, key: tuple[str, str], item: JsonObject) -> None:
        if self._listener is not None:
            self._listener(event, key, item)


def _key(item: JsonObject) -> tuple[str, str]:
    metadata = item.get("metadata")
    found = metadata if isinstance(metadata, dict) else {}
    return str(found.get("namespace", "")), str(found.get("name", ""))


def _version(item: JsonObject) -> str:
    metadata = item.get("metadata")
    return str(metadata.get("resourceVersion", "")) if isinstance(metadata, dict) else ""
