"""Real registries on loopback: one with the referrers API, one without; and a real cosign."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests import local_registry
from tests.cluster import ClusterError, tools
from tests.local_registry import Registry
from trainseal.registry.client import RegistryClient
from trainseal.registry.transport import Options


def tool(name: str) -> Path:
    """A pinned program: from TRAINSEAL_TOOLS if set, else from the cache, built if need be."""
    if folder := os.environ.get("TRAINSEAL_TOOLS"):
        path = Path(folder) / name
        if not path.exists():
            pytest.fail(f"TRAINSEAL_TOOLS is set and has no {name}", pytrace=False)
        return path
    try:
        return tools([name])[name]
    except ClusterError as error:
        pytest.fail(f"{name} cannot be had: {error}", pytrace=False)


@pytest.fixture(scope="session")
def cosign() -> Path:
    return tool("cosign")


@pytest.fixture(scope="session")
def registry_with_referrers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("registry")
    with local_registry.registry_with_referrers(tool("registry"), folder) as found:
        yield found


@pytest.fixture(scope="session")
def registry_without_referrers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    folder = tmp_path_factory.mktemp("distribution")
    with local_registry.registry_without_referrers(tool("distribution"), folder) as found:
        yield found


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
