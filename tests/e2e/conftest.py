"""One cluster and one installation for all tests of this folder: see world.py.

test_chart.py takes TrainSeal away and so has a cluster of its own. Both wait most of the time, so
`make e2e` lets two processes run side by side, one for each cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling  # type: ignore[import-untyped]

from tests.e2e.lab import Lab
from tests.e2e.world import apply, cluster, cluster_name, lab, look, private, target

__all__ = ["apply", "cluster", "cluster_name", "lab", "private", "target"]


class ByCluster(LoadScopeScheduling):  # type: ignore[misc] # xdist has no types
    """Tests that share a cluster run in one process.

    `--dist loadgroup` would say it with marks: with pytest 9.2, xdist 3.8 does not heed them.
    """

    def _split_scope(self, nodeid: str) -> str:
        return "chart" if "/test_chart.py::" in nodeid else "lab"


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByCluster:
    """Of `pytest -n 2`."""
    return ByCluster(config, log)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows what the cluster looked like when it failed."""
    outcome: Any = yield
    report = outcome.get_result()
    at = getattr(item, "funcargs", {}).get("lab")
    if report.when == "call" and report.failed and isinstance(at, Lab):
        report.sections.append(("the cluster", look(at)))
