"""A cluster with cert-manager on it, and a release that the tests put on and take off."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certmanager.installed import cert_manager
from tests.cluster import Cluster, CommandError
from tests.cluster.places import own_name
from tests.images import build_operator_image
from tests.stage.lifecycle import Release
from tests.stage.release import NAMESPACE

TEAM = "cert-team"

_NAME = own_name("certs", Path(__file__).resolve())


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """With cert-manager; one that was named by `--cluster` stays up."""
    named = request.config.getoption("--cluster")
    cluster = Cluster.up(named or _NAME, temporary=not named)
    try:
        with cert_manager(cluster):
            yield cluster
    finally:
        if not named:
            cluster.down()


@pytest.fixture(scope="session")
def release(cluster: Cluster) -> Iterator[Release]:
    """Not installed yet."""
    found = Release(cluster, cluster.push_image(build_operator_image(), "trainseal"), TEAM)
    for name in (NAMESPACE, TEAM):
        with contextlib.suppress(CommandError):  # there from an earlier run
            found.kubectl("create", "namespace", name)
    yield found
    with contextlib.suppress(CommandError):
        found.helm("uninstall", "trainseal", "--wait")
