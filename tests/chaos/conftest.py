"""A cluster of its own with TrainSeal, and what is signed: `lab` of the end-to-end tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.places import own_name
from tests.e2e.lab import Lab
from tests.e2e.world import alerts, cluster, lab, look, private, reader, target

__all__ = ["alerts", "cluster", "lab", "private", "reader", "target"]


@pytest.fixture(scope="session")
def cluster_name() -> str:
    """How the cluster is called that is made for these tests."""
    return own_name("chaos", Path(__file__).parent.resolve())


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A failed test shows what the cluster looked like when it failed."""
    outcome: Any = yield
    report = outcome.get_result()
    at = getattr(item, "funcargs", {}).get("lab")
    if report.when == "call" and report.failed and isinstance(at, Lab):
        report.sections.append(("the cluster", look(at)))
