"""Which containers started on the node, as its container runtime tells it: no word of the API's."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

from tests.cluster import Cluster

_STARTED = " /tasks/start "


@dataclass(frozen=True, slots=True)
class Started:
    """A container of a pod that started; all empty but the id where it was gone too soon to ask."""

    id: str
    namespace: str = ""
    pod: str = ""
    container: str = ""
    #: The pod's own, without a program of anybody's: it holds the network.
    sandbox: bool = False


class Watching:
    """Notes each container that starts on a cluster's node, as long as it is open."""

    def __init__(self, cluster: Cluster) -> None:
        self._ctr = ["ctr", "--address", str(cluster.runtime_socket()), "--namespace", "k8s.io"]
        self._found: list[Started] = []
        self._events: subprocess.Popen[str] | None = None
        self._reader = threading.Thread(target=self._read, name="containers")

    def __enter__(self) -> Self:
        self._events = subprocess.Popen([*self._ctr, "events"], stdout=subprocess.PIPE, text=True)
        self._reader.start()
        return self

    def __exit__(self, *_: object) -> None:
        assert self._events is not None
        self._events.kill()
        self._events.wait()
        self._reader.join()

    def found(self) -> Sequence[Started]:
        """In the order in which they started. AssertionError where the watch ended by itself."""
        assert self._events is not None
        assert self._events.poll() is None, "ctr events ended: what started since is not known"
        return tuple(self._found)

    def _read(self) -> None:
        assert self._events is not None
        assert self._events.stdout is not None
        for line in self._events.stdout:
            _, started, fields = line.partition(_STARTED)
            if started:
                self._found.append(self._started(json.loads(fields)["container_id"]))

    def _started(self, number: str) -> Started:
        asked = subprocess.run(
            [*self._ctr, "containers", "info", number], capture_output=True, text=True, check=False
        )
        if asked.returncode:
            return Started(number)
        labels = json.loads(asked.stdout)["Labels"]
        return Started(
            number,
            labels.get("io.kubernetes.pod.namespace", ""),
            labels.get("io.kubernetes.pod.name", ""),
            labels.get("io.kubernetes.container.name", ""),
            labels.get("io.cri-containerd.kind") == "sandbox",
        )
