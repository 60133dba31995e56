"""One cluster and one installation for all tests of this folder: see world.py.

test_chart.py takes TrainSeal away and so has a cluster of its own. Where several processes run
the tests, two share the rest, each with a cluster of its own: `ByCluster` in tests/conftest.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.e2e.lab import Lab
from tests.e2e.world import alerts, apply, cluster, cluster_name, lab, look, private, reader, target

__all__ = ["alerts", "apply", "cluster", "cluster_name", "lab", "private", "reader", "target"]


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows what the cluster looked like when it failed."""
    outcome: Any = yield
    report = outcome.get_result()
    at = getattr(item, "funcargs", {}).get("lab")
    if report.when == "call" and report.failed and isinstance(at, Lab):
        report.sections.append(("the cluster", look(at)))
