"""For all tests: property tests judge values, never the clock; a build server gets no dice."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling  # type: ignore[import-untyped]

# A machine under load must not fail a test; what is slow is a bench's to say.
settings.register_profile("default", deadline=None)
# Found examples belong to whoever runs the tests by hand, not to whoever submits next.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cluster", help="use this cluster of ours, and leave it up")
    parser.addoption("--detection", help="write the table of detections into this file")
    parser.addoption(
        "--seed", type=int, help="of attacks at random, of chaos: as a run that told it"
    )
    parser.addoption("--seconds", type=float, default=180.0, help="of chaos: how long it lasts")


#: Of tests/integration, those that share the API server with the kinds on it and nothing else.
_KINDS = ("test_canonical_roundtrip", "test_cli", "test_crds", "test_rendering", "test_templates")
#: Of tests/e2e, those that run on a second cluster: about half of the time that all take.
_SECOND_LAB = (
    *("after_admission", "checkpoints", "elastic", "lineage"),
    *("outages", "responses", "resume", "stacks"),
)


class ByCluster(LoadFileScheduling):  # type: ignore[misc] # xdist has no types
    """Tests of one file run in one process, and so do those of one cluster or API server.

    `--dist loadgroup` would say it with marks: with pytest 9.2, xdist 3.8 does not heed them.
    """

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        *_, suite, file = path.removesuffix(".py").split("/")
        if suite == "e2e":
            return _cluster(file, nodeid)
        if file in _KINDS:
            return "the kinds"
        # Helm takes long, and its life cycle takes half of that.
        return suite if suite == "chart" and file != "test_lifecycle" else path


def _cluster(file: str, nodeid: str) -> str:
    """The one that an end-to-end test runs on."""
    if os.environ.get("TRAINSEAL_KUBECONFIG"):
        return "the user's own cluster"
    if file == "test_chart":
        return "the chart's"
    if file.startswith("test_guides"):
        return "the guides'"
    # What is asked of each cluster, its last tests, says so by its parameter.
    second = file.removeprefix("test_") in _SECOND_LAB or nodeid.endswith("[second]")
    return "second lab" if second else "lab"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The chart's integration tests come before the suite's others: one process has them all, and
    who begins with them late ends alone.
    """
    items.sort(key=lambda item: _place(item.nodeid))


def _place(nodeid: str) -> int:
    if not nodeid.startswith("tests/integration/"):
        return 0
    return 1 if nodeid.startswith("tests/integration/chart/") else 2


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> ByCluster | None:
    """Of `--dist loadfile`; any other is xdist's own."""
    return ByCluster(config, log) if config.getoption("dist") == "loadfile" else None
