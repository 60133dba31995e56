"""The access records of this node by pod, for naming who opened a session."""

from __future__ import annotations

import logging
from collections.abc import Callable

from trainseal.api.accessrecord import AccessRecord
from trainseal.api.model import InvalidObjectError, JsonObject
from trainseal.cluster.informer import Event

_log = logging.getLogger(__name__)


class AccessRecords:
    """Kept by an informer's listener; ``changed`` is told the UID of a pod with a new record.

    The label by which the informer selects is cut where a node's name is long, so the record's own
    word decides.
    """

    def __init__(self, node: str, changed: Callable[[str], None]) -> None:
        self._node = node
        self._changed = changed
        self._records: dict[str, dict[str, AccessRecord]] = {}

    def of_pod(self, uid: str) -> tuple[AccessRecord, ...]:
        """The records on a pod."""
        return tuple(self._records.get(uid, {}).values())

    def on_record(self, event: Event, key: tuple[str, str], obj: JsonObject) -> None:
        """Listener for AccessRecords."""
        try:
            record = AccessRecord.parse(obj)
        except InvalidObjectError as error:
            _log.error("AccessRecord %s/%s: %s", *key, error)
            return
        if record.spec.node != self._node:
            return
        uid = record.spec.pod.uid
        if event == "DELETED":
            self._records.get(uid, {}).pop(key[1], None)
            return
        self._records.setdefault(uid, {})[key[1]] = record
        self._changed(uid)

    def forget(self, uid: str) -> None:
        """A pod is gone."""
        self._records.pop(uid, None)
