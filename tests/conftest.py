"""For all tests: property tests judge values, never the clock; a build server gets no dice."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A machine under load must not fail a test; what is slow is a bench's to say.
settings.register_profile("default", deadline=None)
# Found examples belong to whoever runs the tests by hand, not to whoever submits next.
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--cluster", help="use this cluster of ours, and leave it up")
    parser.addoption("--detection", help="write the table of detections into this file")
    parser.addoption("--seed", type=int, help="of the attacks at random: does again what a run did")
