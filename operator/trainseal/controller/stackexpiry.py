"""Takes StackRequests away an hour after they were made; the dumps that they own go with them.

Until then they say who asked; the archive keeps them beyond.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from trainseal.api.model import API_VERSION, InvalidObjectError
from trainseal.api.stackrequest import PLURAL, StackRequest
from trainseal.cluster.api import Kube, KubeError, path_of
from trainseal.cluster.listing import listed

_log = logging.getLogger(__name__)
LIFE = timedelta(hours=1)
EVERY_SECONDS = 300.0
_PAGE = 500


class StackExpiry:
    """Of the whole cluster."""

    def __init__(self, kube: Kube, clock: Callable[[], datetime]) -> None:
        self._kube = kube
        self._clock = clock

    async def run(self) -> None:
        """Looks for ever; what fails is said and tried again."""
        while True:
            try:
                await self.look()
            except KubeError as error:
                _log.warning("taking old StackRequests away: %s", error)
            await asyncio.sleep(EVERY_SECONDS)

    async def look(self) -> None:
        """Once. Raises KubeError."""
        async for item in listed(self._kube, path_of(API_VERSION, PLURAL), most=_PAGE):
            try:
                metadata = StackRequest.parse(item).metadata
            except InvalidObjectError as error:
                _log.error("StackRequest: %s", error)
                continue
            made = metadata.creation_timestamp
            if made is not None and self._clock() - made > LIFE:
                path = path_of(API_VERSION, PLURAL, metadata.namespace, metadata.name)
                await self._kube.delete(path, uid=metadata.uid)
