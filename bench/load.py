"""The load: one process that sends requests with a fixed number under way, and times each."""

from __future__ import annotations

import asyncio
import base64
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import yaml

from bench.figures import percentile


@dataclass(frozen=True, slots=True)
class Measured:
    """Requests per second, and the seconds of each, ascending."""

    rate: float
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds within which half of them were answered."""
        return percentile(self.seconds, 0.5)

    @property
    def p99(self) -> float:
        """Seconds within which 99 of a hundred were answered."""
        return percentile(self.seconds, 0.99)


class ApiClient:
    """Plain requests to an API server with a kubeconfig's client certificate."""

    def __init__(self, kubeconfig: Path) -> None:
        """``kubeconfig`` holds certificates and key itself, as those of our clusters do."""
        config = yaml.safe_load(kubeconfig.read_text())
        cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
        self._server = cluster["server"]
        authority = base64.b64decode(cluster["certificate-authority-data"]).decode()
        self._tls = ssl.create_default_context(cadata=authority)
        # The standard library reads a key from a file only.
        with tempfile.NamedTemporaryFile() as pair:
            pair.write(base64.b64decode(user["client-certificate-data"]))
            pair.write(base64.b64decode(user["client-key-data"]))
            pair.flush()
            self._tls.load_cert_chain(pair.name)
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> ApiClient:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(ssl=self._tls, limit=0), base_url=self._server
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._session:
            await self._session.close()

    async def post(self, path: str, body: bytes, headers: Mapping[str, str]) -> tuple[int, bytes]:
        """Status and body."""
        if self._session is None:
            raise RuntimeError("not open")
        async with self._session.post(
            path, data=body, headers={"Content-Type": "application/json", **headers}
        ) as response:
            return response.status, await response.read()

    async def load(
        self,
        path: str,
        body: Callable[[int], bytes],
        headers: Mapping[str, str],
        *,
        count: int,
        concurrency: int,
        expected: int = 201,
    ) -> Measured:
        """Sends ``count`` requests, ``concurrency`` at a time; raises on another status.

        Raises ValueError where there are too few to have so many under way.
        """
        if count < concurrency:
            raise ValueError(f"found {count} requests, expected at least {concurrency} at once")
        numbers = iter(range(count))
        seconds: list[float] = []

        async def worker() -> None:
            for number in numbers:
                start = time.perf_counter()
                status, answer = await self.post(path, body(number), headers)
                if status != expected:
                    raise RuntimeError(f"status {status}: {answer[:600].decode(errors='replace')}")
                seconds.append(time.perf_counter() - start)

        start = time.perf_counter()
        async with asyncio.TaskGroup() as group:
            for _ in range(concurrency):
                group.create_task(worker())
        elapsed = time.perf_counter() - start
        return Measured(count / elapsed, tuple(sorted(seconds)))
