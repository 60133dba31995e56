"""The connection to the API server from within a pod, by its service account.

Kubernetes documentation, *Accessing the Kubernetes API from a Pod*: the server's address is in two
variables, token and certificate authority are files of the projected volume. The kubelet replaces
the token before it expires; it is read again each minute. Not the official client: importing that
takes 20 MiB, which every node would pay for its agent.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, urlencode

import aiohttp
import orjson
from pydantic import JsonValue
from yarl import URL

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_CONNECTIONS = 64
_TOKEN_SECONDS = 60.0


def here() -> bool:
    """Whether this is a pod, and nobody asks for another cluster."""
    return "KUBERNETES_SERVICE_HOST" in os.environ and "KUBECONFIG" not in os.environ


class PodConnection:
    """Requests with the pod's own token."""

    def __init__(self, base: str, token: Path, session: aiohttp.ClientSession) -> None:
        self._base = base
        self._token_file = token
        self._session = session
        self._token = ""
        self._read_at = 0.0

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
        url = f"{self._base}{quote(path)}"
        if query:
            url = f"{url}?{urlencode(query)}"
        return await self._session.request(
            method,
            URL(url, encoded=True),
            headers={**headers, "Authorization": f"Bearer {self._bearer()}"},
            data=None if body is None else orjson.dumps(body),
            timeout=limit,
            allow_redirects=False,
        )

    def _bearer(self) -> str:
        now = asyncio.get_running_loop().time()
        if not self._token or now - self._read_at > _TOKEN_SECONDS:
            self._token = self._token_file.read_text().strip()
            self._read_at = now
        return self._token


@asynccontextmanager
async def connection(account: Path = ACCOUNT) -> AsyncIterator[PodConnection]:
    """A connection, open meanwhile. Raises OSError where the pod has no token."""
    host, port = os.environ["KUBERNETES_SERVICE_HOST"], os.environ["KUBERNETES_SERVICE_PORT"]
    address = f"[{host}]" if ":" in host else host
    trusted = ssl.create_default_context(cafile=str(account / "ca.crt"))
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS, ssl=trusted)
    async with aiohttp.ClientSession(connector=connector, auto_decompress=True) as session:
        yield PodConnection(f"https://{address}:{port}", account / "token", session)
