"""One cluster and one installation for all tests of this folder: see world.py.

test_chart.py takes TrainSeal away and so has a cluster of its own. Where several processes run
the tests, two share the rest, each with a cluster of its own: `ByCluster` in tests/conftest.py.
test_guides.py has another, where policies come and go as its pages say.
"""

from __future__ import annotations

from tests.e2e.world import (
    alerts,
    apply,
    cluster,
    cluster_name,
    ground,
    lab,
    private,
    pytest_runtest_makereport,
    reader,
    target,
)

__all__ = [
    "alerts",
    "apply",
    "cluster",
    "cluster_name",
    "ground",
    "lab",
    "private",
    "pytest_runtest_makereport",
    "reader",
    "target",
]
