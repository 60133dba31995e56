"""A group of real processes stands still and goes on, by either version of the kernel's freezer."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stage.waiting import eventually
from trainseal.agent.freezer import FreezeError, Freezer

#: Where Linux has them, and the freezer's file: a node has one or the other, a hybrid one both.
HIERARCHIES = {"v1": ("freezer", "freezer.state"), "v2": ("unified", "cgroup.freeze")}
_MOUNT = Path("/sys/fs/cgroup")
COUNT = """
import mmap, sys, time
with open(sys.argv[1], "r+b") as file:
    counted = mmap.mmap(file.fileno(), 8)
number = 0
while True:
    number += 1
    counted[:] = number.to_bytes(8, "little")
    time.sleep(0.001)
"""


class Counting:
    """A process that counts on for as long as it may."""

    def __init__(self, file: Path) -> None:
        file.write_bytes(bytes(8))
        with file.open("rb") as counted:
            self._counted = mmap.mmap(counted.fileno(), 8, prot=mmap.PROT_READ)
        self.process = subprocess.Popen([sys.executable, "-c", COUNT, str(file)])
        eventually(lambda: self.count > 0, "it counts")

    @property
    def count(self) -> int:
        return int.from_bytes(self._counted, "little")

    def goes_on(self, by: int = 50) -> None:
        """Returns once it has counted so much further."""
        wanted = self.count + by
        eventually(lambda: self.count >= wanted, "it counts on")

    @property
    def state(self) -> str:
        """Of proc(5)'s stat: `T` where a signal stopped it."""
        stat = Path(f"/proc/{self.process.pid}/stat").read_text()
        return stat.rpartition(")")[2].split()[0]


@pytest.fixture(params=HIERARCHIES)
def group(request: pytest.FixtureRequest) -> Iterator[Path]:
    """An empty group with a freezer of this version; skipped where the machine has none."""
    name, file = HIERARCHIES[request.param]
    # Without the freezer of version 1, version 2 is mounted there itself.
    mount = _MOUNT if name == "unified" and (_MOUNT / "cgroup.procs").exists() else _MOUNT / name
    folder = mount / f"trainseal-freezer-{os.getpid()}"
    if not (mount / "cgroup.procs").exists():
        pytest.skip(f"{mount} is no hierarchy of control groups here")
    folder.mkdir()
    try:
        assert (folder / file).exists()
        yield folder
    finally:
        Freezer().thaw(folder)
        eventually(lambda: not (folder / "cgroup.procs").read_text(), "the group is empty")
        folder.rmdir()


@pytest.fixture
def counting(group: Path, tmp_path: Path) -> Iterator[tuple[Counting, Counting]]:
    """One in the group, and one that is not."""
    both = Counting(tmp_path / "in"), Counting(tmp_path / "out")
    (group / "cgroup.procs").write_text(str(both[0].process.pid))
    try:
        yield both
    finally:
        Freezer().thaw(group)
        for one in both:
            one.process.kill()
            one.process.wait()


def test_what_is_frozen_stands_still_and_goes_on_once_it_is_thawed(
    group: Path, counting: tuple[Counting, Counting]
) -> None:
    inside, outside = counting
    freezer = Freezer()
    freezer.freeze(group)
    assert freezer.state(group) == "frozen"
    frozen_at = inside.count
    outside.goes_on()
    assert inside.count == frozen_at
    freezer.thaw(group)
    assert freezer.state(group) == "thawed"
    inside.goes_on()


def test_what_is_frozen_does_not_look_as_if_a_signal_had_stopped_it(
    group: Path, counting: tuple[Counting, Counting]
) -> None:
    inside, _ = counting
    Freezer().freeze(group)
    assert inside.state not in "Tt"


def test_a_group_that_is_gone_is_an_error_that_says_so(group: Path) -> None:
    with pytest.raises(FreezeError, match="cannot be frozen"):
        Freezer().freeze(group / "none")
