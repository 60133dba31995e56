"""Programs that the build needs, installed from Debian's packages where they are missing."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable

from tests.images.cache import images_dir, locked
from tests.images.errors import ImageError
from tests.images.progress import Say, run, step

TOOLS = {
    "buildah": "buildah",
    "mmdebstrap": "mmdebstrap",
    "skopeo": "skopeo",
    "zstd": "zstd",
    "tar": "tar",
}
"""Program on PATH -> Debian package that holds it."""

SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment(extra: dict[str, str] | None = None) -> dict[str, str]:
    """This process's environment with the administrator's PATH, in English, asking nothing."""
    own = os.environ.get("PATH", "")
    path = f"{own}:{SYSTEM_PATH}" if own else SYSTEM_PATH
    return {
        **os.environ,
        "PATH": path,
        "LC_ALL": "C.UTF-8",
        "DEBIAN_FRONTEND": "noninteractive",
    } | (extra or {})


def missing(programs: Iterable[str]) -> list[str]:
    """The Debian packages of those programs that are not on PATH."""
    path = environment()["PATH"]
    return sorted({TOOLS[name] for name in programs if shutil.which(name, path=path) is None})


def ensure_tools(*programs: str) -> None:
    """Install what is missing with apt-get; raises ImageError where that cannot be done."""
    if os.geteuid() != 0:
        raise ImageError(
            "images are built as root here: a root filesystem has files of many owners",
            expected="user id 0",
            action="run the same command with sudo",
        )
    packages = missing(programs)
    if not packages:
        return
    apt = shutil.which("apt-get")
    if apt is None:
        raise ImageError(
            f"not on this machine: {', '.join(packages)}",
            expected="Debian 12 (bookworm), or these programs on PATH",
            action="install them with the package manager of this system",
        )
    with locked(images_dir() / ".apt.lock"):
        packages = missing(programs)
        if not packages:
            return
        with step(f"installing {', '.join(packages)}") as say:
            install = [
                apt, "-o", "DPkg::Lock::Timeout=600", "install", "-y", "--no-install-recommends",
                *packages,
            ]  # fmt: skip
            try:
                _apt(install, say)
            except ImageError:
                # The package lists may be missing or old; refresh them once.
                _apt([apt, "-o", "DPkg::Lock::Timeout=600", "update"], say)
                _apt(install, say)


def _apt(command: list[str], say: Say) -> None:
    run(
        command,
        say,
        doing="installing Debian packages",
        action="install them by hand, then start again",
        env=environment(),
    )
