"""Tells the floor what the policies say: where all of them only audit, it lets pass.

The floor is the chart's ValidatingAdmissionPolicies. The API server evaluates one for each of its
parameters and denies when any evaluation does, so it cannot ask for "some policy, and all of them
audit" over ProvenancePolicies themselves: one ConfigMap says it for all.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from trainseal.api.model import JsonObject
from trainseal.cluster.api import Kube, KubeError, path_of
from trainseal.provenance.policies import CompiledPolicy
from trainseal.verifier.policystore import BrokenPolicy, PolicyStore

_log = logging.getLogger(__name__)
CONFIG_MAP = "trainseal-floor"
#: Seconds after which it is looked at again, whoever changed it.
_AGAIN = 60.0
_AFTER_AN_ERROR = 5.0


def entries(policies: Sequence[CompiledPolicy], broken: Sequence[BrokenPolicy]) -> dict[str, str]:
    """The ConfigMap's data: one entry a policy, three lines each.

    Its mode, a regular expression (RE2) of the namespaces that it includes, and one of those that
    it excludes. A policy that cannot be used may be one that enforces anywhere.
    """
    found = {p.name: f"{p.mode}\n{_any_of(p.include)}\n{_any_of(p.exclude)}" for p in policies}
    return found | {b.name: f"Enforce\n{_any_of(['*'])}\n{_any_of([])}" for b in broken}


class Floor:
    """Keeps the ConfigMap as the policies are."""

    def __init__(self, kube: Kube, namespace: str, store: PolicyStore) -> None:
        self._kube = kube
        self._path = path_of("v1", "configmaps", namespace, CONFIG_MAP)
        self._store = store
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """To be called when a policy or a trust root changed."""
        self._changed.set()

    async def run(self) -> None:
        """Writes for ever; what fails is tried again."""
        while True:
            pause = _AGAIN
            self._changed.clear()
            try:
                await self.write()
            except KubeError as error:
                pause = _AFTER_AN_ERROR
                _log.warning("ConfigMap %s, which the floor reads: %s", CONFIG_MAP, error)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), pause)

    async def write(self) -> None:
        """Writes where something differs. Raises KubeError: also where the object is gone."""
        live = await self._kube.get(self._path)
        wanted: JsonObject = dict(entries(self._store.policies, self._store.broken))
        if (live.get("data") or {}) != wanted:
            await self._kube.replace(self._path, {**live, "data": wanted})


def _any_of(patterns: Sequence[str]) -> str:
    """An anchored expression; a namespace's pattern knows only the star (api.policy)."""
    return f"^({'|'.join(p.replace('*', '.*') for p in patterns)})$"
