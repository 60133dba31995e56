"""Where a path leads in a container, for one process of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from trainseal.agent.files import Tree
from trainseal.agent.observed import WatchedContainer
from trainseal.agent.origins import ContainerPlaces

#: Beyond what Linux numbers.
GONE = 2**22 + 1


@pytest.fixture
def places(tmp_path: Path) -> Iterator[ContainerPlaces]:
    """Of a container whose root is a folder."""
    (tmp_path / "tmp").mkdir()
    (tmp_path / "tmp/x.py").touch()
    now = datetime(2026, 11, 1, tzinfo=UTC)
    container = WatchedContainer("n", "p", "u", "s", "trainer", "c" * 64, os.getpid(), now, (), {})
    with Tree(str(tmp_path)) as root:
        yield ContainerPlaces(container, (), None, root)


def test_the_root_of_a_process_that_is_gone_was_the_containers(places: ContainerPlaces) -> None:
    assert places.resolved("/proc/self/root/tmp/x.py", GONE) == "/tmp/x.py"
    assert places.resolved("/proc/50/root/tmp/x.py") == "/tmp/x.py"


@pytest.mark.parametrize("link", ["cwd", "fd/3"])
def test_its_working_directory_and_what_it_had_open_nobody_knows(
    places: ContainerPlaces, link: str
) -> None:
    path = f"/proc/self/{link}/x.py"
    assert places.resolved(path, GONE) == path
