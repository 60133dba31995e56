"""Objects that are about runs, in memory, by the seal they name."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable

from trainseal.api.model import JsonObject, json_object
from trainseal.cluster.informer import Event

Key = tuple[str, str]


class BySeal:
    """Objects of one kind, by the seal that their ``spec.sealedRun`` names."""

    def __init__(self, changed: Callable[[Key], None]) -> None:
        self._changed = changed
        self._objects: dict[Key, dict[str, JsonObject]] = defaultdict(dict)

    def listen(self, event: Event, key: tuple[str, str], obj: JsonObject) -> None:
        """The informer's listener."""
        seal = (key[0], str(json_object(obj.get("spec")).get("sealedRun")))
        if event == "DELETED":
            self._objects[seal].pop(key[1], None)
            if not self._objects[seal]:
                del self._objects[seal]
        else:
            self._objects[seal][key[1]] = obj
        self._changed(seal)

    def seals(self) -> list[Key]:
        """All seals that something is about."""
        return list(self._objects)

    def of(self, seal: Key) -> list[JsonObject]:
        """Those of a seal, by name."""
        return [obj for _, obj in sorted(self._objects.get(seal, {}).items())]
