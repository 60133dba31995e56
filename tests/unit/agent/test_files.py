"""Reading in a tree that an attacker arranges: nothing leads out, nothing but files is read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from trainseal.agent import files
from trainseal.agent.files import Tree, digest_of


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    secret = tmp_path / "outside" / "secret"
    secret.parent.mkdir()
    secret.write_text("of the node")
    return secret


@pytest.fixture
def tree(tmp_path: Path, outside: Path) -> Iterator[Tree]:
    root = tmp_path / "root"
    (root / "usr/lib").mkdir(parents=True)
    (root / "usr/lib/a.py").write_text("x = 1\n")
    (root / "lib").symlink_to("usr/lib")
    (root / "absolute").symlink_to("/usr/lib")
    (root / "file").symlink_to(outside)
    (root / "folder").symlink_to(outside.parent)
    (root / "up").symlink_to("../outside")
    os.mkfifo(root / "pipe")
    with Tree(str(root)) as found:
        yield found


def test_a_regular_file_is_read(tree: Tree) -> None:
    assert tree.read("/usr/lib/a.py", 100) == b"x = 1\n"
    assert tree.digest("/usr/lib/a.py") == f"sha256:{sha256(b'x = 1' + bytes([10])).hexdigest()}"


@pytest.mark.parametrize(
    "path",
    [
        "/file",
        "/folder/secret",
        "/up/secret",
        "/../outside/secret",
        "/usr/../../outside/secret",
        "/lib/a.py",
    ],
)
def test_no_link_and_no_step_back_is_followed(tree: Tree, path: str) -> None:
    assert tree.read(path, 100) is None
    assert tree.digest(path) is None


def test_a_named_pipe_is_not_waited_for(tree: Tree) -> None:
    assert tree.read("/pipe", 100) is None


def test_a_device_is_not_opened() -> None:
    with Tree("/dev") as devices:
        assert devices.read("/zero", 100) is None


def test_directories_are_followed_within_the_tree_only(tree: Tree) -> None:
    assert tree.real_directory("/lib") == "/usr/lib"
    assert tree.real_directory("/absolute") == "/usr/lib"
    assert tree.real_directory("/folder") is None
    assert tree.real_directory("/up") is None


def test_long_files_are_not_read_whole(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    assert tree.read("/usr/lib/a.py", 5) is None
    monkeypatch.setattr(files, "MAX_HASHED", 5)
    with tree.regular("/usr/lib/a.py") as fd:
        assert digest_of(fd).startswith("too large")


def test_no_descriptor_stays_open(tree: Tree) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    for path in ("/usr/lib/a.py", "/file", "/folder/secret", "/pipe", "/none"):
        tree.read(path, 3)
        tree.status(path)
        tree.link_target(path)
        tree.real_directory(path)
        tree.opaque(path)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_one_reading_gives_the_digest_of_all_and_the_beginning(tree: Tree, tmp_path: Path) -> None:
    data = b"x" * 3_000_000
    (tmp_path / "root/large").write_bytes(data)
    (tmp_path / "root/large").chmod(0o750)
    found = tree.content("/large", 1000)
    assert found is not None
    assert (found.digest, found.size) == (f"sha256:{sha256(data).hexdigest()}", len(data))
    assert (found.head, found.whole, found.steady, found.mode) == (data[:1000], False, True, 0o750)
    small = tree.content("/usr/lib/a.py", 1000)
    assert small is not None
    assert (small.head, small.whole) == (b"x = 1\n", True)
    assert tree.content("/pipe", 1000) is None


def test_a_file_that_is_written_while_it_is_read_is_said_to_be_unsteady(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "root/usr/lib/a.py"
    pread = os.pread

    def meanwhile(fd: int, count: int, at: int) -> bytes:
        found = pread(fd, count, at)
        with path.open("a") as file:
            file.write("y" if at == 0 else "")
        return found

    monkeypatch.setattr(os, "pread", meanwhile)
    found = tree.content("/usr/lib/a.py", 1000)
    assert found is not None
    assert not found.steady
