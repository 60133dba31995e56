"""A container without a runtime: an overlay of its own, namespaces, a first process.

All mounts live in mount namespaces that end with their processes; nothing is left on the machine.
The image is a few programs of this machine with their libraries, and a small Python tree.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from trainseal.agent.observed import RoleMount, WatchedContainer

PROGRAMS = (
    "sh",
    "cat",
    "cp",
    "mv",
    "ln",
    "rm",
    "touch",
    "chmod",
    "mkdir",
    "sed",
    "sleep",
    "true",
    "umount",
)
TORCH = "/usr/lib/python3/dist-packages/torch"
ADAM = f"{TORCH}/optim/adam.py"
MOUNTS = (
    RoleMount("/workspace", "code", "trainer"),
    RoleMount("/scratch", "scratch", "scratch-0"),
    RoleMount("/checkpoints", "checkpoints", "checkpoints"),
)
_FILES = {
    ADAM: "def step(lr):\n    return -lr\n",
    f"{TORCH}/__init__.py": "from torch.optim import adam\n",
    f"{TORCH}/lib/libtorch.so": "not really\n",
    "/etc/ld.so.conf": "include /etc/ld.so.conf.d/*.conf\n",
    "/etc/passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "/opt/notes.txt": "of the image\n",
}
_START = """
set -e
mount -t tmpfs -o mode=755 layers "$1"
cp -a "$2" "$1/image"
mkdir "$1/upper" "$1/work" "$1/root" "$1/checkpoints"
mount -t overlay overlay \
  -o "lowerdir=$1/image,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mkdir -p proc dev tmp old workspace scratch checkpoints
mount -t tmpfs code workspace
echo 'print("train")' > workspace/train.py
mkdir workspace/lib
echo 'x = 1' > workspace/lib/helpers.py
mount -t tmpfs scratch scratch
mount --bind "$1/checkpoints" checkpoints
mount -t tmpfs dev dev
touch "$1.log" dev/termination-log usr/bin/driver
mount --bind "$1.log" dev/termination-log
cp usr/bin/true "$1.driver"
mount --bind "$1.driver" usr/bin/driver
mount -o remount,bind,ro usr/bin/driver
touch dev/null
mount --bind /dev/null dev/null
sh -c "$3"
echo outer $$
unshare --mount --pid --fork --propagation private sh -c '
  mount -t proc proc proc && pivot_root . old && umount -l old && echo inner ready &&
  exec sleep 1000000' &
wait
exec sleep 1000000
"""


@dataclass
class MiniContainer:
    """A running one. ``node`` is where the node's root directory is for reading layers."""

    pid: int
    outer: int
    layers: Path
    started: datetime
    env: Mapping[str, str | None] = field(default_factory=dict)

    @property
    def node(self) -> str:
        """Of the namespace that the layers are in."""
        return f"/proc/{self.outer}/root"

    @property
    def upper(self) -> Path:
        """The overlay's upper directory, as the node sees it."""
        return Path(f"{self.node}{self.layers}/upper")

    def watched(self) -> WatchedContainer:
        """As the agent knows it."""
        return WatchedContainer(
            namespace="research",
            pod="char-lm-worker-0",
            pod_uid="uid-0",
            seal="char-lm",
            container="trainer",
            container_id="c" * 64,
            pid=self.pid,
            started=self.started,
            mounts=MOUNTS,
            env=self.env,
        )

    def run(self, script: str) -> None:
        """A shell script in it, as ``kubectl exec`` would; fails as the script does."""
        self._enter("sh", "-ec", f"cd /; {script}")

    def end(self) -> None:
        """Its first process is killed, and with it all others; what is mounted outside stays."""
        os.kill(self.pid, signal.SIGKILL)
        root = Path(f"/proc/{self.pid}/root/checkpoints")
        end = time.monotonic() + 10
        while root.exists():
            assert time.monotonic() < end, "it does not end"
            time.sleep(0.01)

    def entering(self, *command: str) -> list[str]:
        """The command line by which a command is run in it."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--pid", "--root", *command]

    def _enter(self, *command: str) -> None:
        subprocess.run(self.entering(*command), check=True, timeout=30)

    def python(self, act: Callable[[], object], *, enter: bool = True) -> None:
        """Runs ``act`` in a child whose root is the container's: this Python, that file system.

        With ``enter`` false it goes in by itself.
        """
        child = os.fork()
        if child == 0:
            status = 1
            with contextlib.suppress(BaseException):
                if enter:
                    os.fchdir(os.open(f"/proc/{self.pid}/root", os.O_RDONLY))
                    os.chroot(".")
                act()
                status = 0
            os._exit(status)
        assert os.waitpid(child, 0)[1] == 0


def missing() -> str | None:
    """Why there can be none here."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "needs root on Linux: mount namespaces and fanotify"
    tools = [t for t in ("unshare", "nsenter", "ldd", "mount") if shutil.which(t) is None]
    return f"needs {', '.join(tools)}" if tools else None


def make_image(folder: Path) -> Path:
    """The image's files: made once, each container copies them."""
    for name in PROGRAMS:
        path = shutil.which(name)
        assert path
        _copy(folder, Path(path).resolve(), f"/usr/bin/{name}")
        listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
        for word in listed.split():
            if word.startswith("/"):
                _copy(folder, Path(word).resolve(), word)
    for path, text in _FILES.items():
        target = folder / path[1:]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    (folder / "bin").symlink_to("usr/bin")
    return folder


def _copy(folder: Path, source: Path, path: str) -> None:
    target = folder / path[1:]
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, target)


@contextlib.contextmanager
def started(folder: Path, image: Path, hook: str = "true") -> Iterator[MiniContainer]:
    """``hook``: a shell command that runs in the root before the first process starts."""
    process = subprocess.Popen(
        [
            *("unshare", "--mount", "--propagation", "private"),
            *("sh", "-c", _START, "sh", str(folder), str(image), hook),
        ],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        assert process.stdout
        outer = int(process.stdout.readline().split()[1])
        assert process.stdout.readline() == "inner ready\n"
        pid = _first_process(outer)
        yield MiniContainer(pid, outer, folder, datetime.fromtimestamp(time.time(), UTC))
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout:
            process.stdout.close()


def _first_process(outer: int) -> int:
    """The process numbered 1 in its own namespace, below ``outer``."""
    pending = [outer]
    while pending:
        pid = pending.pop()
        status = Path(f"/proc/{pid}/status").read_text()
        numbers = next(line for line in status.splitlines() if line.startswith("NSpid:")).split()
        if numbers[-1] == "1" and len(numbers) > 2:
            return pid
        pending += map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
    raise AssertionError("the container has no first process")
