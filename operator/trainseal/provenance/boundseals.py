"""A seal that counts: its binding verified, its roles joined with the objects that run them.

Pure. Whoever compares something with a seal opens it here, so that an unbound, forged or lifted
seal is never compared with by anyone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.provenance.keyrings import Keyring, UntrustedError
from trainseal.provenance.memberships import Range, sizes_of_seal
from trainseal.provenance.seals import BoundUid, membership_of, verify_binding

#: Phases of a SealedRun whose run has ended: no pod is compared with it any more.
ENDED = frozenset({"Succeeded", "Failed", "Deleted"})


@dataclass(frozen=True, slots=True)
class BoundRole:
    """A role of a verified seal, and the engine's object whose pods it describes.

    ``replicas``: its pods; of an elastic role the most, and ``members`` says how many belong to it
    now. ``root``: what the engine made that object from; None where it is a root itself. ``above``:
    what else all roles' objects were made from. ``peers``: all roles of the seal, in their order.
    """

    role: str
    object_name: str
    object_uid: str
    replicas: int
    template: JsonObject
    namespace: str = ""
    engine: str = "Job"
    root: BoundUid | None = None
    above: tuple[BoundUid, ...] = ()
    peers: tuple[str, ...] = ()
    members: int | None = None


def has_ended(seal: Mapping[str, JsonValue]) -> bool:
    """Whether the seal's run is over."""
    return json_object(seal.get("status")).get("phase") in ENDED


def kept_by_watchers(seal: JsonObject) -> JsonObject:
    """What a process that watches seals keeps of one: of a run that has ended, nothing but that; of
    others all but the job that was signed, which each watcher would hold of each run.
    """
    metadata = {k: v for k, v in json_object(seal.get("metadata")).items() if k != "managedFields"}
    status = json_object(seal.get("status"))
    if not has_ended(seal):
        status = {k: v for k, v in status.items() if k != "signed"}
        return {**seal, "metadata": metadata, "status": status}
    kept: JsonObject = {k: metadata.get(k) for k in ("name", "namespace", "resourceVersion")}
    return {"metadata": kept, "status": {"phase": status["phase"]}}


def bound_roles(
    keyring: Keyring, *, cluster: str, namespace: str, name: str, seal: Mapping[str, JsonValue]
) -> tuple[BoundRole, ...]:
    """The roles of a seal by the objects it is bound to; none while it is not bound.

    Raises UntrustedError where the binding is not the operator's, CanonicalError where the seal
    has no canonical form.
    """
    spec = json_object(seal.get("spec"))
    binding = json_object(seal.get("status")).get("binding")
    if not isinstance(binding, dict):
        return ()
    bound = verify_binding(
        keyring, cluster=cluster, namespace=namespace, name=name, spec=spec, binding=binding
    )
    roles = {str(r.get("name")): r for r in json_objects(spec.get("roles"))}
    membership = membership_of(binding)
    members = membership.members if membership else {}
    sizes = sizes_of_seal(spec).roles
    for role_name, count in members.items():
        size = sizes.get(role_name)
        if not isinstance(size, Range) or not size.least <= count <= size.most:
            signed = f"{size.least} to {size.most}" if isinstance(size, Range) else "none"
            raise UntrustedError(
                f"SealedRun {namespace}/{name}: found {count} members of role {role_name}, "
                f"expected {signed}"
            )
    # The root is bound first.
    above = [item for item in bound if not item.role]
    found = []
    for item in bound:
        role = roles.get(item.role)
        if role is None:
            continue
        replicas = role.get("replicas")
        found.append(
            BoundRole(
                role=item.role,
                object_name=item.name,
                object_uid=item.uid,
                replicas=replicas if isinstance(replicas, int) else 0,
                template=json_object(role.get("template")),
                namespace=namespace,
                engine=str(spec.get("engine")),
                root=above[0] if above else None,
                above=tuple(above[1:]),
                peers=tuple(roles),
                members=members.get(item.role),
            )
        )
    return tuple(found)
