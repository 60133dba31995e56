"""Writes AccessRecords about objects. The same record twice is one: its name says so."""

from __future__ import annotations

import asyncio
import contextlib

from trainseal.admission.reviews import meta
from trainseal.api.accessrecord import PLURAL
from trainseal.api.model import API_VERSION, JsonObject
from trainseal.cluster.api import ConflictError, Kube, path_of


async def put_on_record(
    kube: Kube, record: JsonObject, seconds: float, turns: asyncio.Semaphore | None = None
) -> bool:
    """Whether it was written now; False where it was on record already.

    Raises KubeError, and TimeoutError after so many seconds; the wait for one's turn counts.
    """
    path = path_of(API_VERSION, PLURAL, str(meta(record)["namespace"]))
    try:
        async with asyncio.timeout(seconds), turns or contextlib.nullcontext():
            await kube.create(path, record)
    except ConflictError:
        return False
    return True


def place_of(record: JsonObject) -> str:
    """``NAMESPACE/NAME``, as the API server's audit log names it."""
    metadata = meta(record)
    return f"{metadata['namespace']}/{metadata['name']}"
