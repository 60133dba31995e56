"""Which new names are taken code from."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainseal.agent import loaders
from trainseal.agent.files import Tree
from trainseal.agent.loaders import Loaders, find

LOADERS = Loaders(
    trees=("/usr/lib/python3", "/opt/venv/lib/python3.11"),
    libraries=frozenset({"/usr/lib/x86_64-linux-gnu"}),
    programs=frozenset({"/usr/bin", "/usr/local/bin"}),
)


@pytest.mark.parametrize(
    "path",
    [
        "/usr/lib/python3/dist-packages/torch/optim/adam.py",
        "/usr/lib/python3/dist-packages/evil.pth",
        "/usr/lib/python3/dist-packages/torch/lib/libtorch.so.2",
        "/root/.local/lib/python3.11/site-packages/x.py",
        "/srv/sitecustomize.py",
        "/home/a/usercustomize.py",
        "/etc/ld.so.preload",
        "/etc/ld.so.cache",
        "/etc/nccl.conf",
        "/root/.nccl.conf",
        "/etc/ld.so.conf.d/a.conf",
        "/usr/lib/x86_64-linux-gnu/libnccl-net.so",
        "/usr/local/bin/python3",
    ],
)
def test_code_is_loaded_from(path: str) -> None:
    assert LOADERS.imports(path)


@pytest.mark.parametrize(
    "path",
    [
        "/usr/lib/python3/dist-packages/torch/README.md",
        "/usr/lib/x86_64-linux-gnu/notes.txt",
        "/usr/lib/x86_64-linux-gnu/inner/libx.so",
        "/var/log/train.log",
        "/root/train.py",
        "/etc/ld.so.conf.d/readme",
        "/usr/binary",
    ],
)
def test_no_code_is_loaded_from(path: str) -> None:
    assert not LOADERS.imports(path)


def root_with(folder: Path, *directories: str) -> Tree:
    for directory in directories:
        (folder / directory).mkdir(parents=True)
    return Tree(str(folder))


def test_trees_are_found_also_below_directories_with_a_dot_in_their_name(tmp_path: Path) -> None:
    root = root_with(
        tmp_path,
        "opt/env-3.11/lib/python3.11/site-packages",
        "usr/local/cuda-12.4/lib64",
        "opt/.venv/lib/python3.12",
        "usr/share/doc-1.0/lib/python3.11",  # nobody imports from there
    )
    with root:
        found = find(root, {})
    assert found.trees == ("/opt/.venv/lib/python3.12", "/opt/env-3.11/lib/python3.11")
    assert {"/opt/env-3.11/lib", "/usr/local/cuda-12.4/lib64"} <= found.libraries
    assert found.whole


@pytest.mark.parametrize("bound", ["MOST_DIRECTORIES", "MOST_NAMES"])
def test_where_there_are_too_many_directories_it_is_not_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str
) -> None:
    with root_with(tmp_path, *(f"srv/{n}/deep" for n in range(10))) as root:
        assert find(root, {}).whole
        monkeypatch.setattr(loaders, bound, 5)
        assert not find(root, {}).whole
