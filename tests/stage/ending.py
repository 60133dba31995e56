"""Ends and stops what runs on a cluster of ours, from the node: nobody is asked."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from tests.cluster import Cluster
from tests.cluster.processes import Process, kill_all

#: Waits for some seconds, or shorter where all is over.
Wait = Callable[[float], object]
Target = TypeVar("Target", bound=str)
How = TypeVar("How", bound=str)
#: An API server that is told to end is waited for so long; seconds.
_GRACE = 4.0


@dataclass(frozen=True, order=True)  # with slots, a generic one that is frozen cannot be made
class Disturbance(Generic[Target, How]):
    """What a schedule does to one target. It lasts so many seconds; 0 where it is over at once."""

    at: float
    target: Target
    how: How
    seconds: float

    @property
    def end(self) -> float:
        """Seconds after the beginning."""
        return self.at + self.seconds

    def __str__(self) -> str:
        lasting = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.target} {self.how}{lasting}"


def commands() -> list[tuple[int, list[bytes]]]:
    """Number and command line of every process of this machine."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                words = (folder / "cmdline").read_bytes().split(b"\0")
                found.append((int(folder.name), words))
    return found


def processes_of(cluster: Cluster, component: str) -> list[Process]:
    """TrainSeal's webhook or controller, all replicas, by the cluster's control group."""
    found = []
    for pid, command in commands():
        if component.encode() in command and b"--config=/etc/trainseal/config.yaml" in command:
            with contextlib.suppress(OSError):
                group = Path(f"/proc/{pid}/cgroup").read_text()
                process = Process.running(pid)
                if f"/trainseal.{cluster.name}/" in group and process is not None:
                    found.append(process)
    return found


def send(process: Process, number: int) -> None:
    """A signal, if it is still this process."""
    if process.alive:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, number)


class Stops:
    """Processes that are stopped for a while; whoever ends early lets all go on by ``end``."""

    def __init__(self, wait: Wait) -> None:
        self._wait = wait
        self._stopped: set[Process] = set()

    def stop(self, processes: Sequence[Process], seconds: float) -> None:
        """SIGSTOP, and going on after so many seconds."""
        self._stopped.update(processes)
        for process in processes:
            send(process, signal.SIGSTOP)
        self._wait(seconds)
        for process in processes:
            send(process, signal.SIGCONT)
        self._stopped.difference_update(processes)

    def end(self) -> None:
        """Nothing is stopped any more."""
        for process in self._stopped:
            send(process, signal.SIGCONT)


def interrupt_api_server(cluster: Cluster, wait: Wait, *, politely: bool, away: float) -> None:
    """SIGKILL, or SIGTERM first; it is started again after so many seconds."""
    process = cluster.api_server()
    if politely:
        send(process, signal.SIGTERM)
        end = time.monotonic() + _GRACE
        while process.alive and time.monotonic() < end:
            wait(0.1)
    assert not kill_all([process]), f"process {process.pid} does not end"
    wait(away)
    cluster.start_api_server()
