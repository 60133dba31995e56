"""The seal's digest, and the operator's signature that binds it to the engine's objects.

The signed payload is the canonical JSON (RFC 8785) of cluster, namespace, seal name, seal digest
and the bound objects' role, kind, name and UID, in DSSE's pre-authentication encoding; of a run
with an elastic role also its epoch and members (``memberships``). Rules:

1. The seal digest covers ``spec`` whole, with the object's namespace and name.
2. A binding counts only under a key of the public keyring that was valid when it was signed: when
   the run was bound, or its epoch began.
3. What a binding says is compared with the object it stands in: a signature lifted into another
   seal, namespace or cluster does not verify.
4. A seal that etcd would not take, now or once its status has grown, is not made.
5. A binding without a membership is signed as it always was: one of an earlier release verifies.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import datetime

from pydantic import JsonValue

from trainseal.provenance.canonical import canonical_bytes, digest
from trainseal.provenance.keyrings import (
    Keyring,
    UntrustedError,
    read_signed_text,
    rfc3339,
    sign_as,
    signed_text,
    verify_as,
)
from trainseal.provenance.keys import PrivateKey, key_id
from trainseal.provenance.memberships import Membership, members_of

SEAL_TYPE = "application/vnd.trainseal.seal.v1+json"
SEAL_ANNOTATION = "trainseal.dev/seal-signature"
MAX_MARK_BYTES = 2048
BINDING_TYPE = "application/vnd.trainseal.seal-binding.v1+json"
MAX_OBJECTS = 64
#: Of a seal's spec as it is stored. etcd takes 1.5 MiB in one request, for the whole object; the
#: rest is for the status, whose own bounds keep it within that, and the metadata.
MAX_SPEC_BYTES = 768 * 1024
#: What Go's encoding/json writes as six bytes each, so that JSON may stand in HTML.
_ESCAPED = re.compile("[<>&\u2028\u2029]")

Json = Mapping[str, JsonValue]


class SealTooLargeError(ValueError):
    """What a run's seal would hold is more than can be stored; says how much, and what to do."""


@dataclass(frozen=True, slots=True)
class BoundUid:
    """One of the engine's objects; ``role`` is empty for what all roles' objects are made from, of
    which the root is bound first.
    """

    role: str
    kind: str
    name: str
    uid: str


def seal_digest(namespace: str, name: str, spec: Json) -> str:
    """``sha256:…`` over the seal's namespace, name and spec as the API server stores them."""
    return digest({"namespace": namespace, "name": name, "spec": dict(spec)})


def check_size(spec: Json) -> None:
    """Raises SealTooLargeError for a spec beyond ``MAX_SPEC_BYTES``."""
    size = stored_bytes(spec)
    if size > MAX_SPEC_BYTES:
        raise SealTooLargeError(
            f"found {size} bytes of pod templates, images and signers to be sealed, expected at "
            f"most {MAX_SPEC_BYTES}; move long commands and variables into the config or the code "
            "tree, and see what containers and roles could share"
        )


def stored_bytes(value: object) -> int:
    """How long a JSON value is as the API server stores it: compact, in UTF-8, escaped by Go."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    plain = text.encode("utf-8", "surrogatepass")
    return len(plain) + sum(6 - len(c.encode()) for c in _ESCAPED.findall(text))


def sign_seal(key: PrivateKey, *, namespace: str, name: str, spec: Json, now: datetime) -> str:
    """The operator's mark on a seal that is not bound yet, as annotation text.

    Between making a seal and binding it lies a window (and perhaps a restart); without the mark,
    a seal that somebody else put there under our name would be bound.
    """
    content: dict[str, JsonValue] = {
        "sealDigest": seal_digest(namespace, name, spec),
        "signedAt": rfc3339(now),
    }
    return signed_text(key, SEAL_TYPE, content)


def verify_seal(keyring: Keyring, text: str, *, namespace: str, name: str, spec: Json) -> None:
    """Raises UntrustedError unless the mark is the operator's and over exactly this seal."""
    try:
        content = read_signed_text(
            keyring, text, SEAL_TYPE, time_field="signedAt", max_bytes=MAX_MARK_BYTES
        )
        if content.get("sealDigest") != seal_digest(namespace, name, spec):
            raise UntrustedError("it is over another seal: edited or forged")
    except ValueError as error:
        raise UntrustedError(
            f"SealedRun {namespace}/{name} was not made by TrainSeal's controller: {error}"
        ) from None


def bind(
    key: PrivateKey,
    *,
    namespace: str,
    name: str,
    spec: Json,
    objects: tuple[BoundUid, ...],
    now: datetime,
    membership: Membership | None = None,
) -> dict[str, JsonValue]:
    """The binding for ``status.binding`` of a seal: signs it together with the objects' UIDs, and
    with who is a member, where a role is elastic. ``now``: when it was first bound.
    """
    seal, bound_at = seal_digest(namespace, name, spec), rfc3339(now)
    body = _body(str(spec.get("cluster")), namespace, name, seal, objects, bound_at, membership)
    return {
        "sealDigest": seal,
        "objects": [asdict(o) for o in objects],
        **_wire(membership),
        "keyID": key_id(key.public),
        "signature": sign_as(key, BINDING_TYPE, body),
        "boundAt": bound_at,
    }


def verify_binding(
    keyring: Keyring, *, cluster: str, namespace: str, name: str, spec: Json, binding: Json
) -> tuple[BoundUid, ...]:
    """The objects that a seal is bound to; raises UntrustedError where the seal is not ours."""
    if spec.get("cluster") != cluster:
        raise UntrustedError(
            f"SealedRun {namespace}/{name} was sealed in cluster {spec.get('cluster')!r}, "
            f"this is {cluster!r}"
        )
    objects = _objects(binding.get("objects"))
    bound_at = str(binding.get("boundAt"))
    try:
        digested = seal_digest(namespace, name, spec)
        membership = membership_of(binding)
        body = _body(cluster, namespace, name, digested, objects, bound_at, membership)
        verify_as(
            keyring,
            str(binding.get("keyID")),
            membership.since if membership else bound_at,
            BINDING_TYPE,
            body,
            str(binding.get("signature")),
        )
    except UntrustedError as error:
        raise UntrustedError(f"SealedRun {namespace}/{name}: {error}") from None
    return objects


def membership_of(binding: Json) -> Membership | None:
    """What a binding says of who is a member; None where no role is elastic.

    Whether it is the operator's is ``verify_binding``'s to say. Raises UntrustedError.
    """
    epoch, listed, since = (binding.get(f) for f in ("epoch", "members", "epochSince"))
    if epoch is None and listed is None and since is None:
        return None
    members = members_of(listed)
    whole = isinstance(listed, list) and 0 < len(listed) == len(members) <= MAX_OBJECTS
    number = epoch if isinstance(epoch, int) and not isinstance(epoch, bool) else 0
    if number < 1 or not whole or not isinstance(since, str):
        raise UntrustedError("the binding's epoch and members are malformed")
    return Membership(number, members, since)


def _wire(membership: Membership | None) -> dict[str, JsonValue]:
    if membership is None:
        return {}
    return {
        "epoch": membership.epoch,
        "epochSince": membership.since,
        "members": membership.listed(),
    }


def _body(
    cluster: str,
    namespace: str,
    name: str,
    seal: str,
    objects: tuple[BoundUid, ...],
    bound_at: str,
    membership: Membership | None,
) -> bytes:
    return canonical_bytes(
        {
            "boundAt": bound_at,
            "cluster": cluster,
            "namespace": namespace,
            "name": name,
            "sealDigest": seal,
            "objects": [asdict(o) for o in objects],
            **_wire(membership),
        }
    )


def _objects(value: JsonValue) -> tuple[BoundUid, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_OBJECTS:
        raise UntrustedError("the binding names no objects")
    found = []
    for item in value:
        if not isinstance(item, Mapping):
            raise UntrustedError("the binding's objects are malformed")
        found.append(BoundUid(*(str(item.get(f)) for f in ("role", "kind", "name", "uid"))))
    return tuple(found)
