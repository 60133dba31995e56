"""Sealed pods as the API server has them, in memory; those that are gone for a while longer.

A report may come when its pod has just gone: it is judged by what the pod was.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

from trainseal.api.model import JsonObject, json_object
from trainseal.cluster.informer import Event
from trainseal.controller.belief import PodFact
from trainseal.engines.podtemplate import LABEL_SEAL

#: Pods that went, remembered.
MAX_GONE = 20_000


def shape(pod: JsonObject) -> JsonObject:
    """What is kept of a pod."""
    metadata = json_object(pod.get("metadata"))
    kept = (
        "deletionTimestamp", "labels", "name", "namespace", "ownerReferences", "resourceVersion",
        "uid",
    )  # fmt: skip
    return {
        "metadata": {k: metadata[k] for k in kept if k in metadata},
        "spec": {"nodeName": json_object(pod.get("spec")).get("nodeName")},
        "status": {"phase": json_object(pod.get("status")).get("phase")},
    }


class SealedPods:
    """Fed by an informer's listener."""

    def __init__(self) -> None:
        self._live: dict[str, tuple[str, PodFact]] = {}
        self._gone: OrderedDict[str, PodFact] = OrderedDict()

    def listen(self, event: Event, key: tuple[str, str], obj: JsonObject) -> None:
        """The informer's listener."""
        fact = PodFact.of(obj, LABEL_SEAL)
        if event == "DELETED":
            self._live.pop(fact.uid, None)
            self._gone[fact.uid] = fact
            while len(self._gone) > MAX_GONE:
                self._gone.popitem(last=False)
        else:
            self._live[fact.uid] = (key[0], fact)

    def find(self, uid: str) -> PodFact | None:
        """The pod of that UID, as it is or last was."""
        live = self._live.get(uid)
        return live[1] if live else self._gone.get(uid)

    def running(self) -> Iterator[tuple[str, PodFact]]:
        """Namespace and pod, for each that runs on a node now."""
        return ((ns, fact) for ns, fact in list(self._live.values()) if fact.running and fact.node)
