"""Which pods additions are learnt from: those of sealed runs in a cluster, or in a dump."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from trainseal.api.model import API_VERSION, JsonObject, json_object, json_objects, metadata_name
from trainseal.cli.additionslearning import RolePods
from trainseal.cli.clusters import LABEL_JOB, SEALS
from trainseal.cli.failures import REFUTED, UNDETERMINED, Failure
from trainseal.cli.simulationsource import documents
from trainseal.cluster.api import Kube, KubeError, path_of
from trainseal.cluster.keys import read_keyring
from trainseal.cluster.listing import listed
from trainseal.cluster.settings import KEYRING_CONFIG_MAP
from trainseal.engines.catalogue import ENGINES, expected_pod
from trainseal.engines.podtemplate import LABEL_SEAL
from trainseal.provenance.boundseals import BoundRole, bound_roles
from trainseal.provenance.canonical import CanonicalError
from trainseal.provenance.keyrings import UntrustedError


async def from_cluster(
    kube: Kube, release: str, namespace: str, jobs: Collection[str]
) -> list[RolePods]:
    """The pods of these jobs' runs, or of all in the namespace, whose seals verify. Raises
    Failure.
    """
    try:
        keyring = read_keyring(
            await kube.get(path_of("v1", "configmaps", release, KEYRING_CONFIG_MAP)), "seal"
        )
        cluster = await kube.get(path_of("v1", "namespaces", None, "kube-system"))
        uid = str(json_object(cluster.get("metadata")).get("uid"))
        seals = [s async for s in listed(kube, path_of(API_VERSION, SEALS, namespace))]
        query = {"labelSelector": LABEL_SEAL}
        pods = [p async for p in listed(kube, path_of("v1", "pods", namespace), query)]
    except (KubeError, UntrustedError) as error:
        raise Failure(
            f"the sealed pods of namespace {namespace} could not be read: {error}",
            expected="the right to list pods and SealedRuns there, and to get the keyring",
            remedy="ask for it, or learn from a dump: `trainseal policy learn-additions -f FILE`",
            code=UNDETERMINED,
        ) from None
    found: list[RolePods] = []
    for seal in _of_jobs(seals, jobs):
        name = metadata_name(seal)
        try:
            roles = bound_roles(keyring, cluster=uid, namespace=namespace, name=name, seal=seal)
        except (UntrustedError, CanonicalError) as error:
            raise Failure(
                f"{error}",
                expected="seals that TrainSeal made",
                remedy="look at `trainseal drift`; name the jobs that are to be learnt from",
                code=REFUTED,
            ) from None
        found += _roles(seal, roles, pods)
    return _any(found, f"namespace {namespace}", jobs)


def from_files(
    files: Sequence[Path], namespaces: Collection[str], jobs: Collection[str]
) -> list[RolePods]:
    """The pods of the runs in a dump; its seals' signatures cannot be looked at. Raises Failure."""
    objects = [obj for file in files for obj in documents(file)]
    pods = [o for o in objects if o.get("kind") == "Pod"]
    seals = [o for o in objects if o.get("kind") == "SealedRun"]
    found = [
        role
        for seal in _of_jobs(seals, jobs)
        for role in _roles(seal, _said(seal), pods)
        if not namespaces or role.namespace in namespaces
    ]
    return _any(found, ", ".join(map(str, files)), jobs)


def _of_jobs(seals: Iterable[JsonObject], jobs: Collection[str]) -> Iterator[JsonObject]:
    for seal in seals:
        labels = json_object(json_object(seal.get("metadata")).get("labels"))
        if not jobs or labels.get(LABEL_JOB) in jobs:
            yield seal


def _said(seal: JsonObject) -> Iterator[BoundRole]:
    """The roles of a seal as it says them itself."""
    spec = json_object(seal.get("spec"))
    roles = {r.get("name"): r for r in json_objects(spec.get("roles"))}
    # Of a seal that is of another release nothing more than Kubernetes' own is known.
    engine = str(spec.get("engine")) if spec.get("engine") in ENGINES else "Job"
    binding = json_object(json_object(seal.get("status")).get("binding"))
    for bound in json_objects(binding.get("objects")):
        role = roles.get(bound.get("role"), {})
        replicas = role.get("replicas")
        yield BoundRole(
            role=str(bound.get("role")),
            object_name=str(bound.get("name")),
            object_uid=str(bound.get("uid")),
            replicas=replicas if isinstance(replicas, int) else 0,
            template=json_object(role.get("template")),
            engine=engine,
        )


def _roles(
    seal: JsonObject, roles: Iterable[BoundRole], pods: Sequence[JsonObject]
) -> Iterator[RolePods]:
    metadata = json_object(seal.get("metadata"))
    namespace = str(metadata.get("namespace"))
    for role in roles:
        own = tuple(p for p in pods if _owner(p, namespace) == role.object_uid)
        if own:
            expected = expected_pod(role)
            yield RolePods(namespace, str(metadata.get("name")), role.role, expected, own)


def _owner(pod: JsonObject, namespace: str) -> str:
    metadata = json_object(pod.get("metadata"))
    if metadata.get("namespace") != namespace:
        return ""
    owners = json_objects(metadata.get("ownerReferences"))
    return next((str(o.get("uid")) for o in owners if o.get("controller") is True), "")


def _any(found: list[RolePods], where: str, jobs: Collection[str]) -> list[RolePods]:
    if not found:
        runs = f"runs of {', '.join(jobs)}" if jobs else "runs"
        raise Failure(
            f"{where}: found no pods of sealed {runs}",
            expected="pods that run, or ran and are still there, with their SealedRuns",
            remedy="set the policy to Audit, submit a job, and look while it runs; a dump is "
            "`kubectl get sealedruns,pods -n NS -o yaml`",
            code=UNDETERMINED,
        )
    return found
