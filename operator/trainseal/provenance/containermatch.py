"""Whether a pod's containers are what the seal says; one part of ``podmatch``.

What Kubernetes adds to a container is named here: the Job controller's index variable, the service
account's token mount, LimitRanger's and the API server's default requests and limits,
AlwaysPullImages' policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pydantic import JsonValue

from trainseal.provenance.additionmatch import container_fault, is_field, mount_fault
from trainseal.provenance.additions import Additions
from trainseal.provenance.commandlines import loads_code
from trainseal.provenance.differences import (
    EMPTY,
    NOTHING,
    Difference,
    Json,
    mapping,
    mapping_differences,
    named_differences,
    objects,
    same,
    short,
)

_OWN_CHECK = frozenset({"env", "imagePullPolicy", "resizePolicy", "resources", "volumeMounts"})
INDEX = "batch.kubernetes.io/job-completion-index"
_TOKEN_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 - a path, no secret
_TOKEN_VOLUME = "kube-api-access-"  # noqa: S105 - a name, no secret
#: What the token volume holds beside the token (the ServiceAccount plugin's TokenVolumeSource).
_TOKEN_COMPANIONS: tuple[Json, ...] = (
    {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
    {
        "downwardAPI": {
            "items": [
                {
                    "path": "namespace",
                    "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"},
                }
            ]
        }
    },
)
_INDEX_VARIABLE = "JOB_COMPLETION_INDEX"
#: The variable that the Job controller adds to each container of an Indexed Job.
_INDEX_ENTRIES: tuple[Json, ...] = tuple(
    {
        "name": _INDEX_VARIABLE,
        "valueFrom": {"fieldRef": {"apiVersion": "v1", "fieldPath": f"metadata.{what}['{INDEX}']"}},
    }
    for what in ("labels", "annotations")
)
#: What a controller adds to each container, once: by the variable's name what it may be.
Added = Mapping[str, tuple[Json, ...]]
BY_JOBS: Added = {_INDEX_VARIABLE: _INDEX_ENTRIES}
#: Resources that a LimitRange may default; never an extended resource.
_DEFAULTABLE = frozenset({"cpu", "memory", "ephemeral-storage"})


@dataclass(frozen=True, slots=True)
class ExpectedContainer:
    """A container as it must be, split so that equality is one comparison a part."""

    name: str
    fixed: Json
    env: list[Json]
    mounts: list[Json]
    resources: Json
    pull_policy: JsonValue
    resize_policy: JsonValue
    names: frozenset[str]
    #: Paths that it has, and that nothing added may overlap.
    taken: tuple[str, ...]
    #: Variables that a controller adds.
    added: Added


def expected_container(container: Json, added: Added = BY_JOBS) -> ExpectedContainer:
    env = objects(container.get("env"))
    return ExpectedContainer(
        name=str(container.get("name")),
        fixed={k: v for k, v in container.items() if k not in _OWN_CHECK},
        env=env,
        mounts=objects(container.get("volumeMounts")),
        resources=mapping(container.get("resources")),
        pull_policy=container.get("imagePullPolicy"),
        resize_policy=container.get("resizePolicy"),
        names=frozenset(str(e.get("name")) for e in env),
        taken=tuple(
            str(path)
            for path in (
                *(m.get("mountPath") for m in objects(container.get("volumeMounts"))),
                container.get("workingDir"),
            )
            if path
        ),
        added=added,
    )


def token_volume(volumes: JsonValue) -> str:
    """The name of the token volume; empty where there is not exactly one."""
    if not isinstance(volumes, list):
        return ""
    names = [str(v["name"]) for v in volumes if isinstance(v, dict) and _is_token_volume(v)]
    return names[0] if len(names) == 1 else ""


def _is_token_volume(volume: Json) -> bool:
    """A projected volume as the ServiceAccount admission plugin writes it, and nothing more."""
    projected = volume.get("projected")
    if not str(volume.get("name", "")).startswith(_TOKEN_VOLUME) or not isinstance(projected, dict):
        return False
    sources = objects(projected.get("sources"))
    if volume.keys() != {"name", "projected"} or not projected.keys() <= {"sources", "defaultMode"}:
        return False
    if projected.get("defaultMode", 420) != 420 or tuple(sources[1:]) != _TOKEN_COMPANIONS:
        return False
    token = mapping(sources[0].get("serviceAccountToken"))
    return (
        sources[0].keys() == {"serviceAccountToken"}
        and token.keys() <= {"expirationSeconds", "path"}
        and token.get("path") == "token"
    )


@dataclass(frozen=True, slots=True)
class Around:
    """What of the rest of the pod containers are compared by: the name of the token volume, empty
    where there is none; the names of the template's volumes; what policies let a platform add.
    """

    token: str
    volumes: frozenset[str]
    additions: Additions


def compare_containers(
    kind: Literal["containers", "initContainers"],
    expected: Sequence[ExpectedContainer],
    found: JsonValue,
    around: Around,
) -> Iterator[Difference]:
    """Those of one kind. What was signed stands in its order; what is added, before, between or
    behind it: the gate so stays before every signed container that was behind it.
    """
    path, containers = f"spec.{kind}", objects(found)
    names = [c.name for c in expected]
    if [c.get("name") for c in containers] == names:
        places = tuple(enumerate(containers))
    else:
        places = tuple((i, c) for i, c in enumerate(containers) if str(c.get("name")) in names)
        if [c.get("name") for _, c in places] != names:
            yield Difference(path, f"{[c.get('name') for c in containers]}", f"{names}")
            return
        for added in containers:
            if str(added.get("name")) not in names:
                yield from _added(path, added, around)
    for wanted, (index, container) in zip(expected, places, strict=True):
        yield from _container(f"{path}[{index}]", wanted, container, around)


def _added(path: str, container: Json, around: Around) -> Iterator[Difference]:
    fault = container_fault(
        container,
        init=path == "spec.initContainers",
        volumes=around.volumes,
        token=_token_mount(around.token) if around.token else None,
        additions=around.additions,
    )
    if fault is not None:
        words = f"a container with image {container.get('image')}: {fault}"
        yield Difference(f"{path}[{container.get('name')}]", words, "no such container")


def _container(
    path: str, expected: ExpectedContainer, found: Json, around: Around
) -> Iterator[Difference]:
    if not same(found, _OWN_CHECK, expected.fixed):
        yield from mapping_differences(path, found, expected.fixed, _OWN_CHECK)
    pull = found.get("imagePullPolicy")
    if pull not in (expected.pull_policy, "Always"):  # AlwaysPullImages sets it
        yield Difference(f"{path}.imagePullPolicy", short(pull), short(expected.pull_policy))
    resize = found.get("resizePolicy")
    if resize != expected.resize_policy and not _is_default_resize(resize):
        yield Difference(f"{path}.resizePolicy", short(resize), short(expected.resize_policy))
    env = found.get("env", NOTHING)
    if env != expected.env:
        yield from _env(f"{path}.env", expected, objects(env), around.additions)
    mounts = found.get("volumeMounts", NOTHING)
    if mounts != expected.mounts:
        yield from _mounts(f"{path}.volumeMounts", expected, objects(mounts), around)
    resources = found.get("resources", EMPTY)
    if resources != expected.resources:
        yield from _resources(f"{path}.resources", mapping(resources), expected.resources)


def _mounts(
    path: str, expected: ExpectedContainer, found: Sequence[Json], around: Around
) -> Iterator[Difference]:
    rest = [m for m in found if not (around.token and m == _token_mount(around.token))]
    signed = [m for m in rest if str(m.get("name")) in around.volumes]
    if signed != expected.mounts:
        yield from named_differences(path, signed, expected.mounts)
    for mount in rest if len(signed) < len(rest) else ():
        if str(mount.get("name")) not in around.volumes:
            fault = mount_fault(mount, expected.taken, around.additions)
            if fault is not None:
                name, place = mount.get("name"), mount.get("mountPath")
                yield Difference(f"{path}[{name}]", f"mounted at {place}: {fault}", "no such mount")


def _is_default_resize(policy: JsonValue) -> bool:
    """As the API server defaults it (Kubernetes 1.27 to 1.32)."""
    return isinstance(policy, list) and all(
        isinstance(p, dict)
        and p.get("resourceName") in _DEFAULTABLE
        and p.get("restartPolicy") == "NotRequired"
        for p in policy
    )


def _token_mount(volume: str) -> Json:
    return {"name": volume, "readOnly": True, "mountPath": _TOKEN_MOUNT}


def _resources(path: str, found: Json, wanted: Json) -> Iterator[Difference]:
    amounts = ("limits", "requests")
    yield from mapping_differences(
        path, found, {k: v for k, v in wanted.items() if k not in amounts}, frozenset(amounts)
    )
    limits = mapping(found.get("limits"))
    yield from _quantities(f"{path}.limits", limits, mapping(wanted.get("limits")), {})
    # Kubernetes sets a request that is not given to its limit.
    yield from _quantities(
        f"{path}.requests", mapping(found.get("requests")), mapping(wanted.get("requests")), limits
    )


def _quantities(path: str, found: Json, wanted: Json, implied: Json) -> Iterator[Difference]:
    for name in sorted(found.keys() | wanted.keys()):
        value = found.get(name)
        if value == wanted.get(name) or (name not in wanted and value == implied.get(name)):
            continue
        if name not in wanted and name in _DEFAULTABLE:
            continue
        yield Difference(f"{path}[{name}]", f"{value!r}", f"{wanted.get(name)!r}")


def _env(
    path: str, expected: ExpectedContainer, found: Sequence[Json], additions: Additions
) -> Iterator[Difference]:
    rest = _without_added(expected, found)
    if rest == expected.env:
        return
    kept, explained = [], False
    for entry in rest:
        if entry in expected.env:
            kept.append(entry)
        elif not _is_added(entry, expected.names, additions):
            explained = True
            yield Difference(
                f"{path}[{entry.get('name')}]", "present or changed", "no such variable or value"
            )
    for entry in expected.env:
        if entry not in kept:
            explained = True
            yield Difference(f"{path}[{entry.get('name')}]", "absent or changed", "as signed")
    if kept != expected.env and not explained:
        # A later variable overrides an earlier one of its name: order and number have meaning.
        yield Difference(path, "another order or number", "the signed order")


def variables_beside(expected: ExpectedContainer, found: Sequence[Json]) -> list[Json]:
    """Those that somebody added to a container's."""
    return [e for e in _without_added(expected, found) if e not in expected.env]


def _without_added(expected: ExpectedContainer, found: Sequence[Json]) -> list[Json]:
    rest = list(found)
    for name, entries in expected.added.items():
        # The Job controller adds its own once, and only where there is none of that name; others
        # add theirs in any case, and the last counts: so it says what the last signed one says.
        if name in expected.names:
            last = [e for e in expected.env if e.get("name") == name][-1]
            if last not in entries or rest.count(last) <= expected.env.count(last):
                continue
        # Looked for from the end, where it stands unless a platform added variables after it.
        for at in range(len(rest) - 1, -1, -1):
            if rest[at] in entries:
                del rest[at]
                break
    return rest


def _is_added(entry: Json, names: frozenset[str], additions: Additions) -> bool:
    """Whether a policy's addition names this variable. Never one that loads code."""
    name, value = str(entry.get("name")), entry.get("value", "")
    if name in names or loads_code(name):
        return False
    if is_field(entry):
        return name in additions.fields
    return (
        isinstance(value, str)
        and entry.keys() <= {"name", "value"}
        and value.startswith(additions.env.get(name, ()))
    )
