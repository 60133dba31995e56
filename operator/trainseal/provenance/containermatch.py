"""Whether a pod's containers are what the seal says; one part of ``podmatch``.

What Kubernetes adds to a container is named here: the Job controller's index variable, the service
account's token mount, LimitRanger's and the API server's default requests and limits,
AlwaysPullImages' policy.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from pydantic import JsonValue

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


def expected_container(container: Json) -> ExpectedContainer:
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


def compare_containers(
    path: str,
    expected: Sequence[ExpectedContainer],
    found: JsonValue,
    token: str,
    additions: Additions,
) -> Iterator[Difference]:
    containers = objects(found)
    names = [c.get("name") for c in containers]
    if names != [c.name for c in expected]:
        yield Difference(path, f"{names}", f"{[c.name for c in expected]}")
        return
    for index, (wanted, container) in enumerate(zip(expected, containers, strict=True)):
        yield from _container(f"{path}[{index}]", wanted, container, token, additions)


def _container(
    path: str, expected: ExpectedContainer, found: Json, token: str, additions: Additions
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
        yield from _env(f"{path}.env", expected, objects(env), additions)
    mounts = found.get("volumeMounts", NOTHING)
    if mounts != expected.mounts:
        rest = [m for m in objects(mounts) if not (token and m == _token_mount(token))]
        if rest != expected.mounts:
            yield from named_differences(f"{path}.volumeMounts", rest, expected.mounts)
    resources = found.get("resources", EMPTY)
    if resources != expected.resources:
        yield from _resources(f"{path}.resources", mapping(resources), expected.resources)


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
    rest = list(found)
    if _INDEX_VARIABLE not in expected.names:
        # The Job controller adds its own once, and only where there is none of that name.
        # Looked for from the end, where it stands unless a platform added variables after it.
        for at in range(len(rest) - 1, -1, -1):
            if rest[at] in _INDEX_ENTRIES:
                del rest[at]
                break
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


def _is_added(entry: Json, names: frozenset[str], additions: Additions) -> bool:
    """Whether a policy's addition names this variable. Never one that loads code."""
    name, value = str(entry.get("name")), entry.get("value", "")
    return (
        name not in names
        and isinstance(value, str)
        and entry.keys() <= {"name", "value"}
        and value.startswith(additions.env.get(name, ()))
        and not loads_code(name)
    )
