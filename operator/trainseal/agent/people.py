"""The access records of this node by pod, for naming who opened a session; bounded.

Records are as many as people make. What is kept is small and limited: of a record what names a
person and joins it with a session, of a pod and of the node the newest records. Where there are
more, gone pods' go first, then the oldest of who has the most on a pod: a flood pushes out its own
maker's. A session whose record was pushed out counts as one that no record explains.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable

from prometheus_client import Counter as Metric

from trainseal.api.accessrecord import AccessRecord, command_digest, first_words
from trainseal.api.model import InvalidObjectError, JsonObject, json_object
from trainseal.cluster.informer import Event

_log = logging.getLogger(__name__)
_DROPPED = Metric("trainseal_agent_access_records_dropped_total", "Access records let go for room.")

#: Records that are kept of a pod and of the node: about 5 KiB each at most.
MOST_OF_A_POD = 256
MOST_OF_THE_NODE = 2048
_COMMAND_BYTES = 4096
_SPEC = (
    "pod", "node", "sealedRun", "action", "username", "command", "commandDigest", "container",
    "allowed", "time",
)  # fmt: skip


def what_is_needed_of_a_record(obj: JsonObject) -> JsonObject:
    """Shape for the informer: who, what, where and when; of a long command its first words and
    its digest.
    """
    metadata, whole = json_object(obj.get("metadata")), json_object(obj.get("spec"))
    spec = {k: whole[k] for k in _SPEC if k in whole}
    command = spec.get("command")
    if isinstance(command, list):
        words = [str(word) for word in command]
        kept = first_words(words, _COMMAND_BYTES)
        if kept != words:
            spec["command"] = [*kept]
            spec.setdefault("commandDigest", command_digest(words))
    wanted = ("name", "namespace", "resourceVersion")
    return {"metadata": {k: metadata[k] for k in wanted if k in metadata}, "spec": spec}


class AccessRecords:
    """Kept by an informer's listener; ``changed`` is told the UID of a pod with a new record,
    ``lives`` says whether a sealed pod of that UID is here.

    The label by which the informer selects is cut where a node's name is long, so the record's own
    word decides.
    """

    def __init__(
        self,
        node: str,
        changed: Callable[[str], None],
        lives: Callable[[str], bool] = lambda _: True,
    ) -> None:
        self._node = node
        self._changed = changed
        self._lives = lives
        self._records: dict[str, dict[str, AccessRecord]] = {}
        self._count = 0
        self._said = False

    def of_pod(self, uid: str) -> tuple[AccessRecord, ...]:
        """The records on a pod."""
        return tuple(self._records.get(uid, {}).values())

    def on_record(self, event: Event, key: tuple[str, str], obj: JsonObject) -> None:
        """Listener for AccessRecords; told of the same one again, it does nothing."""
        try:
            record = AccessRecord.parse(obj)
        except InvalidObjectError as error:
            _log.error("AccessRecord %s/%s: %s", *key, error)
            return
        if record.spec.node != self._node or record.spec.pod is None:
            return
        uid = record.spec.pod.uid
        found = self._records.setdefault(uid, {})
        if event == "DELETED":
            if found.pop(key[1], None) is not None:
                self._count -= 1
        elif key[1] not in found:
            found[key[1]] = record
            self._count += 1
            if len(found) > MOST_OF_A_POD:
                self._drop(uid)
            if self._count > MOST_OF_THE_NODE:
                self._drop(self._fullest())
            self._changed(uid)
        if not found:
            self._records.pop(uid, None)

    def _fullest(self) -> str:
        """The pod that has the most records: of those that are gone, if any has."""
        return max(self._records, key=lambda u: (not self._lives(u), len(self._records[u])))

    def _drop(self, uid: str) -> None:
        found = self._records[uid]
        people = Counter(r.spec.username for r in found.values())
        most = max(people.values())
        oldest = min(
            (n for n, r in found.items() if people[r.spec.username] == most),
            key=lambda name: (found[name].spec.time, name),
        )
        del found[oldest]
        self._count -= 1
        _DROPPED.inc()
        if not found:
            del self._records[uid]
        if not self._said:
            self._said = True
            _log.warning(
                "more access records than are kept (%d of a pod, %d of the node): the oldest of "
                "who has the most are let go, and sessions of theirs may count as unrecorded",
                *(MOST_OF_A_POD, MOST_OF_THE_NODE),
            )
