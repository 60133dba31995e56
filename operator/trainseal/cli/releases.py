"""Asking for what a person answers for: a HoldRelease in the caller's own name."""

from __future__ import annotations

import hashlib

from trainseal.api.holdrelease import PLURAL
from trainseal.api.model import API_VERSION, JsonObject
from trainseal.cli.caller import may_not_create
from trainseal.cluster.api import ConflictError, Kube, KubeError, path_of

#: Seconds between two looks at what became of a release.
PAUSE = 0.5
_REASON = 1024


async def ask(
    kube: Kube, namespace: str, user: str, about: str, spec: JsonObject, reason: str
) -> None:
    """Creates a HoldRelease; the same person's same words about the same thing make one.

    ``user`` is who calls; ``about`` begins its name, at most 228 characters; ``spec`` says what is
    to be let go. Raises Failure where the caller has no right to it, KubeError where the cluster
    does not take it.
    """
    mark = hashlib.sha256(f"{user}/{reason}".encode()).hexdigest()[:16]
    body: JsonObject = {
        "apiVersion": API_VERSION,
        "kind": "HoldRelease",
        "metadata": {"name": f"{about}-{mark}", "namespace": namespace},
        "spec": {**spec, "user": user, "reason": reason[:_REASON]},
    }
    try:
        await kube.create(path_of(API_VERSION, PLURAL, namespace), body, strict=True)
    except ConflictError:
        return  # asked before
    except KubeError as error:
        remedy = "ask somebody who has it: the chart's role trainseal-responder gives it"
        raise may_not_create(error, "HoldReleases", namespace, remedy) from None
