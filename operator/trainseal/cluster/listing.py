"""Collections, read whole: a page at a time, so that neither side holds all of one at once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.cluster.api import Kube

_PAGE = 500


async def listed(
    kube: Kube,
    path: str,
    query: Mapping[str, str] | None = None,
    *,
    most: int = _PAGE,
    versions: list[str] | None = None,
) -> AsyncGenerator[JsonObject, None]:
    """A collection's objects, a page of at most ``most`` at a time. Raises KubeError.

    Each page's resource version is added to ``versions``.
    """
    token: JsonValue = ""
    while token is not None:
        more = {"continue": str(token)} if token else {}
        page = await kube.request("GET", path, query={**(query or {}), "limit": str(most), **more})
        for item in json_objects(page.get("items")):
            yield item
        metadata = json_object(page.get("metadata"))
        token = metadata.get("continue") or None
        if versions is not None:
            versions.append(str(metadata.get("resourceVersion", "")))
