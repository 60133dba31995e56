from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.gate.world import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    """A valid world; each test breaks one thing in it."""
    return World(tmp_path / "world")
