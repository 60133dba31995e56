"""Real writes into a real container's checkpoints, seen by fanotify and read to the last byte."""

from __future__ import annotations

import contextlib
import hashlib
import select
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.integration.agent.minicontainer import MiniContainer, started
from trainseal.agent.checkpointmount import CheckpointMount, GoneError, Hashing
from trainseal.agent.checkpointvalues import Written
from trainseal.agent.eyes import Eyes
from trainseal.agent.fanotify import probe
from trainseal.agent.observed import Lineage, Process, WatchedContainer


def who(pid: int) -> Lineage | None:
    """As much of a process of the container as these tests need."""
    started = datetime(2026, 1, 1, tzinfo=UTC)
    return Lineage((Process(pid, 0, started, "/bin/sh", (), 0, "c" * 64),))


class Told:
    """What the eyes told of."""

    def __init__(self) -> None:
        self.written: list[Written] = []

    def wrote(self, _: WatchedContainer, written: Written) -> None:
        self.written.append(written)

    def lost(self, _: WatchedContainer) -> None:
        raise AssertionError("events were lost")

    @property
    def paths(self) -> set[str]:
        return {w.path for w in self.written}


@contextlib.contextmanager
def watched(container: MiniContainer) -> Iterator[tuple[Eyes, Told]]:
    told = Told()
    eyes = Eyes(container.watched(), probe(), who, node=container.node, writes=told)
    with contextlib.closing(eyes):
        assert eyes.open() == []
        yield eyes, told


def read(eyes: Eyes, until: Callable[[], bool]) -> list[object]:
    """Reads as an event loop would; what was found."""
    found: list[object] = []
    end = time.monotonic() + 20
    while not until() and (left := end - time.monotonic()) > 0:
        if select.select(eyes.filenos(), [], [], left)[0]:
            found += eyes.read()
    assert until()
    return [*found, *eyes.read(final=True)]


def test_what_is_closed_in_checkpoints_is_told_and_is_no_finding(
    tmp_path: Path, image: Path
) -> None:
    with started(tmp_path, image) as container, watched(container) as (eyes, told):
        container.run("mkdir /checkpoints/step-1; echo weights > /checkpoints/step-1/model")
        assert read(eyes, lambda: "step-1/model" in told.paths) == []
        (written,) = [w for w in told.written if w.path == "step-1/model"]
        assert written.writer == "Trainer"
        # Renamed: told of by its number.
        container.run("echo x > /checkpoints/a.tmp; mv /checkpoints/a.tmp /checkpoints/a")
        assert read(eyes, lambda: len(told.written) >= 2) == []
        assert told.written[-1].path in ("a", "a.tmp")


def test_scratch_and_what_is_only_read_are_not_told(tmp_path: Path, image: Path) -> None:
    with started(tmp_path, image) as container, watched(container) as (eyes, told):
        container.run("echo x > /checkpoints/first")
        container.run("echo x > /scratch/a; cat /checkpoints/first > /dev/null")
        container.run("echo x > /checkpoints/last")
        read(eyes, lambda: "last" in told.paths)
        assert told.paths == {"first", "last"}


def test_who_writes_through_another_mount_of_the_volume_is_not_told_of(
    tmp_path: Path, image: Path
) -> None:
    """Another pod of the node, or the node itself: that is what a changed stamp is for."""
    with started(tmp_path, image) as container, watched(container) as (eyes, told):
        mount = CheckpointMount(container.pid, "/checkpoints", container.node)
        container.run("echo one > /checkpoints/model")
        read(eyes, lambda: "model" in told.paths)
        before = mount.look("model")
        Path(f"{container.node}{container.layers}/checkpoints/model").write_text("poisoned")
        container.run("echo x > /checkpoints/last")
        read(eyes, lambda: "last" in told.paths)
        assert len([w for w in told.written if w.path == "model"]) == 1
        assert mount.look("model") != before


def test_a_program_in_checkpoints_is_a_finding_as_before(tmp_path: Path, image: Path) -> None:
    with started(tmp_path, image) as container, watched(container) as (eyes, told):
        container.run("cp /bin/true /checkpoints/t; /checkpoints/t")
        container.run("echo x > /checkpoints/last")
        found = read(eyes, lambda: "last" in told.paths)
        assert [str(getattr(o, "finding", "")) for o in found] == ["exec.foreign"]


def test_the_node_reads_what_a_container_wrote_last(tmp_path: Path, image: Path) -> None:
    with started(tmp_path, image) as container:
        mount = CheckpointMount(container.pid, "/checkpoints", container.node)
        container.run("echo final > /checkpoints/final")
        container.end()
        stamp = mount.look("final")
        assert stamp is not None
        assert mount.ended
        found = Hashing("final", stamp)
        while not found.done:
            found.step(mount, 1024)
        assert found.digest == "sha256:" + hashlib.sha256(b"final\n").hexdigest()
    with pytest.raises(GoneError):
        mount.look("final")
