"""Freezing counts only once the kernel says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainseal.agent.freezer import FreezeError, Freezer


class Kernel:
    """A group's files, and a kernel that takes a few looks to do what is written there."""

    def __init__(self, group: Path, version: int, looks: int) -> None:
        self.group, self.version, self.looks, self.now = group, version, looks, 0.0
        if version == 1:
            (group / "freezer.state").write_text("THAWED\n")
        else:
            (group / "cgroup.freeze").write_text("0")
            (group / "cgroup.events").write_text("populated 1\nfrozen 0\n")

    def pause(self, seconds: float) -> None:
        self.now += seconds
        self.looks -= 1
        if self.looks > 0:
            if self.version == 1:  # what v1 says on the way
                (self.group / "freezer.state").write_text("FREEZING\n")
        elif self.version == 2:
            wanted = (self.group / "cgroup.freeze").read_text()
            (self.group / "cgroup.events").write_text(f"populated 1\nfrozen {wanted}\n")

    def freezer(self) -> Freezer:
        return Freezer(clock=lambda: self.now, pause=self.pause)


def test_version_1_says_frozen_and_thawed(tmp_path: Path) -> None:
    freezer = Kernel(tmp_path, 1, 0).freezer()
    freezer.freeze(tmp_path)
    assert (tmp_path / "freezer.state").read_text() == "FROZEN"
    assert freezer.state(tmp_path) == "frozen"
    freezer.thaw(tmp_path)
    assert freezer.state(tmp_path) == "thawed"


def test_version_2_is_frozen_once_its_events_say_so(tmp_path: Path) -> None:
    kernel = Kernel(tmp_path, 2, looks=3)
    took = kernel.freezer().freeze(tmp_path)
    assert took > 0
    assert (tmp_path / "cgroup.freeze").read_text() == "1"
    kernel.looks = 2
    kernel.freezer().thaw(tmp_path)
    assert kernel.freezer().state(tmp_path) == "thawed"


def test_a_group_that_does_not_stand_still_in_time_is_said_and_stays_asked_to(
    tmp_path: Path,
) -> None:
    kernel = Kernel(tmp_path, 2, looks=10**6)
    with pytest.raises(FreezeError, match="not frozen after 1 s"):
        kernel.freezer().freeze(tmp_path, seconds=1)
    assert (tmp_path / "cgroup.freeze").read_text() == "1"


def test_a_group_that_is_gone_is_an_error_with_words(tmp_path: Path) -> None:
    with pytest.raises(FreezeError, match=r"agent\.freeze"):
        Freezer().freeze(tmp_path / "gone")
