"""Which new names are taken code from."""

from __future__ import annotations

import pytest

from trainseal.agent.loaders import Loaders

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
