"""A cluster with the engines of others on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.cluster.places import own_name
from tests.stage.engines import JOBSET, install_engine
from tests.stage.reading import Reader, proxy

_NAME = own_name("engines", Path(__file__).resolve())


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """One that was named by `--cluster` stays up."""
    named = request.config.getoption("--cluster")
    cluster = Cluster.up(named or _NAME, temporary=not named)
    try:
        yield cluster
    finally:
        if not named:
            cluster.down()


@pytest.fixture(scope="session")
def jobset(cluster: Cluster) -> None:
    """JobSet's controller and webhooks."""
    install_engine(cluster, JOBSET)


@pytest.fixture(scope="session")
def reader(cluster: Cluster) -> Iterator[Reader]:
    """What waits on the cluster's objects."""
    with proxy(cluster) as port:
        yield Reader(port)
