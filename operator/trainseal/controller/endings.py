"""Why a run's pods ended: the gate's one line, from the pods' termination messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from pydantic import JsonValue

from trainseal.cluster.api import Kube, path_of
from trainseal.engines.podtemplate import GATE_CONTAINER, LABEL_SEAL

_MOST_PODS = 50


async def gate_message(kube: Kube, namespace: str, seal: str) -> str:
    """The first refusal of a gate among the run's pods, with the pod's name; empty if none."""
    page = await kube.request(
        "GET",
        path_of("v1", "pods", namespace),
        query={"labelSelector": f"{LABEL_SEAL}={seal}", "limit": str(_MOST_PODS)},
    )
    items = page.get("items")
    for pod in items if isinstance(items, list) else ():
        if isinstance(pod, dict):
            for words in _refusals(pod):
                return words
    return ""


def _refusals(pod: Mapping[str, JsonValue]) -> Iterator[str]:
    metadata, status = pod.get("metadata"), pod.get("status")
    name = metadata.get("name") if isinstance(metadata, Mapping) else "?"
    containers = status.get("initContainerStatuses") if isinstance(status, Mapping) else None
    for container in containers if isinstance(containers, list) else ():
        if not isinstance(container, Mapping) or container.get("name") != GATE_CONTAINER:
            continue
        state = container.get("state")
        terminated = state.get("terminated") if isinstance(state, Mapping) else None
        if isinstance(terminated, Mapping) and terminated.get("exitCode"):
            message = str(terminated.get("message") or "").strip()
            yield f"gate of pod {name}: {message or terminated.get('reason')}"
