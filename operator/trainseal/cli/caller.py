"""Who calls, as the API server sees them, and what to say where they may not."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from trainseal.api.model import json_object
from trainseal.cli.failures import REFUTED, Failure
from trainseal.cli.terminaltext import plain
from trainseal.cluster.api import Kube, KubeError, path_of


@dataclass(frozen=True, slots=True)
class Caller:
    """The user's name, empty where the API server gives none, and its time when it was asked."""

    user: str
    now: datetime


async def caller(kube: Kube) -> Caller:
    """Asks the API server. Raises KubeError."""
    review = await kube.request(
        "POST",
        path_of("authentication.k8s.io/v1", "selfsubjectreviews"),
        body={"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"},
    )
    user = json_object(json_object(review.get("status")).get("userInfo")).get("username")
    made = json_object(review.get("metadata")).get("creationTimestamp")
    now = datetime.fromisoformat(made) if isinstance(made, str) else datetime.now(UTC)
    return Caller(str(user or ""), now)


def may_not_create(error: KubeError, kind: str, namespace: str, remedy: str) -> Exception:
    """What to raise where an object could not be created; ``kind`` in the plural."""
    if error.status != 403:
        return error
    return Failure(
        plain(error.message),
        expected=f"the right to create {kind} in namespace {namespace}",
        remedy=remedy,
        code=REFUTED,
    )
