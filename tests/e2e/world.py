"""Fixtures of tests on a real cluster: one cluster, one installation, everything signed.

`tests/e2e` and `tests/attacks` take them into their conftest.py by import. `--cluster NAME` uses a
cluster of ours that is up, and leaves it up: for working on the tests.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster import Cluster, ClusterError, CommandError, Target, connect
from tests.cluster.places import own_name
from tests.e2e.lab import Lab, Object, close_lab, open_lab
from tests.guides.ground import Ground, prepared
from tests.images import ImageError
from tests.local_registry import PrivateRegistry, private_registry
from tests.stage.alertmanager import Alertmanager, alertmanager
from tests.stage.reading import Reader, proxy


@pytest.fixture(scope="session")
def cluster_name() -> str:
    """How the cluster is called that is made for these tests, another in each process."""
    process = os.environ.get("PYTEST_XDIST_WORKER")
    name = own_name("e2e", Path(__file__).parent.resolve())
    return f"{name}-{process}" if process else name


@pytest.fixture(scope="session")
def target(request: pytest.FixtureRequest, cluster_name: str) -> Iterator[Target]:
    """The cluster; where the machine cannot hold one, every test fails with what it lacks."""
    given = request.config.getoption("--cluster", None)
    try:
        found = connect(given or cluster_name)
    except ClusterError as error:
        pytest.fail(str(error), pytrace=False)
    try:
        yield found
    finally:
        if isinstance(found, Cluster) and not given:
            found.down()


@pytest.fixture(scope="session")
def private(
    target: Target, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[PrivateRegistry | None]:
    """A registry with TLS and a password, on this machine's side of the cluster's network."""
    if not isinstance(target, Cluster) or target.plan is None:
        yield None
        return
    program, folder = target.tools["distribution"], tmp_path_factory.mktemp("private")
    with private_registry(program, folder, target.plan.host) as found:
        yield found


@pytest.fixture(scope="session")
def alerts(target: Target) -> Iterator[Alertmanager | None]:
    """Who is told of findings, on this machine's side of the cluster's network."""
    if not isinstance(target, Cluster) or target.plan is None:
        yield None
        return
    with alertmanager(target.plan.host) as found:
        yield found


@pytest.fixture(scope="session")
def reader(target: Target) -> Iterator[Reader]:
    """What waits on the cluster's objects."""
    with proxy(target) as port:
        yield Reader(port)


@pytest.fixture(scope="session")
def lab(
    target: Target,
    reader: Reader,
    private: PrivateRegistry | None,
    alerts: Alertmanager | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Lab]:
    """TrainSeal, a team, and everything signed."""
    try:
        opened = open_lab(target, tmp_path_factory.mktemp("lab"), reader, private, alerts)
    except (ClusterError, ImageError) as error:
        pytest.fail(str(error), pytrace=False)
    yield opened
    if not target.owned:
        close_lab(opened)


@pytest.fixture(scope="session")
def ground(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """What readers of the pages have."""
    return prepared(lab, tmp_path_factory.mktemp("guides"))


@pytest.fixture
def apply(lab: Lab) -> Iterator[Callable[[Object], Object]]:
    """`kubectl apply` as the editor; what was applied is deleted after the test."""
    applied: list[Object] = []

    def do(obj: Object) -> Object:
        applied.append(obj)
        lab.apply(obj)
        return obj

    yield do
    for obj in applied:
        lab.delete(obj)


@pytest.fixture
def cluster(target: Target) -> Cluster:
    """A cluster of ours, for tests that break it from outside."""
    if not isinstance(target, Cluster):
        pytest.skip("TRAINSEAL_KUBECONFIG names a cluster that is not ours to break")
    return target


def look(lab: Lab) -> str:
    """What the cluster looks like now, for the report of a failed test."""
    looks = (
        ("get", "tj,seal,jobs,pods", "-A", "-o", "wide"),
        ("get", "events", "-A", "--sort-by=.lastTimestamp"),
        (
            *("logs", "-n", "trainseal-system", "-l", "app.kubernetes.io/name=trainseal"),
            *("--prefix", "--tail=40"),
        ),
    )
    texts = []
    for look in looks:
        try:
            lines = lab.admin(*look).splitlines()
        except CommandError as error:
            lines = [str(error)]
        texts.append("\n".join([f"$ kubectl {' '.join(look)}", *lines[-60:]]))
    return os.linesep.join(texts)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows what the cluster looked like when it failed."""
    outcome: Any = yield
    report = outcome.get_result()
    at = getattr(item, "funcargs", {}).get("lab")
    if report.when == "call" and report.failed and isinstance(at, Lab):
        report.sections.append(("the cluster", look(at)))
