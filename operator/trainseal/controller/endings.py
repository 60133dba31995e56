"""Why a run's pods ended: the gate's one line, from the pods' termination messages.

1. A gate that refuted ends the run: the newest such line explains it, whatever else failed.
2. Any other failure of a gate explains why a worker is missing, for as long as it is: until a later
   pod of the same place has passed its gate.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.cluster.api import Kube, path_of
from trainseal.controller.disturbances import timestamp
from trainseal.controller.podfindings import owner_of
from trainseal.engines.podtemplate import GATE_CONTAINER, GATE_REFUTED, LABEL_SEAL
from trainseal.provenance.livepods import index_of

LABEL_INDEX = "batch.kubernetes.io/job-completion-index"
_PAGE = 500
#: Failed pods that are looked at: a page more than a job of the largest size has workers.
_MOST_PAGES = 34
#: Places whose later pods are looked for, the last that failed first.
_MOST_PLACES = 4
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Failure:
    """A failed pod. ``place``: UID of its Job, and its index there. ``gate``: what its gate said,
    where it failed, and ``code`` that one's exit code; else empty and 0.
    """

    pod: str
    place: tuple[str, str]
    made: datetime
    ended: datetime
    code: int
    gate: str

    def words(self) -> str:
        """With the pod's name."""
        return f"gate of pod {self.pod}: {self.gate}"


async def gate_message(kube: Kube, namespace: str, seal: str) -> str:
    """The line of the gate that explains the run's present state; empty if none does."""
    failures = [failure_of(pod) async for pod in _failed(kube, namespace, seal)]
    explaining = tuple(explanations(failures))
    if explaining and explaining[0].code == GATE_REFUTED:
        return explaining[0].words()
    for failure in explaining[:_MOST_PLACES]:
        if not await _passed_since(kube, namespace, seal, failure):
            return failure.words()
    return ""


def explanations(failures: Iterable[Failure]) -> Iterator[Failure]:
    """Failures of gates that may explain the run's state: what refuted, else each place's last
    failure if it was the gate's; the newest first.
    """
    newest = sorted(failures, key=lambda f: (f.ended, f.made, f.pod), reverse=True)
    refuted = [f for f in newest if f.code == GATE_REFUTED]
    if refuted:
        yield from refuted
        return
    seen: set[tuple[str, str]] = set()
    for failure in newest:
        if failure.place not in seen:
            seen.add(failure.place)
            if failure.gate:
                yield failure


def failure_of(pod: JsonObject) -> Failure:
    """How a failed pod ended; what its status does not say is taken for long ago."""
    metadata, status = json_object(pod.get("metadata")), json_object(pod.get("status"))
    made = timestamp(metadata.get("creationTimestamp")) or _NEVER
    ended, code, gate = made, 0, ""
    for kind in ("initContainerStatuses", "containerStatuses"):
        for container in json_objects(status.get(kind)):
            end = json_object(json_object(container.get("state")).get("terminated"))
            ended = max(ended, timestamp(end.get("finishedAt")) or ended)
            found = end.get("exitCode")
            if container.get("name") == GATE_CONTAINER and isinstance(found, int) and found:
                code = found
                said = str(end.get("message") or "").strip()
                gate = said or str(end.get("reason") or f"exit code {found}")
    name = str(metadata.get("name") or "?")
    return Failure(name, (owner_of(pod), index_of(pod)), made, ended, code, gate)


async def _failed(kube: Kube, namespace: str, seal: str) -> AsyncIterator[JsonObject]:
    query = {
        "labelSelector": f"{LABEL_SEAL}={seal}",
        "fieldSelector": "status.phase=Failed",
        "limit": str(_PAGE),
    }
    for _ in range(_MOST_PAGES):
        page = await kube.request("GET", path_of("v1", "pods", namespace), query=query)
        for pod in json_objects(page.get("items")):
            yield pod
        token = json_object(page.get("metadata")).get("continue")
        if not token:
            return
        query["continue"] = str(token)


async def _passed_since(kube: Kube, namespace: str, seal: str, failure: Failure) -> bool:
    """Whether a later pod of the same place got past its gate."""
    owner, index = failure.place
    query = {"labelSelector": f"{LABEL_SEAL}={seal},{LABEL_INDEX}={index}", "limit": str(_PAGE)}
    page = await kube.request("GET", path_of("v1", "pods", namespace), query=query)
    return any(
        owner_of(pod) == owner and (later := _passed(pod)) is not None and later >= failure.made
        for pod in json_objects(page.get("items"))
    )


def _passed(pod: JsonObject) -> datetime | None:
    """When the pod was made, if its gate let the trainer start."""
    for container in json_objects(json_object(pod.get("status")).get("initContainerStatuses")):
        end = json_object(json_object(container.get("state")).get("terminated"))
        if container.get("name") == GATE_CONTAINER and end.get("exitCode") == 0:
            metadata = json_object(pod.get("metadata"))
            return timestamp(metadata.get("creationTimestamp")) or _NEVER
    return None
