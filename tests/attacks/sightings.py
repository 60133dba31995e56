"""What the API shows of findings, and when: a watch of all DriftReports with arrival times."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from tests.cluster import Target
from tests.e2e.lab import Object

#: Seconds until an API server that is away is asked again.
_AGAIN = 0.5


@dataclass(frozen=True, slots=True)
class Sighting:
    """A finding: ``at`` is when a watcher first saw it (seconds of the wall clock, the node's)."""

    at: float
    finding: Object


class Sightings:
    """Follows the reports until it is closed; begins anew where the API server was away."""

    def __init__(self, target: Target) -> None:
        self._target = target
        self._seen: dict[tuple[str, str, str], float] = {}
        self._latest: dict[tuple[str, str], Object] = {}
        self._changed = threading.Condition(threading.RLock())
        self._closed = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Ends the watch."""
        self._closed.set()
        if self._process is not None:
            self._process.kill()
        self._thread.join(10)

    def of(self, namespace: str, name: str) -> list[Sighting]:
        """All findings of the reports whose name begins so, in the order they were listed."""
        with self._changed:
            return [
                Sighting(self._seen[(*place, finding["key"])], finding)
                for place, report in self._latest.items()
                if place[0] == namespace and place[1].startswith(name)
                for finding in report.get("status", {}).get("findings", [])
            ]

    def of_run(self, seal: str) -> list[Sighting]:
        """All findings on a run, on whichever of its pods."""
        with self._changed:
            places = [p for p, r in self._latest.items() if r["spec"]["sealedRun"] == seal]
            return [s for place in places for s in self.of(*place)]

    def report(self, namespace: str, name: str) -> Object:
        """The report as it was last seen; empty while there is none."""
        with self._changed:
            return self._latest.get((namespace, name), {})

    def wait(self, condition: Callable[[], bool], seconds: float) -> bool:
        """Whether the condition came to hold; looked at whenever a report changes."""
        end = time.monotonic() + seconds
        with self._changed:
            while not condition():
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 1.0))
        return True

    def _follow(self) -> None:
        words = ["get", "driftreports", "-A", "-w", "--output-watch-events", "-o", "json"]
        while not self._closed.is_set():
            with subprocess.Popen(
                [str(self._target.tools.kubectl), *words],
                env=self._target.environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            ) as process:
                self._process = process
                assert process.stdout is not None
                for line in process.stdout:  # an event a line
                    self._take(json.loads(line)["object"], time.time())
            self._closed.wait(_AGAIN)

    def _take(self, report: Object, at: float) -> None:
        metadata = report["metadata"]
        if "name" not in metadata:  # the API server's word on why the watch ends
            return
        place = (metadata["namespace"], metadata["name"])
        with self._changed:
            self._latest[place] = report
            for finding in report.get("status", {}).get("findings", []):
                self._seen.setdefault((*place, finding["key"]), at)
            self._changed.notify_all()
