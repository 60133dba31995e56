"""Real registries on loopback: one with the referrers API, one without; and a real cosign."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.cluster import ClusterError, tools
from trainseal.registry.client import RegistryClient
from trainseal.registry.references import Reference
from trainseal.registry.transport import Options

STARTING_SECONDS = 30.0


@dataclass(frozen=True)
class Registry:
    """A running registry; ``blobs`` is where it keeps them, for tests that alter them."""

    address: str
    has_referrers: bool
    blobs: Path

    def repository(self, name: str = "research") -> Reference:
        """A repository nobody used before."""
        return Reference(self.address, f"{name}/{secrets.token_hex(6)}")

    def blob_file(self, digest: str) -> Path:
        """The file from which the blob is served."""
        encoded = digest.removeprefix("sha256:")
        if self.has_referrers:
            return self.blobs / "sha256" / encoded
        return self.blobs / "sha256" / encoded[:2] / encoded / "data"


def tool(name: str) -> Path:
    """A pinned program: from TRAINSEAL_TOOLS if set, else from the cache, built if need be."""
    if folder := os.environ.get("TRAINSEAL_TOOLS"):
        path = Path(folder) / name
        if not path.exists():
            pytest.skip(f"TRAINSEAL_TOOLS is set and has no {name}")
        return path
    try:
        return tools([name])[name]
    except ClusterError as error:
        pytest.skip(f"{name} cannot be had: {error}")


@pytest.fixture(scope="session")
def cosign() -> Path:
    return tool("cosign")


@pytest.fixture(scope="session")
def registry_with_referrers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("registry")
    address = f"127.0.0.1:{free_port()}"
    command = [str(tool("registry")), "-listen", address, "-dir", str(folder)]
    with running(command, address, folder / "log"):
        yield Registry(address, has_referrers=True, blobs=folder / "blobs")


@pytest.fixture(scope="session")
def registry_without_referrers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("distribution")
    address = f"127.0.0.1:{free_port()}"
    config = folder / "config.yaml"
    config.write_text(
        yaml.safe_dump(
            {
                "version": "0.1",
                "log": {"level": "warn", "accesslog": {"disabled": True}},
                "storage": {"filesystem": {"rootdirectory": str(folder / "data")}},
                "http": {"addr": address},
            }
        )
    )
    with running([str(tool("distribution")), "serve", str(config)], address, folder / "log"):
        yield Registry(address, has_referrers=False, blobs=folder / "data/docker/registry/v2/blobs")


@pytest.fixture(params=["referrers-api", "tag-fallback"])
def registry(request: pytest.FixtureRequest) -> Registry:
    """Each test that asks for it runs against both."""
    name = "registry_with_referrers" if request.param == "referrers-api" else None
    found = request.getfixturevalue(name or "registry_without_referrers")
    assert isinstance(found, Registry)
    return found


@pytest.fixture
async def client(registry: Registry) -> AsyncIterator[RegistryClient]:
    options = Options(plain_http=frozenset({registry.address}))
    async with RegistryClient(options) as opened:
        yield opened


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(command: list[str], address: str, log: Path) -> Iterator[None]:
    """The program, from when it answers until it is stopped."""
    with log.open("wb") as output:
        environment = os.environ | {"OTEL_TRACES_EXPORTER": "none"}
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
    try:
        until = time.monotonic() + STARTING_SECONDS
        while not answers(address):
            if process.poll() is not None or time.monotonic() > until:
                pytest.fail(f"{command[0]} did not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        yield
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def answers(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}/v2/", timeout=2) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError):
        return False
