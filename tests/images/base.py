"""The Debian base that the operator image stands on where no container registry is in reach."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

from tests.images import debian, machine, ocilayout
from tests.images.cache import Inputs, product
from tests.images.progress import step

PACKAGES = ("python3", "python3-venv", "ca-certificates")
LOCALE = {"LANG": "C.UTF-8"}

UNUSED = (
    "/usr/share/doc/*",
    "/usr/share/info/*",
    "/usr/share/locale/*",
    "/usr/share/man/*",
    "/usr/share/lintian/*",
    "/usr/include/*",
)
"""Never unpacked (dpkg globs); copyright files stay."""


def clear_traces(rootfs: Path) -> None:
    """Remove what mmdebstrap copied from this machine and what only a package manager reads."""
    for name in ("etc/apt", "var/lib/apt", "var/cache", "var/lib/dpkg/info", "var/log"):
        folder = rootfs / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    for name in ("etc/hostname", "etc/resolv.conf"):
        (rootfs / name).unlink(missing_ok=True)
    for cache in list(rootfs.glob("usr/share/python-wheels/**/__pycache__")):
        shutil.rmtree(cache)


def base_inputs(release: str) -> Inputs:
    """What decides the base; not today's versions of its packages."""
    inputs = Inputs().text("release", release)
    for module in ("base.py", "debian.py", "ocilayout.py"):
        inputs = inputs.code(Path(__file__).with_name(module))
    return inputs


def build_base_image() -> Path:
    """OCI layout (a folder) of the base; built unless it is in the cache."""
    release = debian.codename()
    return product("base", base_inputs(release), lambda work: _build(release, work)) / "image"


def _build(release: str, work: Path) -> None:
    build_with(release, work, PACKAGES, ocilayout.ImageConfig("trainseal-base", LOCALE))


def build_with(
    release: str, work: Path, packages: Sequence[str], config: ocilayout.ImageConfig
) -> None:
    """Debian with these packages, as `work`/image."""
    machine.ensure_tools("mmdebstrap", "tar", "zstd")
    rootfs, what = work / "rootfs", config.title.removeprefix("trainseal-")
    with step(f"{what}: Debian {release} with {', '.join(packages)}") as say:
        debian.bootstrap(release, packages, rootfs, say, excluded=UNUSED)
        clear_traces(rootfs)
    with step(f"{what}: layer"):
        ocilayout.write_layout(rootfs, work / "image", config)
        shutil.rmtree(rootfs)
