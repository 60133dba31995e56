"""A container as a runtime would make it, for the sweeps: control group, namespaces, an overlay.

The image is this machine's own root file system, so that Python runs in it. The first process does
what it is told and its children are the container's; ``enter`` does what a runtime does for an
exec. All mounts end with the namespaces, the control group is removed.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from trainseal.agent.cgroups import hierarchy
from trainseal.agent.observed import Observation, RoleMount, WatchedContainer
from trainseal.agent.processes import Member, Processes

PYTHON = str(Path(sys.executable).resolve())
MOUNTS = (
    RoleMount("/workspace", "code", "code-trainer"),
    RoleMount("/scratch", "scratch", "scratch-0"),
)
ENV = {
    "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
    "PYTHONDONTWRITEBYTECODE": "1",
    "LD_LIBRARY_PATH": "/scratch/lib",
    "R_LIBS": "/scratch/sealed",
}
_FIRST = """
import os, subprocess, sys
print("ready", flush=True)
for line in sys.stdin:
    command = eval(line)
    pid = os.fork()
    if pid == 0:
        env = dict(os.environ, **command["env"])
        os.chdir(command["cwd"])
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1): os.dup2(null, fd)
        os.execvpe(command["argv"][0], command["argv"], env)
"""
_OUTER = """
set -e
exec 3<&0
mount -t tmpfs -o mode=755 layers "$1"
mkdir "$1/upper" "$1/work" "$1/root"
unshare --pid --fork unshare --mount --propagation private \\
  sh -c "$4" sh "$1" "$2" "$3" <&3 3<&- &
wait
"""
_START = """
set -e
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mkdir -p workspace scratch old proc dev
mount -t tmpfs -o mode=755 code workspace
echo 'print("train")' > workspace/train.py
mount -o remount,ro,bind workspace
mount -t tmpfs scratch scratch
mount -t tmpfs -o mode=755 dev dev
for d in null zero; do touch dev/$d; mount --bind /dev/$d dev/$d; done
mkdir dev/shm
mount -t tmpfs shm dev/shm
mount -t proc proc proc
pivot_root . old
umount -l old
rmdir old
exec setsid "$2" -c "$3"
"""
_ENTER = """
import ctypes, json, os, sys
pid, group, env = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
libc = ctypes.CDLL(None, use_errno=True)
mount = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY)
assert libc.setns(os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY), 0) == 0
gate, told = os.pipe()
child = os.fork()
if child == 0:
    os.read(gate, 1)
    assert libc.setns(mount, 0) == 0
    os.chdir("/")
    os.setsid()
    os.closerange(3, 64)
    os.execvpe(sys.argv[4], sys.argv[4:], env)
if group:
    open(group, "w").write(str(child))
os.write(told, b"x")
print(child, flush=True)
os.waitpid(child, 0)
"""


@dataclass
class Lab:
    """A running container; what is started in it ends with it."""

    watched: WatchedContainer
    folder: Path
    group: Path
    first: subprocess.Popen[str]
    others: list[subprocess.Popen[str]]

    @property
    def node(self) -> str:
        """Where the paths of the layers lead from here."""
        return f"/proc/{self.first.pid}/root"

    @property
    def upper(self) -> Path:
        """The overlay's upper directory."""
        return Path(f"{self.node}{self.folder}/upper")

    def child(self, *argv: str, env: Mapping[str, str] | None = None, cwd: str = "/") -> None:
        """Has the first process start another."""
        assert self.first.stdin
        command = {"argv": list(argv), "env": dict(env or {}), "cwd": cwd}
        self.first.stdin.write(f"{command!r}\n")
        self.first.stdin.flush()

    def python(self, script: str, env: Mapping[str, str] | None = None) -> None:
        """Has the first process start a Python, which is to go on running."""
        self.child(PYTHON, "-c", script, env=env)

    def enter(self, *argv: str, grouped: bool = True, env: Mapping[str, str] | None = None) -> int:
        """Starts a process in it as a runtime does for an exec; its pid."""
        pid, group = str(self.watched.pid), str(self.group / "cgroup.procs") if grouped else ""
        process = subprocess.Popen(
            [PYTHON, "-c", _ENTER, pid, group, json.dumps({**ENV, **(env or {})}), *argv],
            stdout=subprocess.PIPE,
            stdin=subprocess.DEVNULL,
            text=True,
        )
        self.others.append(process)
        assert process.stdout
        return int(process.stdout.readline())

    def aside(self, *argv: str) -> subprocess.Popen[str]:
        """Starts a process of the node."""
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True
        )
        self.others.append(process)
        return process

    def run(self, script: str) -> None:
        """A shell script in it, which is over when this returns."""
        pid = self.watched.pid
        subprocess.run(
            ["nsenter", f"--target={pid}", "--mount", "--root", "--wd", "sh", "-ec", script],
            check=True,
            timeout=30,
        )

    def member(self, processes: Processes, last_word: str) -> Member:
        """Waits for the process whose command line ends so, and which is on its way to no other."""
        return eventually(
            lambda: next(
                (
                    m
                    for m in processes.members([self.watched])[self.watched.container_id]
                    if m.process.command[-1:] == (last_word,) and _ENTER not in m.process.command
                ),
                None,
            )
        )


T = TypeVar("T")


def eventually(look: Callable[[], T | None], seconds: float = 20.0) -> T:
    """What ``look`` gives once it gives something."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        found = look()
        if found:
            return found
        time.sleep(0.01)
    raise AssertionError(f"waited {seconds} s in vain")


def seen(found: Iterator[Observation | None] | list[Observation]) -> list[tuple[str, str | None]]:
    """Findings and paths."""
    return [(o.finding.value, o.path) for o in found if o is not None]


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Lab]:
    """One container."""
    name = f"{os.getpid():x}{time.monotonic_ns():x}".rjust(64, "c")[-64:]
    uid = "0f7a1c52-0000-4000-8000-000000000001"
    top = hierarchy(Path("/sys/fs/cgroup")) / f"trainseal-sweep-{name[-24:]}"
    group = top / "kubepods" / f"pod{uid}" / name
    group.mkdir(parents=True)
    folder.mkdir(exist_ok=True)
    join = f'echo $$ > {group}/cgroup.procs; exec "$@"'
    joined = ("sh", "-c", join, "sh", "unshare", "--mount", "--propagation", "private")
    first = subprocess.Popen(
        [*joined, "sh", "-c", _OUTER, "sh", str(folder), PYTHON, _FIRST, _START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENV,
        start_new_session=True,
    )
    lab: Lab | None = None
    try:
        assert first.stdout
        assert first.stdout.readline() == "ready\n"
        # The shell and unshare are the runtime's: not of the container.
        (top / "cgroup.procs").write_text(str(first.pid))
        (top / "cgroup.procs").write_text(str(_only_child(first.pid)))
        pid = _only_child(_only_child(first.pid))
        process = Processes().read(pid)
        assert process
        watched = WatchedContainer(
            *("research", "char-lm-worker-0", uid, "char-lm", "trainer", name, pid),
            started=process.started,
            mounts=MOUNTS,
            env={
                "PYTHONDONTWRITEBYTECODE": "1",
                "LD_LIBRARY_PATH": None,
                "R_LIBS": "/scratch/sealed",
            },
        )
        lab = Lab(watched, folder, group, first, [])
        yield lab
    finally:
        for process_ in [*(lab.others if lab else []), first]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process_.pid, signal.SIGKILL)
        for process_ in [*(lab.others if lab else []), first]:
            process_.wait()
            for stream in (process_.stdin, process_.stdout):
                if stream:
                    with contextlib.suppress(BrokenPipeError):
                        stream.close()
        eventually(lambda: _removed(top, group))


def _only_child(pid: int) -> int:
    def look() -> int | None:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        return int(children[0]) if len(children) == 1 else None

    return eventually(look)


def _removed(top: Path, group: Path) -> bool:
    """Takes the groups away, with whatever is still in them: orphans of orphans come late."""
    for folder in (group, group.parent, group.parent.parent, top):
        with contextlib.suppress(FileNotFoundError):
            for pid in (folder / "cgroup.procs").read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)
            try:
                folder.rmdir()
            except OSError:
                return False
    return True
