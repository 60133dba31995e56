"""Follows a collection object by object, no faster than they are taken; memory holds one page."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from typing import Protocol

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.cluster.api import GoneError, Kube, KubeError

_log = logging.getLogger(__name__)
PAGE = 100
_LONGEST_PAUSE = 15.0


class Taker(Protocol):
    """Takes what a collection holds."""

    async def take(self, obj: JsonObject, *, deleted: bool = False) -> None:
        """An object as it is now, or as it was last. Called again with the same after a restart."""

    async def listed(self, kind: str, uids: set[str]) -> None:
        """All of the collection was taken; these are there."""


async def follow(
    kube: Kube,
    path: str,
    kind: str,
    taker: Taker,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    *,
    page: int = PAGE,
) -> None:
    """Lists, then watches, for ever; what fails is said and tried again from a new list."""
    pause = 0.5
    while True:
        try:
            version = await _list(kube, path, kind, taker, page)
            pause = 0.5
            while True:
                version = await _watch(kube, path, version, taker)
        except GoneError:
            continue
        except (KubeError, OSError) as error:
            _log.warning("following %s: %s; again in %.1f s", path, error, pause)
        await sleep(pause)
        pause = min(pause * 2, _LONGEST_PAUSE)


async def _list(kube: Kube, path: str, kind: str, taker: Taker, most: int) -> str:
    query, uids = {"limit": str(most)}, set[str]()
    while True:
        page = await kube.request("GET", path, query=query, seconds=30)
        for item in json_objects(page.get("items")):
            # A list's items come without their kind.
            await taker.take({"apiVersion": page.get("apiVersion"), "kind": kind, **item})
            uids.add(str(json_object(item.get("metadata")).get("uid")))
        metadata = json_object(page.get("metadata"))
        token = metadata.get("continue")
        if not token:
            await taker.listed(kind, uids)
            return str(metadata.get("resourceVersion", ""))
        query["continue"] = str(token)


async def _watch(kube: Kube, path: str, version: str, taker: Taker) -> str:
    async with contextlib.aclosing(kube.watch(path, version, {})) as events:
        async for event, obj in events:
            if event != "BOOKMARK":
                await taker.take(obj, deleted=event == "DELETED")
            version = str(json_object(obj.get("metadata")).get("resourceVersion", version))
    return version
