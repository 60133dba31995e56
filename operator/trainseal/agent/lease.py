"""The agent's Lease, one a node: who sees it renewed knows that somebody watches there.

It also says what the node's kernel lets the agent see. The controller reads it; 15 seconds without
a renewal are a finding on the sealed pods of the node.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object
from trainseal.cluster.api import Kube, KubeError, NotFoundError, path_of
from trainseal.cluster.settings import CONFIG_MAP

_log = logging.getLogger(__name__)
_API = "coordination.k8s.io/v1"
PREFIX = "trainseal-agent-"
#: What the node offers, as JSON text.
SEES_ANNOTATION = "trainseal.dev/sees"
RENEW_SECONDS = 5.0
LEASE_SECONDS = 15
_REQUEST_SECONDS = 3.0


class NodeLease:
    """Keeps one node's Lease; ``run`` renews it until cancelled."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        node: str,
        identity: str,
        sees: Callable[[], Mapping[str, JsonValue]],
        clock: Callable[[], datetime],
    ) -> None:
        self._kube = kube
        self._namespace = namespace
        self._name = f"{PREFIX}{node}"
        self._identity = identity
        self._sees = sees
        self._clock = clock
        self.renewed: datetime | None = None
        self._owner: JsonObject | None = None

    async def run(self) -> None:
        """Renews every 5 s; what goes wrong is logged and tried again after a second."""
        while True:
            pause = RENEW_SECONDS
            try:
                await self.renew()
            except KubeError as error:
                _log.warning("Lease %s/%s: %s", self._namespace, self._name, error)
                pause = 1.0
            await asyncio.sleep(pause)

    async def renew(self) -> None:
        """One renewal; makes the Lease where there is none. Raises KubeError."""
        collection = path_of(_API, "leases", self._namespace)
        if self._owner is None:
            self._owner = await self._release()
        now = self._clock()
        lease = self._lease(now)
        try:
            await self._request("PATCH", f"{collection}/{self._name}", lease)
        except NotFoundError:
            await self._request("POST", collection, lease)
        self.renewed = now

    async def _release(self) -> JsonObject:
        """The release's own ConfigMap as owner: an uninstall takes the Leases along with it."""
        found = await self._kube.get(
            path_of("v1", "configmaps", self._namespace, CONFIG_MAP), seconds=_REQUEST_SECONDS
        )
        uid = json_object(found.get("metadata")).get("uid")
        return {"apiVersion": "v1", "kind": "ConfigMap", "name": CONFIG_MAP, "uid": uid}

    async def _request(self, method: str, path: str, lease: JsonObject) -> None:
        if method == "POST":
            await self._kube.request(
                "POST",
                path,
                query={"fieldManager": "trainseal"},
                body=lease,
                seconds=_REQUEST_SECONDS,
            )
        else:
            await self._kube.request(
                "PATCH",
                path,
                query={"fieldManager": "trainseal"},
                body=lease,
                content_type="application/merge-patch+json",
                seconds=_REQUEST_SECONDS,
            )

    def _lease(self, now: datetime) -> JsonObject:
        return {
            "apiVersion": _API,
            "kind": "Lease",
            "metadata": {
                "name": self._name,
                "namespace": self._namespace,
                "ownerReferences": [self._owner],
                "labels": {
                    "app.kubernetes.io/part-of": "trainseal",
                    "app.kubernetes.io/component": "agent",
                },
                "annotations": {SEES_ANNOTATION: json.dumps(dict(self._sees()), sort_keys=True)},
            },
            "spec": {
                "holderIdentity": self._identity,
                "leaseDurationSeconds": LEASE_SECONDS,
                "renewTime": now.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            },
        }
