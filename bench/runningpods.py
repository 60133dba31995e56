"""The pod of a bound run, as Job controller, scheduler, kubelet and agent would show it in the API.

Created by the Job controller's identity through the webhook, bound to a node, then said to run, by
its own status and by its Job's, with the report that an agent makes of a pod it watches.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime

from bench.pods import CREATOR
from bench.rig import Rig
from bench.sealed import NAMESPACE, Object, encode, pod_of
from trainseal.api import driftreport
from trainseal.api.model import API_VERSION
from trainseal.cluster.api import path_of
from trainseal.engines.podtemplate import LABEL_SEAL

_PODS = path_of("v1", "pods", NAMESPACE)
_REPORTS = path_of(API_VERSION, driftreport.PLURAL, NAMESPACE)


async def run_pod(ground: Rig, job: str, node: str) -> None:
    """Makes the one pod of the Job run. Raises RuntimeError where the webhook refuses it."""
    jobs = path_of("batch/v1", "jobs", NAMESPACE, job)
    live: Object = await ground.kube.get(jobs)
    status, answer = await ground.client.post(_PODS, encode(pod_of(live)), CREATOR)
    if status != 201:
        raise RuntimeError(f"status {status}: {answer[:600].decode(errors='replace')}")
    pod: Object = json.loads(answer)
    name = pod["metadata"]["name"]
    binding: Object = {
        "apiVersion": "v1",
        "kind": "Binding",
        "metadata": {"name": name},
        "target": {"apiVersion": "v1", "kind": "Node", "name": node},
    }
    await ground.kube.create(f"{_PODS}/{name}/binding", binding)
    await show_pod(ground, pod, node)
    await show_job(ground, job, 1)


async def show_pod(ground: Rig, pod: Object, node: str) -> None:
    """Says that a pod which is bound to the node runs, as its kubelet and its agent do."""
    now = _now()
    path = f"{_PODS}/{pod['metadata']['name']}/status"
    await ground.kube.patch(path, {"status": _running(pod, now)})
    await _report(ground, pod, node, now)


async def show_job(ground: Rig, job: str, workers: int) -> None:
    """Says that a Job has so many workers at work, as its controller does."""
    counts: Object = {"active": workers, "ready": workers, "startTime": _now()}
    path = path_of("batch/v1", "jobs", NAMESPACE, job, "status")
    await ground.kube.patch(path, {"status": counts})


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _running(pod: Object, now: str) -> Object:
    """The gate is through, the trainer runs."""
    ended = {"terminated": {"exitCode": 0, "reason": "Completed", "finishedAt": now}}
    spec = pod["spec"]
    return {
        "phase": "Running",
        "startTime": now,
        "conditions": [
            {"type": kind, "status": "True", "lastTransitionTime": now}
            for kind in ("PodScheduled", "Initialized", "ContainersReady", "Ready")
        ],
        "initContainerStatuses": [_status(c, ended) for c in spec.get("initContainers", ())],
        "containerStatuses": [
            _status(c, {"running": {"startedAt": now}}) for c in spec["containers"]
        ],
    }


def _status(container: Object, state: Object) -> Object:
    # Images stand by digest, and so the runtime reports them.
    image = container["image"]
    found = {"name": container["name"], "image": image, "imageID": image, "ready": True}
    return found | {"restartCount": 0, "state": state}


async def _report(ground: Rig, pod: Object, node: str, now: str) -> None:
    metadata = pod["metadata"]
    name = f"{metadata['name']}-{metadata['uid'][:8]}"
    report: Object = {
        "apiVersion": API_VERSION,
        "kind": "DriftReport",
        "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {
            "reporter": "Agent",
            "node": node,
            "sealedRun": metadata["labels"][LABEL_SEAL],
            "pod": {"name": metadata["name"], "uid": metadata["uid"]},
        },
    }
    condition: Object = {
        "type": "Watching",
        "status": "True",
        "reason": "Watched",
        "message": "The pod is watched.",
        "lastTransitionTime": now,
    }
    await ground.kube.create(_REPORTS, report)
    await ground.kube.patch(f"{_REPORTS}/{name}/status", {"status": {"conditions": [condition]}})
