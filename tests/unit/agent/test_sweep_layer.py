"""What of a container's layer makes it another than its image; what is each rank's own is not."""

from __future__ import annotations

import os
import stat
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from importlib.util import MAGIC_NUMBER
from pathlib import Path
from struct import pack

import pytest

from trainseal.agent import sweep_layer
from trainseal.agent.files import Tree
from trainseal.agent.layers import Layers
from trainseal.agent.loaders import Loaders
from trainseal.agent.mounts import Overlay
from trainseal.agent.observed import RoleMount, WatchedContainer
from trainseal.agent.scene import Scene
from trainseal.agent.sweep_layer import CHANGING, LayerProfile

PACKAGES = "/usr/lib/python3/dist-packages"
ADAM = f"{PACKAGES}/torch/adam.py"
IMAGE = {ADAM: b"lr = 1\n", "/etc/app.conf": b"a\n", "/usr/bin/tool": b"#!/bin/sh\n"}
SCRATCH = RoleMount("/tmp", "scratch", "scratch-0")


class Layered:
    """Image and upper layer as folders, and the scene that a container would have of them."""

    def __init__(self, folder: Path, started: datetime) -> None:
        self.folder, self.now = folder, 0.0
        for name in ("image", "upper", "merged"):
            (folder / name).mkdir()
        for path, data in IMAGE.items():
            self._write("image", path, data)
            self._write("merged", path, data)
        self.container = WatchedContainer(
            "research", "w-0", "u", "s", "trainer", "c", 1, started, (SCRATCH,), {}
        )
        scene = Scene.__new__(Scene)  # its own way in reads a container's /proc
        scene._container = self.container
        scene.blind, scene.mounts, scene.fresh = [], (), set()
        scene.known, scene._compared = None, {}
        scene.root = Tree(str(folder / "merged"))
        scene.layers = Layers(Overlay("/upper", ("/image",)), str(folder))
        scene.loaders = Loaders((PACKAGES,), frozenset({"/usr/lib"}), frozenset({"/usr/bin"}))
        self.scene = scene
        self.profile = LayerProfile(self.container, scene)

    def _write(self, layer: str, path: str, data: bytes) -> Path:
        place = self.folder / layer / path.lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
        return place

    def write(self, path: str, data: bytes) -> None:
        """In the container, so that the upper layer gets it."""
        self._write("upper", path, data)
        self._write("merged", path, data)

    def look(self) -> dict[str, str]:
        """After a whole pass."""
        self.now += 1000
        for _ in self.profile.step(self.now):
            pass
        assert self.profile.known is not None
        return dict(self.profile.known)


@pytest.fixture
def layered(tmp_path: Path) -> Layered:
    return Layered(tmp_path, datetime.now(UTC) - timedelta(hours=1))


def digest(data: bytes) -> str:
    return f"sha256:{sha256(data).hexdigest()}"


def test_a_container_that_nobody_touched_has_nothing(layered: Layered) -> None:
    assert layered.profile.known is None
    assert layered.look() == {}


COUNTED = {
    "a file of the image, changed": ADAM,
    "a data file of the image, changed": "/etc/app.conf",
    "a new module": f"{PACKAGES}/sitecustomize.py",
    "a new library of the linker's": "/usr/lib/libnccl-net.so",
    "a new program": "/usr/bin/ls",
    "what the linker preloads": "/etc/ld.so.preload",
    "byte code without its source": f"{PACKAGES}/evil.pyc",
}


@pytest.mark.parametrize("path", COUNTED.values(), ids=COUNTED.keys())
def test_what_code_is_taken_from_counts_by_path_and_digest(layered: Layered, path: str) -> None:
    layered.write(path, b"evil\n")
    assert layered.look() == {path: digest(b"evil\n")}


OWN = {
    "a log": "/var/log/train-0.log",
    "a compiler's cache in a home": "/root/.triton/cache/ab/launcher.so",
    "a file in scratch": "/tmp/torchinductor_root/x.so",
    "a module in scratch": "/tmp/venv/site-packages/x.py",
    "byte code on its way": f"{PACKAGES}/torch/__pycache__/adam.cpython-311.pyc.140213",
}


@pytest.mark.parametrize("path", OWN.values(), ids=OWN.keys())
def test_what_is_each_ranks_own_does_not_count(layered: Layered, path: str) -> None:
    layered.write(path, b"something\n")
    assert layered.look() == {}


def test_a_file_of_the_image_with_its_content_does_not_count(layered: Layered) -> None:
    """As after a chmod, for which the overlay copies it up."""
    layered.write(ADAM, IMAGE[ADAM])
    assert layered.look() == {}


def test_byte_code_that_an_import_writes_does_not_count(layered: Layered) -> None:
    status = (layered.folder / "merged" / ADAM.lstrip("/")).stat()
    header = MAGIC_NUMBER + pack("<III", 0, int(status.st_mtime), status.st_size)
    layered.write(f"{PACKAGES}/torch/__pycache__/adam.cpython-311.pyc", header + b"code")
    assert layered.look() == {}


def test_what_a_runtime_left_before_the_start_does_not_count(tmp_path: Path) -> None:
    layered = Layered(tmp_path, datetime.now(UTC) + timedelta(hours=1))
    layered.write("/etc/ld.so.cache", b"glibc-ld.so.cache1.1 of this node")
    assert layered.look() == {}


def test_a_removed_file_of_the_image_counts(layered: Layered) -> None:
    place = layered.folder / "upper" / ADAM.lstrip("/")
    place.parent.mkdir(parents=True)
    try:
        os.mknod(place, stat.S_IFCHR, os.makedev(0, 0))
    except PermissionError:
        pytest.skip("needs root: a whiteout")
    assert layered.look() == {ADAM: "removed"}


def test_a_link_among_the_modules_counts_by_where_it_leads(layered: Layered) -> None:
    for layer in ("upper", "merged"):
        place = layered.folder / layer / f"{PACKAGES}/evil.py".lstrip("/")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to("/opt/evil.py")
    assert layered.look() == {f"{PACKAGES}/evil.py": "-> /opt/evil.py"}


@pytest.mark.parametrize(("first", "last"), [(ADAM, "/etc/app.conf"), ("/etc/app.conf", ADAM)])
def test_what_is_undone_is_gone_and_what_came_last_is_last(
    layered: Layered, first: str, last: str
) -> None:
    layered.write(first, b"evil\n")
    assert layered.look() == {first: digest(b"evil\n")}
    layered.write(last, b"b\n")
    assert list(layered.look()) == [first, last]
    layered.write(first, IMAGE[first])
    assert layered.look() == {last: digest(b"b\n")}


def test_a_file_that_is_another_all_the_time_is_one_thing(layered: Layered) -> None:
    for number in range(4):
        layered.write("/etc/app.conf", f"rank 0, line {number}\n".encode())
        found = layered.look()
    assert found == {"/etc/app.conf": CHANGING}
    layered.write("/etc/app.conf", b"and on\n")
    assert layered.look() == {"/etc/app.conf": CHANGING}


def test_a_file_that_is_as_it_was_is_not_read_again(
    layered: Layered, monkeypatch: pytest.MonkeyPatch
) -> None:
    layered.write(ADAM, b"evil\n")
    before = layered.look()

    def refuse(*_: object) -> str:
        raise AssertionError("read again")

    monkeypatch.setattr(Tree, "digest", refuse)
    assert layered.look() == before


def test_a_pass_begins_a_minute_after_the_last_or_later_for_many_entries(
    layered: Layered, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begun(at: float) -> bool:
        return any(True for _ in layered.profile.step(at))

    layered.write(ADAM, b"evil\n")
    assert begun(0.0)
    list(layered.profile.step(0.0))
    assert not begun(59.0)
    monkeypatch.setattr(sweep_layer, "_PER_ENTRY", 60.0)
    list(layered.profile.step(60.0))
    assert not begun(120.0)


def test_a_step_looks_into_so_many_bytes_and_the_next_goes_on(
    layered: Layered, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sweep_layer, "_BYTES", 1)
    for number in range(5):
        layered.write(f"{PACKAGES}/m{number}.py", b"evil\n")
    steps = 0
    while layered.profile.known is None:
        list(layered.profile.step(0.0))
        steps += 1
    assert steps >= 5
    assert len(layered.profile.known) == 5


@pytest.mark.parametrize(("bound", "most"), [("_MOST", 2), ("_MOST_WALKED", 4)])
def test_a_layer_that_is_too_large_is_not_compared(
    layered: Layered, monkeypatch: pytest.MonkeyPatch, bound: str, most: int
) -> None:
    monkeypatch.setattr(sweep_layer, bound, most)
    for number in range(3):
        layered.write(f"{PACKAGES}/m{number}.py", b"evil\n")
    list(layered.profile.step(0.0))
    assert layered.profile.known is None


def test_without_layers_nothing_is_known(layered: Layered) -> None:
    layered.scene.layers = None
    list(layered.profile.step(0.0))
    assert layered.profile.known is None
