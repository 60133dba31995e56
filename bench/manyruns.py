"""Many sealed runs at once in an API server: each with all its objects and pods, bound and running.

What the controller writes of a run (``controller.runs``) is written here by the same functions, and
what kubelets and agents write as in `runningpods`, with no webhook asked: thousands of pods stand
in two minutes and not in half an hour. A controller that is started on it takes the runs over, and
compares every pod with its seal.

Not kwok (sigs.k8s.io/kwok v0.8.0 builds from the Go proxy in four minutes): it would write the same
statuses, but none of gates and no agent's report, and it wants scheduler and Job controller beside
it, which take these cores from what is measured. Nodes are names only: nobody of ours reads a Node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from bench.rig import GATE_IMAGE, Rig
from bench.runningpods import show_job, show_pod
from bench.sealed import NAMESPACE, Object, pod_of, seal_run, training_job
from trainseal.api.model import API_VERSION
from trainseal.api.sealedrun import PlatformImage, SealedCode, SealedImage
from trainseal.api.trainingjob import TrainingJob
from trainseal.cluster.api import path_of
from trainseal.controller import objects
from trainseal.controller.sealing import seal_name
from trainseal.engines.engine import Rendered
from trainseal.engines.job import render
from trainseal.engines.podtemplate import RenderInputs
from trainseal.provenance.canonical import job_digest
from trainseal.provenance.policies import CompiledPolicy
from trainseal.verifier.jobs import JobVerification

#: Pods on a node, each with one of its GPUs.
PODS_A_NODE = 8
_AT_ONCE = 16
_PODS = path_of("v1", "pods", NAMESPACE)
_JOBS = path_of(API_VERSION, "trainingjobs", NAMESPACE)


async def make_runs(
    ground: Rig, policy: CompiledPolicy, runs: int, workers: int
) -> Sequence[Object]:
    """Makes them, and returns a pod of each run as the Job controller would send it."""
    pods: list[Object] = []
    numbers = iter(range(runs))

    async def worker() -> None:
        for number in numbers:
            job = await _make_run(ground, policy, f"run-{number}", workers)
            pods.append(pod_of(job))
            await _run_pods(ground, job, number * workers, workers)

    async with asyncio.TaskGroup() as group:
        for _ in range(_AT_ONCE):
            group.create_task(worker())
    return pods


async def _make_run(ground: Rig, policy: CompiledPolicy, name: str, workers: int) -> Object:
    """One run, as its controller leaves it once it is let go; returns its Job."""
    made: Object = await ground.kube.create(_JOBS, training_job(name, workers, gpus=1))
    job, digest = TrainingJob.parse(made), job_digest(made)
    verified = _verified(job, digest, policy)
    seal = seal_name(job.metadata, digest)
    inputs = RenderInputs(seal, job.metadata.uid, GATE_IMAGE, verified.code)
    rendered = render(job, inputs)
    for obj in (rendered.network_policy, rendered.config_map, rendered.service):
        if obj is not None:
            await ground.kube.create(objects.collection(str(obj["kind"]), NAMESPACE), obj)
    return await seal_run(
        ground.kube, ground.seal_key, ground.cluster_uid, job, verified, _let_go(rendered)
    )


def _let_go(rendered: Rendered) -> Rendered:
    for role in rendered.roles:
        spec: Object = role.owner["spec"]  # type: ignore[assignment] # as rendered
        spec["suspend"] = False
    return rendered


def _verified(job: TrainingJob, digest: str, policy: CompiledPolicy) -> JobVerification:
    """What verifying would have given: image and code by the digests that the job names."""
    images = []
    for role in job.spec.roles:
        spec: Object = role.template["spec"]  # type: ignore[assignment] # as written
        for container in spec["containers"]:
            at = str(container["image"]).rpartition("@")[2]
            platform = PlatformImage(platform="linux/amd64", manifest=at, config=at)
            images.append(
                SealedImage(reference=container["image"], digest=at, platforms=[platform])
            )
    code = []
    for mount in job.spec.code or ():
        if mount.oci is not None:
            at = mount.oci.reference.rpartition("@")[2]
            code.append(
                SealedCode(
                    name=mount.name, reference=mount.oci.reference, tree_digest=at, bundle=at
                )
            )
    return JobVerification(digest, (), (), (policy,), images=tuple(images), code=tuple(code))


async def _run_pods(ground: Rig, job: Object, first: int, workers: int) -> None:
    """All pods of the Job, on nodes by their number among all pods."""
    for index in range(workers):
        node = f"node-{(first + index) // PODS_A_NODE}"
        pod = pod_of(job, index)
        # No scheduler binds it: it comes bound.
        pod["spec"]["nodeName"] = node
        live: Object = await ground.kube.create(_PODS, pod)
        await show_pod(ground, live, node)
    await show_job(ground, job["metadata"]["name"], workers)
