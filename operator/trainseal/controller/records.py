"""Reads access records by label, and no more of them than a run may cost."""

from __future__ import annotations

import logging

from trainseal.api import accessrecord
from trainseal.api.model import API_VERSION, json_object
from trainseal.cluster.api import Kube, path_of
from trainseal.controller.disturbances import Record

_log = logging.getLogger(__name__)
_PAGE = 500
_MOST_PAGES = 20


async def records(kube: Kube, namespace: str, selector: str) -> list[Record]:
    """Those of a namespace that a label selector chooses, of what was let pass. Raises KubeError.

    People make as many as they like: what is read is 10,000 at most.
    """
    path = path_of(API_VERSION, accessrecord.PLURAL, namespace)
    query = {"labelSelector": selector, "limit": str(_PAGE)}
    found: list[Record] = []
    for _ in range(_MOST_PAGES):
        page = await kube.request("GET", path, query=query)
        items = page.get("items")
        for item in items if isinstance(items, list) else ():
            record = Record.of(json_object(item))
            if record is not None:
                found.append(record)
        token = json_object(page.get("metadata")).get("continue")
        if not token:
            return found
        query["continue"] = str(token)
    _log.warning("namespace %s: more than %d access records of %s", namespace, len(found), selector)
    return found
