"""The cgroup of a cluster: where its daemons and pods live, and how all of them are found.

Every process of a cluster is below one cgroup named after it, whatever it forked or was
re-parented to, so a cluster can be ended whole even if nobody remembers a single process
number. Works with cgroup v2, with v1, and with both mounted.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.processes import Process, kill_all

NEEDED = frozenset({"cpu", "cpuset", "memory", "pids"})
"""The controllers without which the kubelet does not start."""


@dataclass(frozen=True)
class Hierarchy:
    """One mounted cgroup hierarchy."""

    mount: Path
    version: int
    controllers: frozenset[str]


def hierarchies() -> list[Hierarchy]:
    """All that are mounted."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split()[:3]
        mount = Path(left.split()[4])
        if kind == "cgroup2":
            listed = (mount / "cgroup.controllers").read_text().split()
            found.append(Hierarchy(mount, 2, frozenset(listed)))
        elif kind == "cgroup":
            found.append(Hierarchy(mount, 1, frozenset(options.split(","))))
    return found


@dataclass(frozen=True)
class Cgroup:
    """The cgroup of one cluster, in every hierarchy."""

    name: str

    @property
    def path(self) -> str:
        """As the kubelet's `cgroupRoot` wants it."""
        return f"/{self.name}"

    def folders(self) -> list[Path]:
        """Where it is or would be."""
        return [h.mount / self.name for h in hierarchies()]

    def create(self) -> None:
        """Make it, with a `daemons` group for our own processes.

        Raises ClusterError where the controllers that pods need do not reach it.
        """
        for hierarchy in hierarchies():
            folder = hierarchy.mount / self.name
            folder.mkdir(exist_ok=True)
            if hierarchy.version == 2:
                delegate(hierarchy.mount, hierarchy.controllers)
                delegate(folder, hierarchy.controllers)
            (folder / "daemons").mkdir(exist_ok=True)
            if "cpuset" in hierarchy.controllers and hierarchy.version == 1:
                # A v1 cpuset starts empty and accepts no process until it is filled.
                for group in (folder, folder / "daemons"):
                    for file in ("cpuset.cpus", "cpuset.mems"):
                        (group / file).write_text((group.parent / file).read_text())

    def enter_command(self) -> list[str]:
        """A command prefix that moves itself into `daemons` before it becomes the command."""
        moves = [
            f"echo 0 > {folder}/daemons/cgroup.procs"
            for h in hierarchies()
            for folder in (h.mount / self.name,)
            # One v1 hierarchy is enough to find a process by; the freezer is the one that
            # no daemon reads limits from.
            if h.version == 2 or "freezer" in h.controllers
        ]
        script = " && ".join([*moves, 'exec "$@"'])
        return ["sh", "-c", script, "sh"]

    def processes(self) -> set[Process]:
        """Everything that runs in it, in any hierarchy."""
        pids: set[int] = set()
        for folder in self.folders():
            for procs in _below(folder, "cgroup.procs"):
                with contextlib.suppress(OSError):
                    pids.update(int(line) for line in procs.read_text().split())
        return {p for pid in pids if (p := Process.running(pid)) is not None}

    def kill(self, *, timeout: float = 20.0) -> None:
        """End everything in it, frozen or not."""
        deadline = time.monotonic() + timeout
        while remaining := self.processes():
            # A frozen v1 process dies of SIGKILL only once it is thawed.
            self._thaw()
            kill_all(remaining, timeout=1.0)
            if time.monotonic() > deadline:
                listed = ", ".join(f"{p.pid} ({_command(p.pid)})" for p in self.processes())
                if listed:
                    raise ClusterError(
                        f"processes of {self.name} do not die: {listed}",
                        action="look at /proc/PID/stack for what they wait on",
                    )
                return

    def remove(self) -> None:
        """Remove it from every hierarchy; it must be empty."""
        for folder in self.folders():
            if not folder.exists():
                continue
            groups = [Path(root) for root, _, _ in os.walk(folder, topdown=False)]
            for group in groups:
                with contextlib.suppress(FileNotFoundError):
                    _rmdir(group)

    def _thaw(self) -> None:
        for folder in self.folders():
            for file, word in (("freezer.state", "THAWED"), ("cgroup.freeze", "0")):
                for state in _below(folder, file):
                    with contextlib.suppress(OSError):
                        state.write_text(word)


def _below(folder: Path, name: str) -> Iterator[Path]:
    """The file of every group. They come and go while we look: `Path.rglob` would raise."""
    for group, _, files in os.walk(folder):
        if name in files:
            yield Path(group, name)


def delegate(folder: Path, controllers: frozenset[str]) -> None:
    """Hand the controllers of a v2 group on to the groups below it.

    Of those that nobody needs, what cannot be handed on stays behind. ClusterError where one of
    NEEDED does; what v1 carries is not among `controllers`.
    """
    refusals = {}
    for controller in sorted(controllers):
        try:
            _enable(folder, controller)
        except OSError as error:
            refusals[controller] = error.strerror or str(error)
    handed_on = set((folder / "cgroup.subtree_control").read_text().split())
    if lacking := sorted((controllers & NEEDED) - handed_on):
        raise ClusterError(
            f"{folder}/cgroup.subtree_control holds {' '.join(sorted(handed_on)) or 'nothing'}; "
            f"lacking: {', '.join(lacking)}",
            expected=f"{', '.join(sorted(controllers & NEEDED))}: pods run in groups below it",
            action="use a virtual machine; or, in a container, one with a cgroup namespace of its "
            f"own, and move what runs in {folder}/cgroup.procs into a group below first: a group "
            "that hands controllers on holds no processes itself",
            detail="\n".join(f"+{name}: {refusals.get(name, 'no error')}" for name in lacking),
        )


def try_out(mounted: Collection[Hierarchy]) -> None:
    """Make a group as a cluster's is made, and remove it. ClusterError says what does not work."""
    group = Cgroup(f"trainseal-check-{os.getpid()}")
    try:
        group.create()
    except OSError as error:
        raise ClusterError(
            f"a group cannot be made in {', '.join(str(h.mount) for h in mounted)}: {error}",
            expected="cgroups that root may write",
            action="use a virtual machine, or a privileged container",
        ) from None
    finally:
        with contextlib.suppress(OSError):
            group.remove()


def _enable(folder: Path, controller: str) -> None:
    (folder / "cgroup.subtree_control").write_text(f"+{controller}")


def _rmdir(group: Path, timeout: float = 5.0) -> None:
    """The kernel takes a moment to notice that the last process is gone."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "gone"
