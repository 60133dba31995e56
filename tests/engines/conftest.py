"""A cluster with the engines of others on it, and TrainSeal."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import Cluster
from tests.cluster.places import own_name
from tests.e2e.lab import TEAM, Lab, open_lab
from tests.e2e.world import apply, ground, pytest_runtest_makereport, reader
from tests.stage.engines import JOBSET, KUEUE, TRAINER, install_engine, install_training_operator
from tests.stage.queues import ADDITION
from tests.stage.reading import Reader

__all__ = ["apply", "ground", "pytest_runtest_makereport", "reader"]

#: As its chart calls it.
TRAINER_ACCOUNT = (
    f"system:serviceaccount:{TRAINER.namespace}:trainer-kubeflow-trainer-controller-manager"
)
#: As the how-tos say.
VALUES = (
    "engines.jobSet.enabled=true",
    f"engines.jobSet.controller=system:serviceaccount:{JOBSET.namespace}:jobset-controller",
    "floor.jobParents={system:serviceaccount:kueue-system:kueue-controller-manager}",
    "kueue.enabled=true",
    "engines.pyTorchJob.enabled=true",
    "engines.trainJob.enabled=true",
    f"engines.trainJob.controller={TRAINER_ACCOUNT}",
)

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
def target(cluster: Cluster) -> Cluster:
    """The same, by the name that end-to-end fixtures ask for."""
    return cluster


@pytest.fixture(scope="session")
def jobset(cluster: Cluster) -> None:
    """JobSet's controller and webhooks."""
    install_engine(cluster, JOBSET)


@pytest.fixture(scope="session")
def kueue(cluster: Cluster, jobset: None) -> None:
    """Kueue's controller and webhooks; it knows JobSets, too."""
    install_engine(cluster, KUEUE)
    # The test cluster serves no API of others, and says so to whoever asks what there is.
    visibility = [f"{version}.visibility.kueue.x-k8s.io" for version in ("v1beta1", "v1beta2")]
    cluster.kubectl("delete", "apiservice", *visibility, "--ignore-not-found")


@pytest.fixture(scope="session")
def trainer(cluster: Cluster, jobset: None) -> None:
    """Kubeflow's trainer v2, which makes JobSets."""
    install_engine(cluster, TRAINER)


@pytest.fixture(scope="session")
def training_operator(cluster: Cluster) -> None:
    """Kubeflow's training operator v1."""
    install_training_operator(cluster)


@pytest.fixture(scope="session")
def lab(
    cluster: Cluster,
    reader: Reader,
    kueue: None,
    training_operator: None,
    trainer: None,
    tmp_path_factory: pytest.TempPathFactory,
) -> Lab:
    """TrainSeal with a queue for the runs of a team, and everything signed."""
    lab = open_lab(cluster, tmp_path_factory.mktemp("lab"), reader, values=VALUES)
    change = {"spec": {"pods": {"additions": [ADDITION]}}}
    lab.admin("patch", "provenancepolicy", TEAM, "--type=merge", "-p", json.dumps(change))
    return lab
