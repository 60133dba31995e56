"""The manifests of one run, as the API server has them."""

from __future__ import annotations

from collections.abc import AsyncGenerator

from trainseal.api.checkpoint import PLURAL
from trainseal.api.model import API_VERSION, JsonObject, json_object
from trainseal.cluster.api import Kube, path_of
from trainseal.cluster.listing import listed
from trainseal.engines.podtemplate import LABEL_SEAL

#: Of one page: each may have a quarter of a megabyte.
_PAGE = 20


async def manifests_of(kube: Kube, namespace: str, seal: str) -> AsyncGenerator[JsonObject, None]:
    """Checkpoints that say that they are of this seal; whose word that is, is for the caller.

    Raises KubeError.
    """
    path = path_of(API_VERSION, PLURAL, namespace)
    query = {"labelSelector": f"{LABEL_SEAL}={seal}"}
    async for obj in listed(kube, path, query, most=_PAGE):
        if json_object(obj.get("spec")).get("sealedRun") == seal:
            yield obj
