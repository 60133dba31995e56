"""Pods that come before their seal is bound: they wait a moment for it, instead of being refused.

A run's one Job is made running, and bound right after; the Job controller's first pod may be there
between the two. Refused, it would be tried again a second later, and later each time. Who waits
holds a request of that controller's, which has few workers: so a wait is short, and there are not
many at once. Only pod creators wait: for whoever else names a seal there is nothing to wait for.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from trainseal.admission.pods import PodRulesContext, Unknown, decide, not_bound_yet
from trainseal.admission.reviews import Request, Response
from trainseal.admission.sealindex import SealIndex
from trainseal.api.model import JsonObject
from trainseal.cluster.informer import Event

#: A binding follows its Job within a tenth of a second, on a busy controller within one.
WAIT_SECONDS = 2.0
MOST_WAITS = 256
Key = tuple[str, str]


class BindingWaits:
    """Listens to seals in the index's place, and tells who waits for one."""

    def __init__(self, index: SealIndex, look: Callable[[str, str], Awaitable[bool]]) -> None:
        """``look`` reads one seal, by namespace and name, within bounds of its own."""
        self._index = index
        self._look = look
        self._waiting: dict[Key, list[asyncio.Event]] = {}

    def on_seal(self, event: Event, key: Key, obj: JsonObject) -> None:
        """Listener for SealedRuns."""
        self._index.on_seal(event, key, obj)
        if not self._index.unbound(*key):
            for waiting in self._waiting.get(key, ()):
                waiting.set()

    async def judge(self, request: Request, context: PodRulesContext) -> Response:
        """The answer to a pod, once there is nothing more to hear of the seal that it names."""
        decided = decide(request, context, final=False)
        if not isinstance(decided, Unknown):
            return decided
        if request.username not in context.pod_creators:
            await self._look(request.namespace, decided.seal)
        elif not await self.over(request.namespace, decided.seal):
            return not_bound_yet(request, decided.seal)
        return decide(request, context, final=True)

    async def over(self, namespace: str, name: str) -> bool:
        """Whether there is nothing to wait for any more: the seal is bound, has ended, or is none.

        Waits for that, two seconds at most; not at all while many wait.
        """
        key = (namespace, name)
        if not self._index.unbound(*key):
            # It is not known, or there is more of it than was heard of: the next epoch.
            await self._look(*key)
        if not self._index.unbound(*key):
            return True
        if sum(map(len, self._waiting.values())) >= MOST_WAITS:
            return False
        bound = asyncio.Event()
        waiting = self._waiting.setdefault(key, [])
        waiting.append(bound)
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await bound.wait()
        except TimeoutError:
            # The watch may be late.
            await self._look(*key)
        finally:
            waiting.remove(bound)
            if not waiting:
                self._waiting.pop(key, None)
        return not self._index.unbound(*key)
