"""The engine's objects of a run, brought to what they should be. Level-triggered and idempotent.

An object that stands in the way under our name, but is not ours by owner UID, is never touched:
an editor could have put it there, and the run waits with the reason said.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object
from trainseal.cluster.api import JSON_PATCH, ConflictError, Kube, NotFoundError, path_of
from trainseal.engines.catalogue import KINDS
from trainseal.engines.engine import Rendered
from trainseal.engines.podtemplate import LABEL_JOB

_PLURALS = {
    "ConfigMap": ("v1", "configmaps"),
    "Service": ("v1", "services"),
    "NetworkPolicy": ("networking.k8s.io/v1", "networkpolicies"),
    **{kind.kind: (kind.api_version, kind.plural) for kind in KINDS.values()},
}


class ForeignObjectError(Exception):
    """An object of our name belongs to somebody else."""

    @classmethod
    def of(cls, kind: str, namespace: str, name: str) -> ForeignObjectError:
        """Found under the name that an object of a job's should have."""
        return cls(
            f"{kind} {namespace}/{name} exists and does not belong to this job; "
            "delete or rename it, or choose another name for the job"
        )


def collection(kind: str, namespace: str) -> str:
    """The URL path of a kind's collection."""
    api_version, plural = _PLURALS[kind]
    return path_of(api_version, plural, namespace)


def uid_of(obj: Mapping[str, JsonValue]) -> str:
    """The object's UID."""
    metadata = obj.get("metadata")
    return str(metadata.get("uid", "")) if isinstance(metadata, Mapping) else ""


def owned_by(obj: Mapping[str, JsonValue], uid: str) -> bool:
    """Whether the object's controlling owner has this UID."""
    metadata = obj.get("metadata")
    owners = metadata.get("ownerReferences") if isinstance(metadata, Mapping) else None
    return any(
        isinstance(o, Mapping) and o.get("uid") == uid and o.get("controller") is True
        for o in (owners if isinstance(owners, list) else ())
    )


async def ensure(
    kube: Kube, obj: JsonObject, owner: str, *, new: bool = False
) -> tuple[JsonObject, bool]:
    """The object as it stands, made if it was missing (then the flag is true).

    ``new``: it will be missing, so that to make it comes first; the result is the same. Raises
    ForeignObjectError where one of that name is not the owner's.
    """
    kind = str(obj["kind"])
    metadata = obj["metadata"]
    assert isinstance(metadata, dict)  # noqa: S101 - rendered by us
    path = collection(kind, str(metadata["namespace"]))
    name = str(metadata["name"])
    there = None if new else await found(kube, f"{path}/{name}")
    made = there is None
    if there is None:
        try:
            there = await kube.create(path, obj)
        except ConflictError:
            there, made = await kube.get(f"{path}/{name}"), False
    if not owned_by(there, owner):
        raise ForeignObjectError.of(kind, str(metadata["namespace"]), name)
    return there, made


async def found(kube: Kube, path: str) -> JsonObject | None:
    """The object, or None where there is none. Raises KubeError."""
    try:
        return await kube.get(path)
    except NotFoundError:
        return None


async def replace_spec(kube: Kube, obj: JsonObject, owner: str) -> None:
    """The object made, or its whole spec replaced where it says something else.

    Raises ForeignObjectError where one of that name is not the owner's.
    """
    found, _ = await ensure(kube, obj, owner)
    if found.get("spec") == obj["spec"]:
        return
    metadata = json_object(obj["metadata"])
    path = f"{collection(str(obj['kind']), str(metadata['namespace']))}/{metadata['name']}"
    patch: list[JsonValue] = [
        {"op": "test", "path": "/metadata/uid", "value": uid_of(found)},
        {"op": "add", "path": "/spec", "value": obj["spec"]},
    ]
    await kube.patch(path, patch, JSON_PATCH)


async def put_status(kube: Kube, path: str, obj: JsonObject, status: JsonObject) -> None:
    """Replaces the status of ``obj``, and of no other that has its name by now.

    Raises KubeError, with 422 where it is another: for a status the API server does not heed the
    UID of a merge patch.
    """
    patch: list[JsonValue] = [
        {"op": "test", "path": "/metadata/uid", "value": uid_of(obj)},
        {"op": "add", "path": "/status", "value": status},
    ]
    await kube.patch(f"{path}/status", patch, JSON_PATCH)


async def ensure_surroundings(
    kube: Kube, rendered: Rendered, owner: str, *, new: bool = False
) -> list[str]:
    """NetworkPolicy, ConfigMap and Service; returns words for what differs from what was sealed.

    ``new`` as for ``ensure``.
    """
    differing = []
    for obj in (rendered.network_policy, rendered.config_map, rendered.service):
        if obj is None:
            continue
        found, _ = await ensure(kube, obj, owner, new=new)
        name = f"{obj['kind']} {json_object(obj['metadata']).get('name')}"
        if not _holds(obj, found):
            differing.append(f"{name} is not what was sealed")
        elif not _is_watched(obj, found):
            differing.append(f"{name} lost its label {LABEL_JOB}, by which it is watched")
    return differing


def _is_watched(wanted: JsonObject, found: JsonObject) -> bool:
    """Whether we hear of what becomes of the object."""
    one, other = (
        json_object(json_object(obj.get("metadata")).get("labels")) for obj in (wanted, found)
    )
    return one.get(LABEL_JOB) == other.get(LABEL_JOB)


def _holds(wanted: Mapping[str, JsonValue], found: Mapping[str, JsonValue]) -> bool:
    """Whether an object still says what we wrote; fields that the server added do not count."""
    if wanted.get("kind") == "NetworkPolicy":
        # The server adds nothing to ours, and one more rule opens it.
        return wanted.get("spec") == found.get("spec")
    return all(holds(wanted.get(f), found.get(f)) for f in ("data", "spec", "immutable"))


def holds(wanted: JsonValue, found: JsonValue) -> bool:
    """Whether ``found`` says all that ``wanted`` does; what the server added does not count."""
    if wanted is None:
        return True
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(holds(v, found.get(k)) for k, v in wanted.items())
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(holds(a, b) for a, b in zip(wanted, found, strict=True))
        )
    return wanted == found
