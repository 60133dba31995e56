"""Which resizes of a run's pods are no difference from the seal: those on record as let through.

The record is there before the webhook says yes, and says what each container was to ask for. So it
does not matter what the policies say by now, nor by which of their answers it passed; and a resize
past the webhook is found whatever they say. Records are asked for where a pod is not as sealed and
asks for another size, and not for each pod of a run.

What is not promised: a record says that TrainSeal let a resize pass, not that it took place. Who
had one let through could bring the pod to that size later, past the webhook, unseen.
"""

from __future__ import annotations

from collections.abc import Set

from trainseal.api.accessrecord import LABEL_POD, LABEL_RESIZED, LABEL_SEAL
from trainseal.api.findings import FindingId
from trainseal.api.model import JsonObject
from trainseal.cluster.api import Kube
from trainseal.controller import podfindings
from trainseal.controller.disturbances import uid_of
from trainseal.controller.ownreport import Seen
from trainseal.controller.podfindings import Sealed
from trainseal.controller.records import records
from trainseal.provenance.additions import Additions
from trainseal.provenance.resizes import Size

Key = tuple[str, str]


class Resizes:
    """Judges pods by what they were let ask for; what was read of a pod is kept while it lives."""

    def __init__(self, kube: Kube) -> None:
        self._kube = kube
        self._let: dict[str, frozenset[Size]] = {}

    async def findings_on(
        self, seal: Key, pod: JsonObject, sealed: Sealed, additions: Additions | None
    ) -> list[Seen]:
        """What is wrong with one pod of a run; as ``podfindings`` has it. Raises KubeError."""
        uid = uid_of(pod)
        let = self._let.get(uid, frozenset())
        found = list(podfindings.findings_on(pod, sealed, additions, let))
        if all(item.id is not FindingId.POD_CHANGED for item in found):
            return found
        if not podfindings.sizes_in_question(pod, sealed) - let:
            return found
        let = self._let[uid] = await self._on_record(seal, uid)
        return list(podfindings.findings_on(pod, sealed, additions, let))

    def keep(self, uids: Set[str]) -> None:
        """Forgets all pods but these."""
        self._let = {uid: let for uid, let in self._let.items() if uid in uids}

    async def _on_record(self, seal: Key, uid: str) -> frozenset[Size]:
        selector = f"{LABEL_SEAL}={seal[1]},{LABEL_POD}={uid},{LABEL_RESIZED}"
        of_pod = await records(self._kube, seal[0], selector)
        return frozenset(size for record in of_pod for size in record.resized)
