"""The Kubernetes API as JSON objects: one thin call over a connection, with a deadline.

In a pod the connection is `cluster.inpod`'s; elsewhere the official client loads the kubeconfig and
authenticates (`cluster.official`). Its typed models are left aside: they drop fields that a later
Kubernetes added, cost more to build than the request itself, and take 110 MiB to import.

Answers are read by orjson: in thousands of objects that are kept, a field's name is kept once.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, nullcontext
from typing import Literal, Protocol

import aiohttp
import orjson
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import JsonValue

from trainseal.api.model import JsonObject
from trainseal.cluster import inpod

Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
_WRITES = frozenset({"POST", "PUT", "PATCH"})
#: Around a write: called with method, path and body; what it gives is called with the answer.
Writing = Callable[[Method, str, JsonValue], AbstractContextManager[Callable[[JsonObject], None]]]
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
_JSON = "application/json"
#: Metadata alone: a server that cannot cut an object down to that answers 406, and never with all.
_METADATA = f"{_JSON};as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
_METADATA_ONLY = f"{_JSON};as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
SECONDS = 10.0
_LIST_SECONDS = 30.0
_METADATA_PAGE = 1000
#: A watch is ended and begun anew after so long.
WATCH_SECONDS = 300
#: One event of a watch, an object on one line: more than any object has, so that a longer line is
#: an error of the server's and not a bound of the client library's, whatever that is.
MAX_EVENT_BYTES = 8 * 1024 * 1024


class KubeError(Exception):
    """The API server refused a request, or could not be reached (then ``status`` is 0).

    ``reason`` is the Status object's (``NotFound``, ``Conflict``, ``AlreadyExists``, …).
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status = status
        self.reason = reason
        self.message = message
        super().__init__(f"{reason or status}: {message}")


class NotFoundError(KubeError):
    """The object does not exist (404)."""


class ConflictError(KubeError):
    """The object exists already, or was changed meanwhile (409)."""


class GoneError(KubeError):
    """The resource version is too old to watch from (410)."""


def path_of(api_version: str, plural: str, namespace: str | None = None, *rest: str) -> str:
    """The URL path of a collection or, with a name in ``rest``, of an object."""
    group = f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}"
    middle = f"/namespaces/{namespace}" if namespace else ""
    return "/".join([f"{group}{middle}/{plural}", *rest])


class Connection(Protocol):
    """Sends requests to one API server, authenticated."""

    async def send(
        self,
        method: Method,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: JsonValue,
        limit: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """The response, whatever its status. Raises aiohttp.ClientError, TimeoutError, OSError."""
        ...


class Kube:
    """Requests to one API server; safe for concurrent use by tasks of one loop."""

    def __init__(self, connection: Connection, writing: Writing | None = None) -> None:
        """``writing`` is around each write that makes or changes an object."""
        self._connection = connection
        self._writing = writing

    def telling(self, writing: Writing) -> Kube:
        """The same connection, for somebody who is to be told of their own writes."""
        return Kube(self._connection, writing)

    async def request(
        self,
        method: Method,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: JsonValue = None,
        content_type: str = _JSON,
        seconds: float = SECONDS,
    ) -> JsonObject:
        """The response's object. Raises KubeError."""
        tells = self._writing if method in _WRITES and "dryRun" not in (query or {}) else None
        with tells(method, path, body) if tells else nullcontext(_unsaid) as wrote:
            response = await self._send(method, path, query, body, content_type, seconds)
            answer = await _answer(path, response, seconds)
            wrote(answer)
        return answer

    async def get(self, path: str, *, seconds: float = SECONDS) -> JsonObject:
        """An object. Raises NotFoundError or another KubeError."""
        return await self.request("GET", path, seconds=seconds)

    async def get_metadata(self, path: str) -> JsonObject:
        """An object's metadata, and nothing of what it holds. Raises NotFoundError or KubeError."""
        response = await self._send("GET", path, None, None, _JSON, SECONDS, _METADATA)
        return await _answer(path, response, SECONDS)

    async def metadata(
        self, path: str, query: Mapping[str, str]
    ) -> AsyncGenerator[JsonObject, None]:
        """The ``metadata`` of each object of a collection, read in pages, without the objects.

        Kubernetes API concepts, *Metadata-only fetches*. Raises KubeError.
        """
        asked = {**query, "limit": str(_METADATA_PAGE)}
        while True:
            response = await self._send(
                "GET", path, asked, None, _JSON, _LIST_SECONDS, _METADATA_ONLY
            )
            page = await _answer(path, response, _LIST_SECONDS)
            items = page.get("items")
            for item in items if isinstance(items, list) else ():
                metadata = item.get("metadata") if isinstance(item, dict) else None
                if isinstance(metadata, dict):
                    yield metadata
            found = page.get("metadata")
            token = found.get("continue") if isinstance(found, dict) else None
            if not token:
                return
            asked["continue"] = str(token)

    async def create(
        self, path: str, obj: JsonObject, *, dry_run: bool = False, strict: bool = False
    ) -> JsonObject:
        """Creates an object in a collection; ``strict`` refuses unknown fields by their place."""
        query = {"fieldManager": "trainseal"}
        if dry_run:
            query["dryRun"] = "All"
        if strict:
            query["fieldValidation"] = "Strict"
        return await self.request("POST", path, query=query, body=obj)

    async def replace(self, path: str, obj: JsonObject) -> JsonObject:
        """Replaces an object; its resourceVersion guards against a change meanwhile."""
        return await self.request("PUT", path, body=obj)

    async def patch(
        self, path: str, patch: JsonValue, content_type: str = MERGE_PATCH
    ) -> JsonObject:
        """Merges into an object (RFC 7396), or applies a JSON patch (RFC 6902)."""
        return await self.request(
            "PATCH",
            path,
            query={"fieldManager": "trainseal"},
            body=patch,
            content_type=content_type,
        )

    async def delete(self, path: str, *, uid: str | None = None, propagate: bool = True) -> None:
        """Deletes an object if it is there (and, with ``uid``, still the same one)."""
        body: JsonObject = {
            "apiVersion": "v1",
            "kind": "DeleteOptions",
            "propagationPolicy": "Background" if propagate else "Orphan",
        }
        if uid:
            body["preconditions"] = {"uid": uid}
        try:
            await self.request("DELETE", path, body=body)
        except (NotFoundError, ConflictError):
            return

    async def watch(
        self,
        path: str,
        resource_version: str,
        query: Mapping[str, str],
        seconds: int = WATCH_SECONDS,
    ) -> AsyncGenerator[tuple[str, JsonObject], None]:
        """Events (type, object) from a resource version on, until the server ends the watch."""
        response = await self._send(
            "GET",
            path,
            {
                **query,
                "watch": "true",
                "resourceVersion": resource_version,
                "allowWatchBookmarks": "true",
                "timeoutSeconds": str(seconds),
            },
            None,
            _JSON,
            seconds + 15.0,
        )
        try:
            if response.status != 200:
                _checked(response.status, await response.read())
            while line := await response.content.readuntil(b"\n", max_size=MAX_EVENT_BYTES):
                event = orjson.loads(line)
                if event["type"] == "ERROR":
                    status = event["object"]
                    raise _error(int(status.get("code") or 500), status)
                yield event["type"], event["object"]
        except (aiohttp.ClientError, HttpProcessingError, TimeoutError, ValueError) as error:
            raise KubeError(0, "Unreachable", _words(path, error)) from None
        finally:
            response.close()

    async def _send(
        self,
        method: Method,
        path: str,
        query: Mapping[str, str] | None,
        body: JsonValue,
        content_type: str,
        seconds: float,
        accept: str = _JSON,
    ) -> aiohttp.ClientResponse:
        try:
            return await self._connection.send(
                method,
                path,
                query or {},
                {"Accept": accept, "Content-Type": content_type},
                body,
                aiohttp.ClientTimeout(total=seconds),
            )
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise KubeError(0, "Unreachable", _words(path, error)) from None


@asynccontextmanager
async def connect(kubeconfig: str | None = None, context: str | None = None) -> AsyncIterator[Kube]:
    """A connection: in a pod by its service account, else by kubeconfig as kubectl finds it."""
    if kubeconfig is None and context is None and inpod.here():
        async with inpod.connection() as connection:
            yield Kube(connection)
        return
    # It takes 20 MiB and half a second to import, which no process in a pod should pay.
    from trainseal.cluster import official

    async with official.api_client(kubeconfig, context) as client:
        yield Kube(official.OfficialConnection(client))


def _unsaid(_: JsonObject) -> None:
    """Nobody wants to know."""


async def _answer(path: str, response: aiohttp.ClientResponse, seconds: float) -> JsonObject:
    try:
        # Not wait_for: until Python 3.12 it loses a cancellation that comes with the answer,
        # and who was to stop would go on.
        async with asyncio.timeout(seconds):
            data = await response.read()
    except (aiohttp.ClientError, TimeoutError) as error:
        raise KubeError(0, "Unreachable", _words(path, error)) from None
    finally:
        response.release()
    return _checked(response.status, data)


def _words(path: str, error: BaseException) -> str:
    return f"{path}: {type(error).__name__}: {error}"


def _checked(status: int, data: bytes) -> JsonObject:
    try:
        value = orjson.loads(data) if data else {}
    except ValueError:
        value = {"message": data[:512].decode(errors="replace")}
    if not isinstance(value, dict):
        raise KubeError(status, "Malformed", "the API server answered with no object")
    if status >= 300:
        raise _error(status, value)
    return value


def _error(status: int, value: Mapping[str, JsonValue]) -> KubeError:
    kind = {404: NotFoundError, 409: ConflictError, 410: GoneError}.get(status, KubeError)
    return kind(status, str(value.get("reason", "")), str(value.get("message", "")))
