"""Reading a checkpoints mount: a folder here, through a process that stands for the container."""

from __future__ import annotations

import hashlib
import mmap
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.checkpointbytes import EVIL, tensors
from trainseal.agent.checkpointmount import (
    CheckpointMount,
    GoneError,
    Hashing,
    open_for_writing,
    stamp_of,
)
from trainseal.agent.checkpointvalues import Stamp

NODE = "/proc/self/root"


@pytest.fixture
def container() -> Iterator[subprocess.Popen[bytes]]:
    """Its first process."""
    process = subprocess.Popen(["sleep", "1000"])
    yield process
    process.kill()
    process.wait()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    found = tmp_path / "checkpoints"
    (found / "step-1").mkdir(parents=True)
    (found / "step-1" / "model").write_bytes(b"weights" * 1000)
    (found / "latest").symlink_to("step-1")
    os.mkfifo(found / "pipe")
    return found


@pytest.fixture
def mount(folder: Path, container: subprocess.Popen[bytes]) -> CheckpointMount:
    return CheckpointMount(container.pid, str(folder), NODE)


def walked(mount: CheckpointMount) -> dict[str, Stamp]:
    return dict(item for item in mount.walk() if item is not None)


def descriptors() -> set[str]:
    return {fd.name for fd in Path("/proc/self/fd").iterdir()}


def hashed(mount: CheckpointMount, path: str, stamp: Stamp, part: int = 1000) -> Hashing:
    found = Hashing(path, stamp)
    while not found.done:
        found.step(mount, part)
    return found


def test_a_walk_finds_regular_files_and_nothing_else(mount: CheckpointMount, folder: Path) -> None:
    status = (folder / "step-1" / "model").stat()
    assert walked(mount) == {"step-1/model": stamp_of(status)}


def test_a_file_is_hashed_in_parts(mount: CheckpointMount) -> None:
    stamp = mount.look("step-1/model")
    assert stamp is not None
    found = hashed(mount, "step-1/model", stamp)
    assert found.digest == "sha256:" + hashlib.sha256(b"weights" * 1000).hexdigest()


@pytest.mark.parametrize(
    ("content", "form"), [(tensors(), "safetensors"), (EVIL, "pickle"), (b"", "text")]
)
def test_what_a_file_is_gets_judged_in_parts_as_it_is_hashed(
    mount: CheckpointMount, folder: Path, content: bytes, form: str
) -> None:
    (folder / "step-1" / "model").write_bytes(content)
    stamp = mount.look("step-1/model")
    assert stamp is not None
    found, before = Hashing("step-1/model", stamp), descriptors()
    while not found.done:
        found.step(mount, 1)
        assert descriptors() == before, "nothing is held open between two parts"
    assert found.judged is not None
    assert found.judged.form == form


def test_a_file_that_changes_while_it_is_judged_gets_no_digest(
    mount: CheckpointMount, folder: Path
) -> None:
    (folder / "step-1" / "model").write_bytes(b"\x80\x04" + b"N0" * 20_000 + b".")
    stamp = mount.look("step-1/model")
    assert stamp is not None
    found = Hashing("step-1/model", stamp)
    for _ in range(3):
        found.step(mount, 1)
        assert not found.done
    (folder / "step-1" / "model").write_bytes(EVIL)
    while not found.done:
        found.step(mount, 1)
    assert (found.changed, found.digest, found.judged) == (True, None, None)


@pytest.mark.parametrize("after", [1, 3])
def test_a_file_that_changes_while_it_is_read_gets_no_digest(
    mount: CheckpointMount, folder: Path, after: int
) -> None:
    (folder / "step-1" / "model").write_bytes(b"weights" * 700_000)
    stamp = mount.look("step-1/model")
    assert stamp is not None
    found = Hashing("step-1/model", stamp)
    for _ in range(after):
        assert found.step(mount, 1) > 1, "there is more to read"
    with (folder / "step-1" / "model").open("r+b") as file:
        file.write(b"p")
    while not found.done:
        found.step(mount, 1000)
    assert (found.changed, found.digest) == (True, None)


def test_a_file_that_changes_behind_what_was_read_gets_no_digest(
    mount: CheckpointMount, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its beginning, when its end is being read."""
    stamp = mount.look("step-1/model")
    assert stamp is not None
    read = os.pread

    def reading(fd: int, count: int, at: int) -> bytes:
        part = read(fd, count, at)
        if not part:
            with (folder / "step-1" / "model").open("r+b") as file:
                file.write(b"p")
        return part

    monkeypatch.setattr("trainseal.agent.checkpointmount.os.pread", reading)
    found = hashed(mount, "step-1/model", stamp)
    assert (found.changed, found.digest) == (True, None)


def test_another_file_under_its_name_is_never_read_for_it(
    mount: CheckpointMount, folder: Path
) -> None:
    stamp = mount.look("step-1/model")
    assert stamp is not None
    other = folder / "other"
    other.write_bytes(b"weights" * 1000)
    other.replace(folder / "step-1" / "model")
    assert hashed(mount, "step-1/model", stamp).changed


@pytest.mark.parametrize("name", ["latest/model", "pipe", "latest", "step-1", "nothing", "../x"])
def test_links_pipes_and_what_is_not_there_are_not_looked_at(
    mount: CheckpointMount, name: str
) -> None:
    assert mount.look(name) is None


def test_a_way_out_of_the_mount_is_not_taken(
    mount: CheckpointMount, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("of the node")
    (folder / "out").symlink_to(tmp_path)
    assert mount.look("out/secret") is None
    assert set(walked(mount)) == {"step-1/model"}


def test_what_a_container_left_behind_is_read_by_the_nodes_own_mount(
    mount: CheckpointMount, container: subprocess.Popen[bytes]
) -> None:
    stamp = mount.look("step-1/model")
    assert stamp is not None
    container.kill()
    container.wait()
    assert hashed(mount, "step-1/model", stamp).digest is not None
    assert mount.ended


def test_another_directory_is_never_taken_for_the_mount(
    mount: CheckpointMount, folder: Path, container: subprocess.Popen[bytes]
) -> None:
    container.kill()
    container.wait()
    folder.rename(folder.with_name("gone"))
    folder.mkdir()
    (folder / "model").write_text("of another volume")
    with pytest.raises(GoneError):
        mount.look("model")


def test_a_mount_that_is_gone_before_it_is_seen_is_an_error(folder: Path) -> None:
    process = subprocess.Popen(["true"])
    process.wait()
    with pytest.raises(OSError):
        CheckpointMount(process.pid, str(folder), NODE)


def test_nothing_stays_open_between_two_steps(mount: CheckpointMount) -> None:
    before = descriptors()
    stamp = mount.look("step-1/model")
    assert stamp is not None
    found = Hashing("step-1/model", stamp)
    found.step(mount, 10)
    walk = mount.walk()
    next(walk)
    assert descriptors() == before


def test_who_has_a_file_open_for_writing_is_found(folder: Path) -> None:
    path = folder / "step-1" / "model"
    status = path.stat()
    key = (status.st_dev, status.st_ino)
    assert not open_for_writing(os.getpid(), key)
    with path.open("rb"):
        assert not open_for_writing(os.getpid(), key)
    with path.open("r+b") as file:
        assert open_for_writing(os.getpid(), key)
        mapped = mmap.mmap(file.fileno(), 0)
    with mapped:
        assert open_for_writing(os.getpid(), key)
    assert not open_for_writing(os.getpid(), key)
