"""Ends what runs on a cluster of ours, from the node: no moment to tidy up, nobody asked."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.cluster import Cluster
from tests.cluster.processes import Process, kill_all

#: An API server that is told to end is waited for so long; seconds.
_GRACE = 4.0


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


def end_api_server(cluster: Cluster, wait: Callable[[float], object], *, politely: bool) -> None:
    """SIGKILL, or SIGTERM first; ``wait`` waits for some seconds, or shorter where all is over."""
    process = cluster.api_server()
    if politely:
        send(process, signal.SIGTERM)
        end = time.monotonic() + _GRACE
        while process.alive and time.monotonic() < end:
            wait(0.1)
    assert not kill_all([process]), f"process {process.pid} does not end"
