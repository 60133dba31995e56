"""What ``trainseal simulate`` judges, of a cluster or of files; and by which policies."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from pathlib import Path

import yaml

from trainseal.admission.podmakers import BY_KIND
from trainseal.api.model import API_VERSION, JsonObject, json_object, json_objects
from trainseal.cli.clusterrules import policies_of, settings_of
from trainseal.cli.failures import UNDETERMINED, Failure
from trainseal.cli.simulation import TRAINING_JOB, World
from trainseal.cli.verification import Policies, read_policies
from trainseal.cluster.api import Kube, KubeError, NotFoundError, path_of
from trainseal.cluster.listing import listed

#: libyaml's where there is one: a cluster's dump has megabytes.
_LOADER: type[yaml.SafeLoader] = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_KINDS: dict[str, tuple[str, str]] = {
    **{maker.kind: (maker.api_version, maker.plural) for maker in BY_KIND.values()},
    TRAINING_JOB: (API_VERSION, "trainingjobs"),
}
_DEVICES = ("resource.k8s.io/v1", "deviceclasses")


def from_files(files: Sequence[Path], policies: Sequence[Path]) -> World:
    """Manifests, one document or many, lists among them. Raises Failure, ManifestError."""
    read = read_policies(policies)
    objects = [obj for file in files for obj in documents(file)]
    wanted = [o for o in objects if o.get("kind") in _KINDS]
    if not wanted:
        kinds = ", ".join(sorted({str(o.get("kind")) for o in objects})) or "nothing"
        raise Failure(
            f"{', '.join(map(str, files))}: nothing that makes pods (found {kinds})",
            expected=f"objects of the kinds {', '.join(_KINDS)}",
            remedy="`kubectl get pods,deploy,sts,ds,jobs,cronjobs,tj -A -o yaml` prints them",
        )
    return World(tuple(wanted), read.compiled, read.broken, devices=frozenset(_devices(objects)))


def documents(file: Path) -> Iterator[JsonObject]:
    """The objects in a file of JSON or YAML, those in lists among them. Raises Failure."""
    text = file.read_text()
    try:
        if text.lstrip().startswith("{"):
            values = [json.loads(text)]
        else:
            values = list(yaml.load_all(text, _LOADER))
    except (yaml.YAMLError, json.JSONDecodeError) as error:
        raise Failure(f"{file}: {error}", expected="manifests as YAML or JSON") from None
    for value in values:
        obj = json_object(value)
        yield from json_objects(obj["items"]) if "items" in obj else iter([obj])


async def from_cluster(
    kube: Kube, release: str, policies: Sequence[Path], namespaces: Collection[str]
) -> World:
    """What the cluster has, and its own policies unless others are given. Raises Failure."""
    try:
        settings = await settings_of(kube, release)
    except KubeError as error:
        raise _unreadable("the chart's configuration", error) from None
    try:
        objects = [o async for o in _objects(kube, namespaces)]
        names = frozenset(_devices([o async for o in _device_classes(kube)]))
    except KubeError as error:
        raise _unreadable("the cluster's workloads", error) from None
    read = read_policies(policies) if policies else await _policies(kube)
    excluded = frozenset({*settings.excluded_namespaces, release, settings.agent_namespace})
    return World(tuple(objects), read.compiled, read.broken, settings, excluded, names)


async def _objects(kube: Kube, namespaces: Collection[str]) -> AsyncIterator[JsonObject]:
    for kind, (version, plural) in _KINDS.items():
        wanted: list[str | None] = [*sorted(namespaces)] or [None]
        for namespace in wanted:
            try:
                async for item in listed(kube, path_of(version, plural, namespace)):
                    yield {**item, "kind": kind}
            except NotFoundError:
                continue  # a kind that this cluster does not have


async def _device_classes(kube: Kube) -> AsyncIterator[JsonObject]:
    try:
        async for item in listed(kube, path_of(*_DEVICES)):
            yield {**item, "kind": "DeviceClass"}
    except KubeError:
        return  # older clusters have none, and not everybody may look


def _devices(objects: Sequence[JsonObject]) -> Iterator[str]:
    for obj in objects:
        name = json_object(obj.get("spec")).get("extendedResourceName")
        if obj.get("kind") == "DeviceClass" and isinstance(name, str):
            yield name


async def _policies(kube: Kube) -> Policies:
    try:
        store = await policies_of(kube)
    except NotFoundError:
        raise Failure(
            "the cluster has no ProvenancePolicies: TrainSeal is not installed there",
            remedy="name the policies' files: --policy policy.yaml",
        ) from None
    except KubeError as error:
        raise _unreadable("the cluster's policies", error) from None
    return Policies(store.policies, store.broken)


def _unreadable(what: str, error: KubeError) -> Failure:
    return Failure(
        f"{what} could not be read: {error.message or error.reason}",
        expected="the right to list pods, what makes pods, and policies, in all namespaces",
        remedy="ask for it, or judge a dump: `trainseal simulate -f dump.yaml --policy FILE`",
        code=UNDETERMINED,
    )
