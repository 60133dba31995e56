"""AdmissionReview v1, by hand: the pod path pays for no model that it does not need.

Source: k8s.io/api/admission/v1, AdmissionReview, AdmissionRequest, AdmissionResponse.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import orjson
from pydantic import JsonValue

from trainseal.api.model import JsonObject

MAX_MESSAGE = 16 * 1024
FORBIDDEN = 403
TRY_AGAIN = 503
TOO_MANY = 429


class MalformedReviewError(ValueError):
    """The body is no AdmissionReview; whoever sent it is not an API server."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the API server asks. ``object`` is empty on DELETE, ``old`` on CREATE and CONNECT.

    ``user`` is userInfo whole, with groups and extra; ``options`` are those of the operation;
    ``size`` is the review's, in bytes.
    """

    uid: str
    operation: str
    resource: str
    subresource: str
    namespace: str
    name: str
    username: str
    user_uid: str
    dry_run: bool
    object: JsonObject
    old: JsonObject
    user: JsonObject = field(default_factory=dict)
    options: JsonObject = field(default_factory=dict)
    size: int = 0


@dataclass(frozen=True, slots=True)
class Response:
    """What is answered: allowed, or why not; a JSON patch; warnings for the person.

    ``reasons`` are those of the verdicts in the message, the first one first.
    """

    allowed: bool
    message: str = ""
    code: int = FORBIDDEN
    reasons: Sequence[str] = ()
    patch: Sequence[JsonObject] = ()
    warnings: Sequence[str] = ()
    audit: Mapping[str, str] = field(default_factory=dict)


ALLOWED = Response(True)


def parse(body: bytes) -> Request:
    """The request in a review's bytes. Raises MalformedReviewError."""
    try:
        review = orjson.loads(body)
        request = review["request"]
        resource = request["resource"]
        user = _mapping(request.get("userInfo"))
        return Request(
            uid=request["uid"],
            operation=request["operation"],
            resource=resource["resource"],
            subresource=request.get("subResource") or "",
            namespace=request.get("namespace") or "",
            name=request.get("name") or "",
            username=str(user.get("username") or ""),
            user_uid=str(user.get("uid") or ""),
            dry_run=bool(request.get("dryRun")),
            object=_mapping(request.get("object")),
            old=_mapping(request.get("oldObject")),
            user=user,
            options=_mapping(request.get("options")),
            size=len(body),
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise MalformedReviewError(f"not an AdmissionReview: {error!r:.200}") from None


def _mapping(value: JsonValue) -> JsonObject:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise TypeError("the object is none")
    return value


def render(uid: str, response: Response) -> bytes:
    """The review to answer with."""
    body: dict[str, JsonValue] = {"uid": uid, "allowed": response.allowed}
    if not response.allowed:
        body["status"] = {
            "code": response.code,
            "reason": "ServiceUnavailable" if response.code == TRY_AGAIN else "Forbidden",
            "message": response.message[:MAX_MESSAGE],
        }
    if response.patch:
        body["patchType"] = "JSONPatch"
        body["patch"] = base64.b64encode(orjson.dumps(list(response.patch))).decode()
    if response.warnings:
        body["warnings"] = [w[:1024] for w in response.warnings]
    if response.audit:
        body["auditAnnotations"] = dict(response.audit)
    return orjson.dumps(
        {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": body}
    )


def deny(message: str, code: int = FORBIDDEN) -> Response:
    """A denial."""
    return Response(False, message, code)


def meta(obj: Mapping[str, JsonValue]) -> JsonObject:
    """An object's metadata, or an empty one."""
    metadata = obj.get("metadata")
    return metadata if isinstance(metadata, dict) else {}
