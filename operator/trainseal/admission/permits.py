"""The BreakGlasses that are valid, by run and user; fed by an informer's listener."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime

from trainseal.api.breakglass import BreakGlass
from trainseal.api.model import InvalidObjectError, JsonObject, json_object
from trainseal.cluster.informer import Event
from trainseal.provenance.accessrules import Permit

_log = logging.getLogger(__name__)
#: Those that are over go when there are more than this, and then more than twice what is left.
_MANY = 1000


def kept(obj: JsonObject) -> JsonObject:
    """A BreakGlass without what nobody here reads."""
    metadata = json_object(obj.get("metadata"))
    names = ("name", "namespace", "resourceVersion", "creationTimestamp")
    return {
        "metadata": {n: metadata[n] for n in names if n in metadata},
        "spec": json_object(obj.get("spec")),
    }


class Permits:
    """What is kept goes by itself: objects stay in the cluster as evidence, and are over."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._permits: dict[tuple[str, str], tuple[str, Permit]] = {}
        self._many = _MANY

    def listen(self, event: Event, key: tuple[str, str], obj: JsonObject) -> None:
        """Listener for BreakGlasses."""
        self._permits.pop(key, None)
        if event == "DELETED":
            return
        try:
            glass = BreakGlass.parse(obj)
            permit = Permit.of(glass)
        except (InvalidObjectError, ValueError) as error:  # it opens nothing
            _log.warning("BreakGlass %s/%s: %s", *key, error)
            return
        now = self._now()
        if permit.not_after <= now:
            return
        self._permits[key] = (glass.spec.sealed_run, permit)
        if len(self._permits) > self._many:
            self._permits = {k: p for k, p in self._permits.items() if p[1].not_after > now}
            self._many = max(_MANY, 2 * len(self._permits))

    def of(self, namespace: str, seal: str, user: str) -> tuple[Permit, ...]:
        """Those of a user on a run, in order of name; some may be over."""
        found = (
            permit
            for (where, _), (run, permit) in self._permits.items()
            if where == namespace and run == seal and permit.user == user
        )
        return tuple(sorted(found, key=lambda permit: permit.name))
