"""Long-lived processes that outlive the command which started them.

A process is remembered by its number and its start time: a number alone may belong to
somebody else by the time it is read again.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.cluster.errors import ClusterError

_SBIN = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Process:
    """A process of this machine, now or formerly."""

    pid: int
    start_time: int

    @classmethod
    def running(cls, pid: int) -> Process | None:
        """The process that has this number now; None if none has, or if it is a zombie."""
        found = _stat(pid)
        return None if found is None else cls(pid, found)

    @classmethod
    def load(cls, pidfile: Path) -> Process | None:
        """What a pidfile says; None if it is missing or was cut off while being written."""
        try:
            raw = json.loads(pidfile.read_text())
            return cls(int(raw["pid"]), int(raw["start_time"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def save(self, pidfile: Path) -> None:
        """Write the pidfile; `load` gives an equal value back."""
        pidfile.parent.mkdir(parents=True, exist_ok=True)
        pidfile.write_text(json.dumps({"pid": self.pid, "start_time": self.start_time}))

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        return _stat(self.pid) == self.start_time

    def kill(self) -> None:
        """SIGKILL to it and to the others of its session, if it is still the same process."""
        if not self.alive:
            return
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if os.getsid(self.pid) == self.pid:
                os.killpg(self.pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


def _stat(pid: int) -> int | None:
    """Start time in clock ticks since boot; None for no process or a dead one."""
    # Our own dead children stay as zombies until somebody asks for their status.
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # The second field, the name, may hold spaces and parentheses.
    fields = text.rpartition(")")[2].split()
    dead = fields[0] == "X" or (fields[0] == "Z" and not _other_threads(pid))
    return None if dead else int(fields[19])


def _other_threads(pid: int) -> bool:
    """A killed process is a zombie before the last of its threads lets go of files and ports."""
    try:
        return len(list(Path(f"/proc/{pid}/task").iterdir())) > 1
    except OSError:
        return False


def daemon_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """What our daemons see: no proxy (all their peers are local), all the usual folders."""
    env = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    env["PATH"] = f"{env.get('PATH', '')}:{_SBIN}".lstrip(":")
    return env | dict(extra or {})


def spawn(
    argv: Sequence[str], *, log: Path, pidfile: Path, variables: Mapping[str, str] | None = None
) -> Process:
    """Start `argv` in a session of its own, with its output appended to `log`.

    Whoever is killed before the pidfile is written leaves a process that `having` finds by its
    `variables`.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    out_flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    # posix_spawn and not Popen: a Popen object that is dropped complains about its child,
    # and these children are meant to be left behind.
    pid = os.posix_spawnp(
        argv[0],
        list(argv),
        daemon_environment(variables),
        file_actions=[
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_OPEN, 1, str(log), out_flags, 0o644),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ],
        setsid=True,
    )
    process = Process.running(pid)
    if process is None:
        raise ClusterError(f"{argv[0]} ended at once", detail=tail(log))
    process.save(pidfile)
    return process


def having(variable: str, value: str) -> set[Process]:
    """Every process that was started with this environment variable, as far as we may look."""
    wanted = f"{variable}={value}".encode()
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        # Others' processes, and those that end while we look.
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes().split(b"\0"):
                process = Process.running(int(entry.name))
                if process is not None:
                    found.add(process)
    return found


def kill_all(processes: Iterable[Process], *, timeout: float = 15.0) -> list[Process]:
    """Kill them and wait until they are gone; returns those that are not."""
    remaining = [p for p in processes if p.alive]
    for process in remaining:
        process.kill()
    deadline = time.monotonic() + timeout
    while remaining and time.monotonic() < deadline:
        remaining = [p for p in remaining if p.alive]
        if remaining:
            time.sleep(0.05)
    return remaining


def tail(log: Path, lines: int = 20) -> str:
    """The last lines of a log, for an error message."""
    try:
        with log.open("rb") as handle:
            handle.seek(0, os.SEEK_END)
            handle.seek(max(0, handle.tell() - 16384))
            text = handle.read().decode(errors="replace")
    except FileNotFoundError:
        return f"({log} was never written)"
    return "\n".join([f"last lines of {log}:", *text.splitlines()[-lines:]])


def kubelets(*, of_others: bool = False) -> list[int]:
    """Kubelets that see this machine's files; with `of_others` only those that are not ours.

    All kubelets use /var/lib/kubelet/device-plugins, whatever their own folder is, and empty
    it when they start.
    """
    found = []
    here = Path("/proc/self/ns/mnt").stat().st_ino
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if (entry / "comm").read_text().strip() != "kubelet":
                continue
            ours = "/trainseal." in (entry / "cgroup").read_text()
            if (entry / "ns/mnt").stat().st_ino == here and not (ours and of_others):
                found.append(int(entry.name))
        except OSError:
            continue
    return found
