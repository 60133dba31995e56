"""Asks an API server, again and again, by one `kubectl proxy`.

Tests wait on what the API shows. By kubectl each look would be a program that starts, a handshake
and much of a processor's time, which on a small machine is what everything else waits for.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from tests.cluster import Target
from trainseal.api.model import API_VERSION
from trainseal.cluster.api import path_of

Object = dict[str, Any]
_VERSIONS = {
    "configmaps": "v1",
    "events": "v1",
    "jobs": "batch/v1",
    "networkpolicies": "networking.k8s.io/v1",
    "pods": "v1",
    "services": "v1",
}
_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Reader:
    """Reads as the administrator. Resources are named in the singular or plural."""

    port: int

    def get(self, resource: str, name: str, namespace: str) -> Object | None:
        """The object; None where it is not there, or the API server does not answer."""
        return self._get(f"{_collection(resource, namespace)}/{name}")

    def listed(
        self, resource: str, namespace: str, *, labels: str = "", fields: str = ""
    ) -> list[Object] | None:
        """The objects that the selectors choose; None where the API server does not answer."""
        query = {k: v for k, v in (("labelSelector", labels), ("fieldSelector", fields)) if v}
        found = self._get(f"{_collection(resource, namespace)}?{urlencode(query)}")
        if found is None:
            return None
        # In a list the items do not say what they are; kubectl adds it, too.
        what = {"apiVersion": found["apiVersion"], "kind": found["kind"].removesuffix("List")}
        return [what | item for item in found["items"]]

    def _get(self, path: str) -> Object | None:
        with contextlib.suppress(OSError, http.client.HTTPException, json.JSONDecodeError):
            status, found = asked(self.port, "GET", path)
            return found if status == 200 else None
        return None


def asked(
    port: int,
    method: str,
    path: str,
    body: Object | None = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, Object]:
    """Status and body of the API server's answer to one request over the proxy."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_SECONDS)
    with contextlib.closing(connection):
        payload = None if body is None else json.dumps(body)
        connection.request(method, path, payload, dict(headers or {}))
        answer = connection.getresponse()
        found: Object = json.loads(answer.read())
        return answer.status, found


def collection_path(obj: Object) -> str:
    """The path of the collection that the object belongs to."""
    plural = plural_of(obj["kind"].lower())
    return path_of(obj["apiVersion"], plural, obj["metadata"].get("namespace"))


def object_path(obj: Object) -> str:
    """The object's own."""
    return f"{collection_path(obj)}/{obj['metadata']['name']}"


@contextlib.contextmanager
def proxy(target: Target) -> Iterator[int]:
    """The loopback port of a ``kubectl proxy``, which speaks TLS for us."""
    process = subprocess.Popen(
        [str(target.tools.kubectl), "proxy", "--port=0"],
        env=target.environment(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline().rpartition(":")[2])
    finally:
        process.kill()
        process.wait()


def plural_of(kind: str) -> str:
    """Of a kind in lower case; regular for all that tests use."""
    if kind.endswith("ss"):
        return f"{kind}es"
    return kind if kind.endswith("s") else re.sub("cy$", "cie", kind) + "s"


def _collection(resource: str, namespace: str) -> str:
    plural = plural_of(resource)
    return path_of(_VERSIONS.get(plural, API_VERSION), plural, namespace)
