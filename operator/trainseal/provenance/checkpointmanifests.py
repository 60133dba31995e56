"""The manifest of a completed checkpoint: an in-toto statement that the operator signs.

Its subjects are the files, by path within the checkpoints mount and SHA-256; its predicate is the
Checkpoint object itself, what the controller attests beside it, and what it thinks of it: tainted
or not, signed off by whom. It is not stored: whoever has the object makes the same bytes from it,
and the signature (DSSE, https://github.com/secure-systems-lab/dsse) holds for those alone. So an
edited object, or a verdict that was taken off it, does not verify.

Laws: ``verify(ring, signed(key, obj, …)) == payload(…)``; an object that differs anywhere in its
namespace, name, spec or in the signed part of its status does not verify.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import datetime

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.provenance.canonical import CanonicalError, canonical_bytes
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE
from trainseal.provenance.keyrings import Keyring, UntrustedError, rfc3339, sign_as, verify_as
from trainseal.provenance.keys import PrivateKey, key_id
from trainseal.provenance.statements import STATEMENT_V1

CHECKPOINT_PREDICATE = "https://trainseal.dev/attestation/checkpoint/v1alpha1"
#: The parts of ``status`` that the signature covers.
_SIGNED = ("standing", "attested", "tainted", "accepted")

Json = Mapping[str, JsonValue]


def barring(status: Json) -> JsonObject:
    """The taint for which nobody may go on from a checkpoint with this status: empty where it is
    not tainted, or a person signed it off.
    """
    return {} if status.get("accepted") else json_object(status.get("tainted"))


def payload(obj: Json, status: Json, *, key: str, signed_at: str) -> bytes:
    """The statement over a Checkpoint object with this status. Raises CanonicalError.

    ``UntrustedError`` where no file of it has a digest: a statement is about something.
    """
    metadata, spec = json_object(obj.get("metadata")), json_object(obj.get("spec"))
    subjects: list[JsonValue] = [
        {
            "name": str(file.get("path")),
            "digest": {"sha256": str(file["digest"]).removeprefix("sha256:")},
        }
        for file in json_objects(spec.get("files"))
        if file.get("digest")
    ]
    if not subjects:
        raise UntrustedError("no file of it has a digest")
    predicate: JsonObject = {part: status.get(part) for part in _SIGNED if status.get(part)}
    predicate |= {
        "namespace": metadata.get("namespace"),
        "name": metadata.get("name"),
        "spec": spec,
        "keyID": key,
        "signedAt": signed_at,
    }
    return canonical_bytes(
        {
            "_type": STATEMENT_V1,
            "subject": subjects,
            "predicateType": CHECKPOINT_PREDICATE,
            "predicate": predicate,
        }
    )


def sign(key: PrivateKey, obj: Json, status: Json, now: datetime) -> JsonObject:
    """``status.signature`` for a Checkpoint with this status. Raises as ``payload``."""
    signed_at = rfc3339(now)
    body = payload(obj, status, key=key_id(key.public), signed_at=signed_at)
    return {
        "keyID": key_id(key.public),
        "signedAt": signed_at,
        "signature": sign_as(key, IN_TOTO_PAYLOAD_TYPE, body),
    }


def verify(keyring: Keyring, obj: Json) -> bytes:
    """The signed statement of a Checkpoint object; raises UntrustedError where it is not ours."""
    name = json_object(obj.get("metadata")).get("name")
    status = json_object(obj.get("status"))
    signature = json_object(status.get("signature"))
    if not signature:
        raise UntrustedError(f"Checkpoint {name} is not signed")
    key, signed_at = str(signature.get("keyID")), str(signature.get("signedAt"))
    try:
        body = payload(obj, status, key=key, signed_at=signed_at)
        verify_as(
            keyring, key, signed_at, IN_TOTO_PAYLOAD_TYPE, body, str(signature.get("signature"))
        )
    except (UntrustedError, CanonicalError) as error:
        raise UntrustedError(f"Checkpoint {name}: {error}") from None
    return body


def envelope(obj: Json, body: bytes) -> JsonObject:
    """The DSSE envelope of a verified object and its statement, as other tools read it."""
    signature = json_object(json_object(obj.get("status")).get("signature"))
    return {
        "payloadType": IN_TOTO_PAYLOAD_TYPE,
        "payload": base64.b64encode(body).decode(),
        "signatures": [{"keyid": signature.get("keyID"), "sig": signature.get("signature")}],
    }
