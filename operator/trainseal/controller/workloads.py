"""What Kueue shows of a Workload, and what we answer its admission check. Pure.

A Workload stands for an object that waits in a queue; quota is reserved for it first, then its
checks are asked, and once all are ready it is admitted and Kueue lets the object go. The rules:

1. Of a run in order: `Pending` until quota is reserved, and then judged anew and `Ready`. So each
   admission is judged when it is given, however long the run waited for it.
2. Of a run that is held or suspended, or of which it cannot be told: `Retry`. Kueue takes its quota
   away and stops it; it keeps waiting, and gets none before we say otherwise.
3. Of a run that is refuted, or of no run though it asks for GPUs: `Rejected`. Where it has quota,
   Kueue deactivates it.
4. One that is admitted is not judged by its signatures again, as no run is that is on.

Sources: Kueue v0.15.0, pkg/controller/core/workload_controller.go (reconcileCheckBasedEviction) and
pkg/workload/admissionchecks.go.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.provenance.differences import Json
from trainseal.provenance.keyrings import rfc3339

API = "kueue.x-k8s.io/v1beta2"
WORKLOADS, CHECKS = "workloads", "admissionchecks"
#: By which an AdmissionCheck says that we answer it.
CONTROLLER_NAME = "trainseal.dev/provenance"
#: Kueue's label of a Workload with the UID of what it stands for.
LABEL_JOB_UID = "kueue.x-k8s.io/job-uid"
_MAX_MESSAGE = 1024

State = Literal["Pending", "Ready", "Retry", "Rejected"]


@dataclass(frozen=True, slots=True)
class Judgement:
    """What we know of a Workload: whether it may be admitted, and if not, whether later."""

    standing: Literal["InOrder", "NotNow", "Never"]
    words: str

    def state(self, *, reserved: bool) -> State:
        """The check's, for a Workload for which quota is reserved or not."""
        if self.standing == "InOrder":
            return "Ready" if reserved else "Pending"
        return "Retry" if self.standing == "NotNow" else "Rejected"


def has(workload: Json, condition: str) -> bool:
    """Whether the condition is true."""
    conditions = json_objects(json_object(workload.get("status")).get("conditions"))
    return any(c.get("type") == condition and c.get("status") == "True" for c in conditions)


def is_admitted(workload: Json) -> bool:
    """Whether what it stands for may run: admitted, and not evicted since."""
    return has(workload, "Admitted") and not has(workload, "Evicted")


def owner_of(workload: Json) -> JsonObject:
    """The reference to what it stands for; empty where it stands for nothing."""
    owners = json_objects(json_object(workload.get("metadata")).get("ownerReferences"))
    return next((o for o in owners if o.get("controller") is True), {})


def templates(workload: Json) -> Iterator[JsonObject]:
    """The templates of its pods."""
    for pod_set in json_objects(json_object(workload.get("spec")).get("podSets")):
        yield json_object(pod_set.get("template"))


def label(workload: Json, name: str) -> str:
    """What the label says on its pods; empty where they bear none or several."""
    found = {
        str(json_object(json_object(t.get("metadata")).get("labels")).get(name, ""))
        for t in templates(workload)
    }
    return found.pop() if len(found) == 1 else ""


def states(workload: Json, ours: Collection[str]) -> dict[str, str]:
    """The states of the checks among ``ours`` that it has to pass."""
    checks = json_objects(json_object(workload.get("status")).get("admissionChecks"))
    return {str(c["name"]): str(c.get("state")) for c in checks if c.get("name") in ours}


def answered(
    workload: Json, ours: Collection[str], judgement: Judgement, now: datetime
) -> list[JsonValue] | None:
    """The Workload's checks with our answer; None where it says so already.

    What else Kueue keeps of a check, such as how often it was asked, stays.
    """
    state = judgement.state(reserved=has(workload, "QuotaReserved"))
    message = judgement.words[:_MAX_MESSAGE]
    checks = json_objects(json_object(workload.get("status")).get("admissionChecks"))
    found: list[JsonValue] = []
    for check in checks:
        if check.get("name") in ours:
            if check.get("state") != state:
                check = {**check, "state": state, "lastTransitionTime": rfc3339(now)}
            check = {**check, "message": message}
        found.append(check)
    return None if found == checks else found


def queue_kept_out(workload: Json, ours: Collection[str]) -> str:
    """The queue that can neither admit nor start it as it stands, by our check; else empty."""
    shut = any(state != "Ready" for state in states(workload, ours).values())
    if not shut or is_admitted(workload):
        return ""
    return str(json_object(workload.get("spec")).get("queueName", ""))
