"""The cluster as the user's kubeconfig names it, and TrainingJobs followed in it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from pathlib import Path

from kubernetes.aio import config

from trainseal.api.model import API_VERSION, JsonObject, json_object
from trainseal.cli.failures import UNDETERMINED, Failure
from trainseal.cluster.api import GoneError, Kube, KubeError, path_of
from trainseal.cluster.listing import listed

JOBS = "trainingjobs"
SEALS = "sealedruns"
_POD_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
#: By it the seals of a job are found: they outlive it.
LABEL_JOB = "trainseal.dev/job"
_PAGE = 500
#: Seconds between two looks at an API server that does not answer.
_PAUSE = 1.0


def default_namespace(kubeconfig: str | None, context: str | None) -> str:
    """The context's namespace, as kubectl takes it; in a pod, the pod's own."""
    try:
        contexts, active = config.list_kube_config_contexts(config_file=kubeconfig)  # type: ignore[no-untyped-call]
    except config.ConfigException:
        if kubeconfig is None and context is None and _POD_NAMESPACE.exists():
            return _POD_NAMESPACE.read_text().strip()
        raise
    if context is not None:
        active = next((c for c in contexts if c.get("name") == context), active)
    found = (active or {}).get("context") or {}
    return str(found.get("namespace") or "default")


def job_path(namespace: str, name: str) -> str:
    """The URL path of a TrainingJob."""
    return path_of(API_VERSION, JOBS, namespace, name)


async def runs_of(
    kube: Kube, namespace: str, job: str, seal: str | None = None
) -> list[JsonObject]:
    """The seals of a job, or the named one of them; the oldest first. Raises KubeError."""
    path = path_of(API_VERSION, SEALS, namespace)
    found = [
        item
        async for item in listed(kube, path, {"labelSelector": f"{LABEL_JOB}={job}"})
        if seal is None or json_object(item.get("metadata")).get("name") == seal
    ]
    return sorted(found, key=lambda r: str(json_object(r.get("spec")).get("sealedAt")))


def no_run(namespace: str, job: str, seal: str | None) -> Failure:
    """What to say where there is none."""
    wanted = f"run {seal} of {job}" if seal else f"run of {job}"
    return Failure(
        f"no {wanted} in namespace {namespace}",
        expected="a job that was sealed",
        remedy=f"`kubectl get sealedruns -n {namespace}` lists the runs; "
        f"`trainseal status {job}` says what a job waits for",
        code=UNDETERMINED,
    )


async def follow(
    kube: Kube, namespace: str, name: str, every: int = 5
) -> AsyncGenerator[JsonObject, None]:
    """The job now, at each change, and at least every so many seconds.

    An API server that is away for a while is waited for. Raises NotFoundError once it is deleted,
    and KubeError for any other refusal.
    """
    path = job_path(namespace, name)
    while True:
        try:
            job = await kube.get(path)
            yield job
            events = kube.watch(
                path_of(API_VERSION, JOBS, namespace),
                str(_metadata(job).get("resourceVersion", "")),
                {"fieldSelector": f"metadata.name={name}"},
                seconds=every,
            )
            async with contextlib.aclosing(events):
                async for kind, item in events:
                    if kind == "DELETED":
                        break  # gone, or made anew: the next look says which
                    if kind in ("ADDED", "MODIFIED"):
                        yield item
        except GoneError:
            continue
        except KubeError as error:
            if error.status:
                raise
            await asyncio.sleep(_PAUSE)


def phase_of(job: JsonObject) -> str:
    """Where a job is, in one word; Pending before anybody looked at it."""
    status = job.get("status")
    return str(status.get("phase") or "Pending") if isinstance(status, dict) else "Pending"


def _metadata(obj: JsonObject) -> JsonObject:
    metadata = obj.get("metadata")
    return metadata if isinstance(metadata, dict) else {}
