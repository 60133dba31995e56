"""Starts the components of one cluster, waits for them, and says why one did not come up."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.cluster.errors import ClusterError
from tests.cluster.places import RunDir
from tests.cluster.processes import Process, kill_all, spawn, tail

FOLDER_VARIABLE = "TRAINSEAL_CLUSTER_FOLDER"
"""In the environment of every component: the folder of its cluster."""


@dataclass(frozen=True)
class Launcher:
    """Starts processes for the cluster in `run`; `prefix` puts them where they belong."""

    run: RunDir
    prefix: Sequence[str] = field(default=())

    def pidfile(self, name: str) -> Path:
        """Where the process of a component is remembered."""
        return self.run.pids / f"{name}.json"

    def log(self, name: str) -> Path:
        """What the component prints."""
        return self.run.logs / f"{name}.log"

    def start(self, name: str, argv: Sequence[str | Path]) -> None:
        """Start a component in the background."""
        spawn(
            [*self.prefix, *(str(a) for a in argv)],
            log=self.log(name),
            pidfile=self.pidfile(name),
            variables={FOLDER_VARIABLE: str(self.run.root)},
        )

    def stop(self, name: str) -> None:
        """Kill a component and forget it; nothing happens if it does not run."""
        process = Process.load(self.pidfile(name))
        if process is not None and kill_all([process]):
            raise ClusterError(
                f"{name} (pid {process.pid}) does not die", detail=tail(self.log(name))
            )
        self.pidfile(name).unlink(missing_ok=True)

    def alive(self, name: str) -> bool:
        """Whether the component's process runs."""
        process = Process.load(self.pidfile(name))
        return process is not None and process.alive

    def require_alive(self, names: Iterable[str]) -> None:
        """ClusterError, with the end of its log, for the first component that does not run."""
        for name in names:
            if not self.alive(name):
                raise ClusterError(
                    f"{name} ended after it was started",
                    expected="every component of the cluster to run on",
                    action=f"read {self.log(name)}",
                    detail=tail(self.log(name)),
                )

    def components(self) -> dict[str, bool]:
        """Each component that was started, and whether it still runs."""
        return {p.stem: self.alive(p.stem) for p in sorted(self.run.pids.glob("*.json"))}

    def wait(
        self, name: str, what: str, condition: Callable[[], bool], *, timeout: float = 60.0
    ) -> None:
        """Wait until `condition` holds; `name` is the component whose log tells why not."""
        deadline = time.monotonic() + timeout
        while not condition():
            if not self.alive(name):
                raise ClusterError(f"{name} ended", expected=what, detail=tail(self.log(name)))
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"{name}: not within {timeout:.0f} s: {what}",
                    expected=what,
                    action=f"read {self.log(name)}",
                    detail=tail(self.log(name)),
                )
            time.sleep(0.1)
