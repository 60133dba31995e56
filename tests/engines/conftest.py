"""A cluster with the engines of others on it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.cluster.places import own_name
from tests.e2e.lab import Lab, open_lab
from tests.e2e.world import apply, pytest_runtest_makereport
from tests.stage.engines import JOBSET, install_engine
from tests.stage.reading import Reader, proxy

__all__ = ["apply", "pytest_runtest_makereport"]
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
def lab(
    cluster: Cluster, jobset: None, reader: Reader, tmp_path_factory: pytest.TempPathFactory
) -> Lab:
    """TrainSeal, which finds the engines there."""
    values = [
        "engines.jobSet.enabled=true",
        f"engines.jobSet.controller=system:serviceaccount:{JOBSET.namespace}:jobset-controller",
    ]
    return open_lab(cluster, tmp_path_factory.mktemp("lab"), reader, values=values)


@pytest.fixture(scope="session")
def reader(cluster: Cluster) -> Iterator[Reader]:
    """What waits on the cluster's objects."""
    with proxy(cluster) as port:
        yield Reader(port)
