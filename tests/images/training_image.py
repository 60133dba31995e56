"""The image that the example trains in: Debian's PyTorch (CPU, gloo) and a text to learn.

The text is Ambrose Bierce, *The Devil's Dictionary* (1911), in the public domain, from Debian's
package dict-devil. It lies at TEXT_PATH, its copyright file beside the others in /usr/share/doc.

python3-torch depends, through OpenCV, on half a desktop. What PyTorch, NumPy and the shell tools
do not load is removed: shared libraries that no kept program names, and the folders in REMOVED.
"""

from __future__ import annotations

import gzip
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path

from tests.images import debian, machine, ocilayout
from tests.images.base import UNUSED, base_inputs, clear_traces
from tests.images.cache import product
from tests.images.errors import ImageError
from tests.images.progress import step

PACKAGES = (
    "python3",
    "python3-torch",
    "python3-numpy",
    "libopenblas0-pthread",  # ten times the reference BLAS
    "ca-certificates",
    "dict-devil",
)

TEXT_PATH = "/usr/share/trainseal/devils-dictionary.txt"

KEPT_SHARE = frozenset(
    {"ca-certificates", "common-licenses", "doc", "python3", "trainseal", "zoneinfo"}
)
"""What stays of /usr/share: copyright files among it."""

REMOVED = (
    "usr/include",
    "usr/lib/gcc*",
    "usr/lib/libtorch-test",
    "usr/lib/python3*/test",
    "usr/lib/python3*/idlelib",
    "usr/lib/python3*/**/numpy/**/tests",
    "usr/lib/python3/dist-packages/sympy",
    "usr/lib/python3/dist-packages/mpmath",
    "usr/lib/python3/dist-packages/hypothesis",
    "usr/lib/python3/dist-packages/torch/bin/[!t]*",
    "usr/lib/python3/dist-packages/torch/bin/t[!o]*",
    "usr/lib/python3/dist-packages/torch/bin/torch_[!s]*",
    "usr/lib/python3/dist-packages/torch/include",
    "usr/lib/python3/dist-packages/torch/test",
    "usr/lib/python3/dist-packages/torch/lib/*caffe2*",
    "usr/lib/python3/dist-packages/caffe2",
    "usr/lib/*-linux-gnu/perl",
    "usr/lib/*-linux-gnu/dri",
    "usr/lib/*-linux-gnu/mfx",
    "usr/lib/*-linux-gnu/gconv",
    "usr/lib/*-linux-gnu/qt5",
    "usr/lib/*-linux-gnu/cmake",
    "usr/lib/*-linux-gnu/**/*.a",
    "var/lib/dpkg/info",
)

_LOADED_BY_NAME = frozenset({"ossl-modules", "engines-3"})
"""Folders of plugins that no ELF header names."""

_CHECK = """
import json, sys, torch, numpy, torch.nn, torch.optim, torch.distributed as dist
assert dist.is_gloo_available()
model = torch.nn.GRU(8, 8)
out, _ = model(torch.ones(4, 2, 8)); out.sum().backward()
assert numpy.isfinite(out.detach().numpy()).all()
from torch.nn.parallel import DistributedDataParallel
print(torch.__version__, torch.__config__.show())
"""


def build_training_image() -> str:
    """OCI layout (a folder) of the training image; built unless it is in the cache."""
    release = debian.codename()
    inputs = base_inputs(release).code(Path(__file__))
    return str(product("training", inputs, lambda work: _build(release, work)) / "image")


def _build(release: str, work: Path) -> None:
    machine.ensure_tools("mmdebstrap", "tar", "zstd")
    rootfs = work / "rootfs"
    with step(f"training: Debian {release} with PyTorch (1.4 GB before trimming)") as say:
        debian.bootstrap(release, PACKAGES, rootfs, say, excluded=UNUSED)
    with step("training: trimming"):
        _place_text(rootfs)
        _trim(rootfs)
        clear_traces(rootfs)
        (rootfs / "usr/bin/python").symlink_to("python3")
        debian.inside(rootfs, ["python3", "-c", _CHECK])
        for cache in list(rootfs.rglob("__pycache__")):
            if cache.parts[-2:] == ("tests", "__pycache__"):
                shutil.rmtree(cache)
    with step("training: layer"):
        config = ocilayout.ImageConfig(
            "trainseal-training",
            # One thread a worker: two of them share what a small test machine has.
            {"LANG": "C.UTF-8", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            ("python3",),
        )
        ocilayout.write_layout(rootfs, work / "image", config)
        shutil.rmtree(rootfs)


def _place_text(rootfs: Path) -> None:
    """The dictionary's own file is gzip with an index; unpacked it is plain text."""
    packed = rootfs / "usr/share/dictd/devil.dict.dz"
    target = rootfs / TEXT_PATH.lstrip("/")
    target.parent.mkdir(parents=True)
    target.write_bytes(gzip.decompress(packed.read_bytes()))


def _trim(rootfs: Path) -> None:
    for pattern in REMOVED:
        _remove(rootfs.glob(pattern))
    _remove(path for path in (rootfs / "usr/share").iterdir() if path.name not in KEPT_SHARE)
    _remove_unused_libraries(rootfs)


def _remove(paths: Iterable[Path]) -> None:
    for path in list(paths):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _remove_unused_libraries(rootfs: Path) -> None:
    """Remove the shared libraries, links included, that no kept program loads."""
    [folder] = rootfs.glob("usr/lib/*-linux-gnu")
    kept_programs = programs(rootfs)
    listed = debian.inside(
        rootfs,
        ["ldd", *(_absolute(rootfs, path) for path in kept_programs)],
        accepted=(0, 1),  # 1: among them is a static program
    )
    absent = sorted({line.strip() for line in listed.splitlines() if "not found" in line})
    if absent:
        raise ImageError("libraries are missing before any was removed", detail="\n".join(absent))
    # PyTorch's folder holds links into the folder of libraries: they are programs too.
    names = loaded(listed) | {_absolute(rootfs, path) for path in kept_programs}
    kept = {link for name in names for link in links(rootfs, name)}
    kept.update(folder.glob("ld-linux*"), folder.glob("libnss_*"), folder.glob("libgcc_s*"))
    _remove(
        path
        for path in folder.rglob("*.so*")
        if path not in kept and path.parent.name not in _LOADED_BY_NAME
    )
    debian.inside(rootfs, ["ldconfig"])


def programs(rootfs: Path) -> list[Path]:
    """ELF files, and links to such, that are run or that Python loads.

    Packages' modules are in python3, the standard library is in python3.N.
    """
    return [
        path
        for pattern in ("usr/bin", "usr/sbin", "usr/lib/python3", "usr/lib/python3.*")
        for folder in rootfs.glob(pattern)
        for path in folder.rglob("*")
        if is_elf(links(rootfs, _absolute(rootfs, path))[-1])
    ]


def loaded(listed: str) -> set[str]:
    """Absolute paths of the libraries in ldd's output."""
    return set(re.findall(r"^\s+\S+ => (/\S+) ", listed, re.MULTILINE))


def links(rootfs: Path, name: str) -> list[Path]:
    """The file of this absolute path within `rootfs`, and every link on the way to it."""
    found = []
    while True:
        # /lib is a link to usr/lib in every Debian since 12.
        inner = re.sub(r"^/lib/", "/usr/lib/", os.path.normpath(name))
        path = rootfs / inner.lstrip("/")
        found.append(path)
        if not path.is_symlink():
            return found
        name = os.path.join(os.path.dirname(inner), os.readlink(path))  # noqa: PTH118, PTH120, PTH115


def is_elf(path: Path) -> bool:
    """Whether this is a file that begins as an ELF file does."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _absolute(rootfs: Path, path: Path) -> str:
    return "/" + path.relative_to(rootfs).as_posix()
