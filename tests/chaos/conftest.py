"""A cluster of its own with TrainSeal, and what is signed: `lab` of the end-to-end tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster.places import own_name
from tests.e2e.world import (
    alerts,
    cluster,
    lab,
    private,
    pytest_runtest_makereport,
    reader,
    target,
)

__all__ = [
    "alerts",
    "cluster",
    "lab",
    "private",
    "pytest_runtest_makereport",
    "reader",
    "target",
]


@pytest.fixture(scope="session")
def cluster_name() -> str:
    """How the cluster is called that is made for these tests."""
    return own_name("chaos", Path(__file__).parent.resolve())
