"""Where things lie: all of it outside the checkout.

The cache holds what is built once (tools); the state root holds a folder for each cluster,
which `down` removes whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from tests.cluster.errors import ClusterError

CHECKOUT = Path(__file__).resolve().parents[2]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,18}[a-z0-9])?")


def cache_dir() -> Path:
    """`$TRAINSEAL_CACHE`, else `$XDG_CACHE_HOME/trainseal`, else `~/.cache/trainseal`."""
    own = os.environ.get("TRAINSEAL_CACHE")
    if own:
        return Path(own).absolute()
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser().absolute() / "trainseal"


def state_root() -> Path:
    """`$TRAINSEAL_STATE`, else `/var/lib/trainseal-clusters` for root, else in the cache."""
    own = os.environ.get("TRAINSEAL_STATE")
    if own:
        return Path(own).absolute()
    if os.geteuid() == 0:
        return Path("/var/lib/trainseal-clusters")
    return cache_dir() / "clusters"


def own_name(prefix: str, place: Path) -> str:
    """A cluster's name for the tests at `place`, another in each checkout.

    Two runs side by side do not meet, and a run heals what a killed one left.
    """
    return f"{prefix}-{hashlib.sha256(str(place).encode()).hexdigest()[:4]}"


@dataclass(frozen=True)
class RunDir:
    """The folder of one cluster and the names of what lies in it."""

    root: Path

    @classmethod
    def of(cls, name: str) -> RunDir:
        """The folder of the cluster called `name`; it need not exist."""
        if not _NAME.fullmatch(name):
            # Socket paths and interface names have short limits, and the name is in them.
            raise ClusterError(
                f"{name!r} cannot be a cluster's name",
                expected="at most 20 lower-case letters, digits and dashes",
            )
        return cls(state_root() / name)

    @property
    def state_file(self) -> Path:
        """What `up` decided: mode, addresses, tools."""
        return self.root / "state.json"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.root / "kubeconfig"

    @property
    def pids(self) -> Path:
        """One file a process."""
        return self.root / "pids"

    @property
    def logs(self) -> Path:
        """One file a component."""
        return self.root / "logs"

    @property
    def pki(self) -> Path:
        """Keys and certificates."""
        return self.root / "pki"

    @property
    def conf(self) -> Path:
        """Configuration files of the components."""
        return self.root / "conf"

    def sub(self, name: str) -> Path:
        """A folder in the run directory, made if missing."""
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One `up` or `down` of this name at a time."""
        with locked(self.root.with_name(f".{self.root.name}.lock")):
            yield


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on the file `path`, waiting for it."""
    with _lock_file(path) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def held_alone(path: Path) -> Iterator[bool]:
    """Hold the lock, if nobody else does; yields whether."""
    with _lock_file(path) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _lock_file(path: Path) -> TextIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("w")
