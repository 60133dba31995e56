"""What the controller watches, as kopf sees it: a table of contents, one call each.

Only ``on.event`` is used: kopf then writes nothing to the objects, no finalizer and no annotation
that an editor could change or an uninstall leave behind. Retries and order are the work queue's.

Of what a run is made of, the API server is asked only for what bears our label: a cluster holds
many thousands of ConfigMaps that are none of ours. Where somebody takes the label off, the watch
says that the object was deleted.

Handlers are coroutines: kopf would call others in threads of its own, and queues are not for those.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Protocol, cast

import kopf
from pydantic import JsonValue

from trainseal.api.model import GROUP, VERSION, JsonObject
from trainseal.engines.catalogue import ENGINES, kinds_above
from trainseal.engines.podtemplate import LABEL_JOB

Watched = tuple[str, str, str]
#: What a run is made of, whatever its engine: API group, version, plural.
OWNED: tuple[Watched, ...] = (
    ("batch", "v1", "jobs"),
    ("", "v1", "configmaps"),
    ("", "v1", "services"),
    ("networking.k8s.io", "v1", "networkpolicies"),
)


def roots(engines: Iterable[str]) -> tuple[Watched, ...]:
    """What runs by these engines are made of besides."""
    kinds = dict.fromkeys(kind for name in engines for kind in kinds_above(ENGINES[name]))
    found = ((*kind.api_version.split("/"), kind.plural) for kind in kinds)
    return tuple((g, v, p) for g, v, p in found if (g, v, p) not in OWNED)


class Heard(Protocol):
    """Called with namespace and name of a TrainingJob and with an object of its run, or itself."""

    def __call__(self, namespace: str, name: str, obj: JsonObject, *, gone: bool) -> None:
        """Tells how the object is, or was until it was ``gone``."""


def registry(heard: Heard, engines: Iterable[str] = ()) -> kopf.OperatorRegistry:
    """The handlers, all of which only say which TrainingJob was heard of, and what.

    ``engines`` are those whose kinds the cluster has.
    """
    found = kopf.OperatorRegistry()

    @kopf.on.login(registry=found)
    def login(**options: Any) -> kopf.ConnectionInfo | None:
        # In this order the connection is the same as `cluster.api.connect` makes.
        if "KUBECONFIG" not in os.environ and (pod := kopf.login_with_service_account(**options)):
            return pod
        return kopf.login_with_kubeconfig(**options)

    def tell(namespace: str, name: str, event: kopf.RawEvent) -> None:
        obj = cast("JsonObject", event["object"])
        heard(namespace, name, obj, gone=event["type"] == "DELETED")

    @kopf.on.event(GROUP, VERSION, "trainingjobs", registry=found)
    async def training_job(
        namespace: str | None, name: str | None, event: kopf.RawEvent, **_: object
    ) -> None:
        if namespace and name:
            tell(namespace, name, event)

    @kopf.on.event(GROUP, VERSION, "sealedruns", registry=found)
    async def sealed_run(
        namespace: str | None, spec: Mapping[str, JsonValue], event: kopf.RawEvent, **_: object
    ) -> None:
        job = spec.get("job")
        if namespace and isinstance(job, Mapping):
            tell(namespace, str(job.get("name")), event)

    async def owned(
        namespace: str | None, labels: Mapping[str, str], event: kopf.RawEvent, **_: object
    ) -> None:
        if namespace:
            tell(namespace, labels[LABEL_JOB], event)

    for kind in (*OWNED, *roots(engines)):
        kopf.on.event(*kind, labels={LABEL_JOB: kopf.PRESENT}, registry=found)(owned)
    return found


class _NoDiffs(kopf.DiffBaseStorage):
    """Keeps nothing of objects: no handler of ours asks for what has changed in them, and to find
    it out each is copied whole.
    """

    def build(self, **_: object) -> kopf.BodyEssence:
        return cast("kopf.BodyEssence", {})

    def fetch(self, **_: object) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: object) -> None:
        pass


def settings(engines: Iterable[str] = ()) -> kopf.OperatorSettings:
    """kopf without its own peering, posting and scanning."""
    found = kopf.OperatorSettings()
    found.posting.enabled = False
    found.peering.standalone = True
    found.scanning.disabled = True
    found.watching.server_timeout = 300
    found.watching.client_timeout = 330
    # Else all objects of a kind are in memory at once, and each has a task for five seconds.
    found.watching.chunk_size = 100
    found.queueing.idle_timeout = 0.5
    found.persistence.diffbase_storage = _NoDiffs()
    for kind in (*OWNED, *roots(engines)):
        found.watching.label_selectors[kind] = LABEL_JOB
    return found
