"""The `go` on the PATH: whether it builds what our go.mod files ask for, and where its caches are.

From Go 1.21 on, a Go that is too old fetches the one that a go.mod names, unless GOTOOLCHAIN
forbids it.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.cluster import pins
from tests.cluster.errors import ClusterError

Version = tuple[int, int, int]

_FETCHING: Version = (1, 21, 0)
_VERSION = re.compile(r"(\d+)\.(\d+)(?:\.(\d+)|((?:rc|beta)\d+))?")


@dataclass(frozen=True)
class Go:
    """What `go env` says."""

    version: Version
    toolchain: str
    build_cache: Path
    module_cache: Path

    @property
    def fetches(self) -> bool:
        """Whether it gets a newer toolchain by itself."""
        return self.version >= _FETCHING and self.toolchain.rpartition("+")[2] == "auto"


def require_go() -> Go:
    """The Go that will build the tools. ClusterError if there is none, or none that can."""
    if shutil.which("go") is None:
        raise ClusterError(
            "the cluster's tools have to be built and there is no `go` on the PATH",
            expected=f"Go {_text(needed())} or newer",
            action="install it (https://go.dev/dl; Debian 12's own is 1.19, too old), then run "
            "this again",
        )
    found = _ask()
    if found.version >= needed() or found.fetches:
        return found
    raise ClusterError(
        f"`go` on the PATH ({shutil.which('go')}) is {_text(found.version)}"
        + (f", with GOTOOLCHAIN={found.toolchain}" if found.toolchain else ""),
        expected=f"Go {_text(needed())} or newer",
        action="install it (https://go.dev/dl)"
        + (
            ", or set GOTOOLCHAIN=auto, with which this Go fetches the newer one"
            if found.version >= _FETCHING
            else ""
        ),
    )


def needed() -> Version:
    """The newest Go that one of the tools' go.mod files names."""
    files = {program.source / "go.mod" for program in pins.PROGRAMS.values()}
    lines = (re.search(r"^go (\S+)$", f.read_text(), re.MULTILINE) for f in files)
    return max(version_of(line[1]) for line in lines if line is not None)


def version_of(text: str) -> Version:
    """`1.26.0`, `go1.26.8` and what `go env GOVERSION` prints besides; ClusterError.

    A release candidate comes before its release.
    """
    found = _VERSION.search(text)
    if found is None:
        raise ClusterError(
            f"`go env GOVERSION` says {text!r}",
            expected=f"a version, such as go{_text(needed())}",
            action="install a released Go (https://go.dev/dl)",
        )
    major, minor, patch, candidate = found.groups()
    return int(major), int(minor), -1 if candidate else int(patch or 0)


def _ask() -> Go:
    names = ("GOVERSION", "GOTOOLCHAIN", "GOCACHE", "GOMODCACHE")
    done = subprocess.run(
        ["go", "env", *names],
        cwd="/",  # where no go.mod has it change to another toolchain
        env=os.environ | {"GOWORK": "off"},
        capture_output=True,
        text=True,
        check=False,
    )
    # Go before 1.21 prints an empty line for GOTOOLCHAIN, which it does not know.
    lines = done.stdout.splitlines()
    if done.returncode != 0 or len(lines) != len(names):
        raise ClusterError(
            f"`go env` ended with {done.returncode}",
            expected=f"Go {_text(needed())} or newer",
            action="see what `go env` says; install Go anew (https://go.dev/dl)",
            detail=(done.stderr or done.stdout)[-2000:],
        )
    return Go(version_of(lines[0]), lines[1], Path(lines[2]), Path(lines[3]))


def _text(version: Version) -> str:
    major, minor, patch = version
    return f"{major}.{minor}" + (f".{patch}" if patch > 0 else "")
