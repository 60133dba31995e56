"""Work trees on disk: what belongs to them, and that no link leads out of them."""

from __future__ import annotations

import os
import socket
from hashlib import sha256
from pathlib import Path

import pytest

from trainseal.registry.tree_files import (
    IgnoreRules,
    TreeFile,
    TreeFilesError,
    hash_files,
    list_files,
    open_file,
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name, content in {
        "train.py": b"import torch\n",
        "lib/model.py": b"model",
        "lib/data/a": b"",
        "run.sh": b"#!/bin/sh\n",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    (root / "run.sh").chmod(0o755)
    return root


def names(tree: Path, ignore: IgnoreRules | None = None) -> list[str]:
    return [file.path for file in list_files(tree, ignore)]


def add(tree: Path, *paths: str) -> None:
    for path in paths:
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(b"x")


def test_files_are_listed_in_manifest_order_with_size_and_x_bit(tree: Path) -> None:
    assert list_files(tree) == [
        TreeFile("lib/data/a", 0, False),
        TreeFile("lib/model.py", 5, False),
        TreeFile("run.sh", 10, True),
        TreeFile("train.py", 13, False),
    ]


def test_digests_are_those_of_the_bytes_and_progress_adds_up(tree: Path) -> None:
    (tree / "big").write_bytes(b"x" * 3_000_000)
    files = list_files(tree)
    seen: list[int] = []
    digests = hash_files(tree, files, seen.append, threads=3)
    assert list(digests) == [file.path for file in files]
    assert all(digests[f.path] == sha256((tree / f.path).read_bytes()).hexdigest() for f in files)
    assert sum(seen) == sum(file.size for file in files)


def test_caches_and_git_are_left_out_and_their_like_named_twins_are_not(tree: Path) -> None:
    before = names(tree)
    add(tree, ".git/config", "lib/__pycache__/m.pyc", "lib/m.pyc", ".venv/bin/python")
    add(tree, ".gitignore", ".github/workflows/x.yml")
    assert names(tree) == before
    add(tree, "lib/git", "lib/.gitignore", "m.pyc.txt")
    assert set(names(tree)) - set(before) == {"lib/git", "lib/.gitignore", "m.pyc.txt"}


@pytest.mark.parametrize(
    ("pattern", "left_out"),
    [
        ("*.log", {"a.log", "lib/b.log", "logs/c.log", "lib/logs/d.log"}),
        ("/a.log", {"a.log"}),
        ("logs/", {"logs/c.log", "lib/logs/d.log"}),
        ("lib/*.log", {"lib/b.log"}),
        ("lib/**", {"lib/b.log", "lib/logs/d.log", "lib/model.py", "lib/data/a"}),
        ("**/d.log", {"lib/logs/d.log"}),
        ("?.log", {"a.log", "lib/b.log", "logs/c.log", "lib/logs/d.log"}),
        ("# a.log", set()),
        ("a.lo", set()),
    ],
)
def test_an_ignore_file_leaves_out_what_its_patterns_say(
    tree: Path, pattern: str, left_out: set[str]
) -> None:
    add(tree, "a.log", "lib/b.log", "logs/c.log", "lib/logs/d.log")
    everything = set(names(tree))
    (tree / ".trainsealignore").write_text(f"\n{pattern}\n")
    assert everything - set(names(tree)) == left_out
    assert ".trainsealignore" in names(tree)


@pytest.mark.parametrize("pattern", ["!keep", "[ab]", "a\\b"])
def test_a_pattern_that_could_be_read_differently_is_refused(tree: Path, pattern: str) -> None:
    (tree / ".trainsealignore").write_text(pattern)
    with pytest.raises(TreeFilesError, match="not supported"):
        list_files(tree)


def test_many_stars_cost_no_time(tree: Path) -> None:
    add(tree, "a" * 200)
    assert names(tree, IgnoreRules(["*" * 500 + "b"]))


def test_a_symbolic_link_is_refused_by_name_and_ignored_when_told_so(tree: Path) -> None:
    (tree / "lib/out").symlink_to("/etc/passwd")
    with pytest.raises(TreeFilesError, match="lib/out: found a symbolic link"):
        list_files(tree)
    assert "lib/out" not in names(tree, IgnoreRules(["out"]))


def test_a_linked_directory_is_refused_and_never_entered(tree: Path, tmp_path: Path) -> None:
    add(tmp_path, "outside/secret")
    (tree / "linked").symlink_to(tmp_path / "outside")
    with pytest.raises(TreeFilesError, match="linked: found a symbolic link"):
        list_files(tree)


def test_pipes_and_sockets_are_refused_by_name(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    with pytest.raises(TreeFilesError, match="pipe: found a named pipe"):
        list_files(tree)
    (tree / "pipe").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        here = Path.cwd()
        os.chdir(tree)  # a socket's address has a short limit
        try:
            server.bind("sock")
        finally:
            os.chdir(here)
        with pytest.raises(TreeFilesError, match="sock: found a socket"):
            list_files(tree)


@pytest.mark.parametrize("name", [b"a\\b", b"a\nb", b"\xff", "a\u202eb".encode()])
def test_a_name_that_no_signed_tree_may_have_is_refused(tree: Path, name: bytes) -> None:
    Path(os.fsdecode(os.fsencode(tree) + b"/" + name)).write_bytes(b"")
    with pytest.raises(TreeFilesError, match="rename"):
        list_files(tree)


def test_names_that_differ_only_in_case_are_refused(tree: Path) -> None:
    add(tree, "Train.py")
    with pytest.raises(TreeFilesError, match="differ only in case"):
        list_files(tree)


def test_an_empty_tree_is_refused(tmp_path: Path) -> None:
    add(tmp_path, ".git/config")
    with pytest.raises(TreeFilesError, match="no file"):
        list_files(tmp_path)


def test_a_file_that_grew_after_listing_is_not_vouched_for(tree: Path) -> None:
    files = list_files(tree)
    (tree / "train.py").write_bytes(b"something longer than before")
    with pytest.raises(TreeFilesError, match=r"train\.py: found 28 bytes"):
        hash_files(tree, files)


def test_a_link_slipped_in_after_listing_is_not_followed(tree: Path, tmp_path: Path) -> None:
    files = list_files(tree)
    secret = tmp_path / "secret"
    secret.write_bytes(b"import torch\n")
    (tree / "train.py").unlink()
    (tree / "train.py").symlink_to(secret)
    with pytest.raises(TreeFilesError, match="symbolic link"):
        hash_files(tree, files)


def test_a_linked_parent_slipped_in_after_listing_is_not_followed(
    tree: Path, tmp_path: Path
) -> None:
    files = list_files(tree)
    (tree / "lib").rename(tmp_path / "moved")
    (tree / "lib").symlink_to(tmp_path / "moved")
    with pytest.raises(OSError, match="lib"):
        hash_files(tree, files)
    with pytest.raises(OSError, match="lib"), open_file(tree, "lib/model.py"):
        pass
