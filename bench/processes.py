"""A process under measurement: its CPU seconds and memory, from /proc, and which cores it has."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Self

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_of(pid: int) -> float:
    """CPU seconds of a process so far, user and system, all threads (proc(5), /proc/PID/stat)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def memory_of(pid: int) -> float:
    """Resident memory of a process in MiB (proc(5), /proc/PID/statm)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * _PAGE / 2**20


def peak_of(pid: int) -> float:
    """The most resident memory that a process has had, in MiB (proc(5), /proc/PID/status)."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    (most,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(most) / 1024


@contextmanager
def cores_of_their_own(pids: Sequence[int]) -> Iterator[None]:
    """Each of the processes has a core to itself; all others, the kernel's aside, share the rest.

    So a node with the kubelet's static CPU manager treats a Guaranteed pod with whole CPUs. What
    begins meanwhile inherits its parent's cores. Afterwards each has those that it had before, and
    what is new has all.
    """
    cores = sorted(os.sched_getaffinity(0))
    shared = cores[len(pids) :]
    if not shared:
        raise ValueError(f"found {len(pids)} processes for {len(cores)} cores, expected fewer")
    own = dict(zip(pids, ({core} for core in cores), strict=False))
    before = {task: _cores_of(task) for _, task in _tasks()}
    try:
        for pid, task in _tasks():
            _place(task, own.get(pid, set(shared)))
        yield
    finally:
        for _, task in _tasks():
            _place(task, before.get(task) or set(cores))


def _tasks() -> Iterator[tuple[int, int]]:
    """Every thread but the kernel's, after the process that it is of."""
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with suppress(OSError):  # it has ended
                if (folder / "cmdline").read_bytes():  # the kernel's have none
                    for task in os.listdir(folder / "task"):  # noqa: PTH208 names are wanted
                        yield int(folder.name), int(task)


def _cores_of(task: int) -> set[int]:
    with suppress(OSError):
        return os.sched_getaffinity(task)
    return set()


def _place(task: int, cores: set[int]) -> None:
    with suppress(OSError):
        os.sched_setaffinity(task, cores)


def _with_byte_code() -> dict[str, str]:
    """As in the image, where byte code is made once: else each start compiles all there is."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}


class Measured:
    """A child process, ended with the block."""

    def __init__(self, argv: Sequence[str], log: Path) -> None:
        self._argv = list(argv)
        self._log = log
        self._child: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        with self._log.open("wb") as log:
            self._child = subprocess.Popen(
                self._argv, stdout=log, stderr=subprocess.STDOUT, env=_with_byte_code()
            )
        return self

    def __exit__(self, *_: object) -> None:
        if self._child is not None:
            self._child.terminate()
            self._child.wait(30)

    def alive(self) -> None:
        """Raises, with the end of its log, if it has ended."""
        if self._child is None or self._child.poll() is not None:
            raise RuntimeError(f"{self._argv[:3]} ended:\n{self._log.read_text()[-2000:]}")

    def send(self, number: int) -> None:
        """A signal; raises, with the end of its log, if it has ended."""
        self.alive()
        os.kill(self._pid, number)

    def wait(self) -> None:
        """Until it has ended, half a minute at most; raises TimeoutExpired."""
        if self._child is not None:
            self._child.wait(30)

    def cpu(self) -> float:
        """CPU seconds so far, user and system (proc(5), /proc/PID/stat)."""
        self.alive()
        return cpu_of(self._pid)

    def memory(self) -> float:
        """Resident memory in MiB (proc(5), /proc/PID/statm)."""
        self.alive()
        return memory_of(self._pid)

    def peak(self) -> float:
        """The most resident memory that it has had, in MiB."""
        self.alive()
        return peak_of(self._pid)

    @property
    def _pid(self) -> int:
        if self._child is None:
            raise RuntimeError("not started")
        return self._child.pid
