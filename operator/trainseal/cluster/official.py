"""The official client: loads a kubeconfig as kubectl does, and authenticates by what it says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import aiohttp
from kubernetes.aio import config
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.configuration import Configuration
from pydantic import JsonValue

from trainseal.cluster import inpod

_CONNECTIONS = 64


class OfficialConnection:
    """Requests over the official client's connection."""

    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        headers: Mapping[str, str],
        body: JsonValue,
        limit: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        """The response, whatever its status. Raises aiohttp.ClientError, TimeoutError, OSError."""
        verb, url, sent, data, _ = await self._client.param_serialize(
            method,
            path,
            query_params=list(query.items()),
            header_params=dict(headers),
            body=body,
            auth_settings=["BearerToken"],
        )
        wrapped = await self._client.call_api(verb, url, sent, data, _request_timeout=limit)
        response: aiohttp.ClientResponse = wrapped.response
        return response


@asynccontextmanager
async def api_client(
    kubeconfig: str | None = None, context: str | None = None
) -> AsyncIterator[ApiClient]:
    """The client: in a pod by its service account, else by kubeconfig as kubectl finds it."""
    settings = Configuration()
    if kubeconfig is None and context is None and inpod.here():
        config.load_incluster_config(client_configuration=settings)  # type: ignore[no-untyped-call]
    else:
        await config.load_kube_config(  # type: ignore[no-untyped-call]
            config_file=kubeconfig, context=context, client_configuration=settings
        )
    settings.connection_pool_maxsize = _CONNECTIONS
    client = ApiClient(configuration=settings)
    try:
        yield client
    finally:
        await client.close()  # type: ignore[no-untyped-call]
