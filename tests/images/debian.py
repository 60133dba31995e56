"""Debian root filesystems from the package sources of this machine."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from tests.images.errors import ImageError
from tests.images.machine import SYSTEM_PATH, environment
from tests.images.progress import Say, run

_APT = Path("/etc/apt")
_OS_RELEASE = Path("/etc/os-release")
#: Debian release -> its Python. All of this runs on bookworm; on trixie nobody has tried it.
_PYTHONS = {"bookworm": "3.11", "trixie": "3.13"}


def codename() -> str:
    """The release of this machine, such as bookworm; the images are of the same release."""
    text = _OS_RELEASE.read_text() if _OS_RELEASE.is_file() else ""
    found = re.search(r"^VERSION_CODENAME=\"?([a-z]+)", text, re.MULTILINE)
    if found is None or not re.search(r"^ID=\"?debian\"?$", text, re.MULTILINE):
        name = re.search(r"^PRETTY_NAME=\"?([^\"\n]+)", text, re.MULTILINE)
        raise ImageError(
            f"this machine runs {name[1] if name else 'a system that does not say its name'}",
            expected="Debian 12 (bookworm): programs and images come from its package sources",
            action="use such a machine, or a virtual one",
        )
    return found[1]


def sources(release: str) -> list[Path]:
    """The files of this machine's package sources that speak of Debian's own suites.

    Others (a vendor's repository) are left out: nothing of theirs belongs into the images.
    """
    candidates = [_APT / "sources.list", *sorted((_APT / "sources.list.d").glob("*"))]
    chosen = [
        path
        for path in candidates
        if path.suffix in {".list", ".sources"}
        and path.is_file()
        and names_release(path.read_text(errors="replace"), release)
    ]
    if not chosen:
        raise ImageError(
            f"no package source of Debian {release} in {_APT}",
            expected=f"sources.list or sources.list.d/*.sources that name the suite {release}",
            action="add the distribution's own package source",
        )
    return chosen


def names_release(text: str, release: str) -> bool:
    """Whether a package source (one-line or deb822 form) has `main` of this release.

    Its updates and its security suite, often in files of their own, count as well.
    """
    own = {release, f"{release}-updates", f"{release}-security"}
    stanzas = re.split(r"\n\s*\n", text)
    for stanza in stanzas:
        lines = [line for line in stanza.splitlines() if not line.lstrip().startswith("#")]
        fields = dict(line.split(":", 1) for line in lines if re.match(r"[A-Za-z-]+:", line))
        if (
            own.intersection(fields.get("Suites", "").split())
            and "main" in fields.get("Components", "").split()
        ):
            return True
        for line in lines:
            one = re.match(r"deb\s+(?:\[[^]]*\]\s+)?\S+\s+(\S+)\s+(.*)", line)
            if one is not None and one[1] in own and "main" in one[2].split():
                return True
    return False


def bootstrap(
    release: str, packages: Iterable[str], target: Path, say: Say, *, excluded: Iterable[str] = ()
) -> None:
    """Make a root filesystem of essential and these packages in the new folder `target`.

    Paths in `excluded` (dpkg globs) are never unpacked. Copyright files always stay.
    """
    command: list[str | Path] = [
        # It mounts /proc, /sys and parts of /dev in the new root. In namespaces of its own these
        # are gone with it, also when it is killed: nobody may ever clear up through them.
        "unshare",
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "mmdebstrap",
        "--mode=root",
        "--variant=essential",
        "--format=directory",
        "--include=" + ",".join(packages),
        '--aptopt=Apt::Install-Recommends "false"',
        *(f"--dpkgopt=path-exclude={glob}" for glob in excluded),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        release,
        target,
        *sources(release),
    ]
    run(
        command,
        say,
        doing="making a Debian root filesystem",
        action="see whether `apt-get update` works on this machine",
        env=environment(),
    )


def inside(root: Path, command: list[str], *, accepted: tuple[int, ...] = (0,)) -> str:
    """Standard output of a program run within a root filesystem (chroot).

    Raises ImageError where its exit status is none of the accepted.
    """
    done = subprocess.run(
        ["chroot", str(root), *command],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": SYSTEM_PATH, "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"},
    )
    if done.returncode not in accepted:
        raise ImageError(
            f"{command[0]} inside the new root filesystem ended with status {done.returncode}",
            detail=(done.stdout + done.stderr)[-3000:],
        )
    return done.stdout


def python_version() -> str:
    """The Python of this machine's Debian release, and so of the images: `3.11`."""
    release = codename()
    if release not in _PYTHONS:
        raise ImageError(
            f"this machine runs Debian {release}, whose Python version is not known here",
            expected="Debian 12 (bookworm)",
            action="use such a machine, or add the release to tests/images/debian.py and try",
        )
    return _PYTHONS[release]
