"""The sweep of the GPUs: processes on them that belong to no sealed pod.

The driver is asked only while a sealed container has a GPU: an open session with it keeps a card
from being taken out of service or partitioned, which the container does then anyway. What the node
does not let us see is in ``lacking``, from the agent's start, and asked for again each minute.

A process is told of once it was there in two sweeps: one that ends, or whose pod is just coming to
be known, accuses nobody.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from trainseal.agent.gpus import Gpu, Intruder, Reader, UnseenError, intruders
from trainseal.agent.masking import named_by
from trainseal.agent.observed import Observation, WatchedContainer
from trainseal.agent.processes import Member, Processes, Seat
from trainseal.api.findings import FindingId

_log = logging.getLogger(__name__)
#: Where GPUs were not to be seen, it is tried again after so long; seconds.
AGAIN_SECONDS = 60.0
#: Of one GPU's strangers so many are told of.
_MOST = 16
#: Every container that can use a GPU of NVIDIA's has it.
_CONTROL = "/dev/nvidiactl"

#: A process on a GPU of a container.
_Known = tuple[str, str, tuple[int, int]]


class GpuSweep:
    """All GPUs of the node. Used from the sweep's thread, but for ``lacking``."""

    def __init__(
        self,
        processes: Processes,
        opened: Callable[[], Reader],
        sealed: Callable[[str], bool],
        *,
        present: bool,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """``opened`` begins a session, or raises UnseenError; ``sealed`` says whether a pod's UID
        is a sealed one's; ``present`` whether the node has GPUs at all.
        """
        self._processes = processes
        self._opened = opened
        self._sealed = sealed
        self._present = present
        self._monotonic = monotonic
        self._reader: Reader | None = None
        self._next = 0.0
        self._before: frozenset[_Known] = frozenset()
        self.lacking: tuple[str, ...] = ()
        if present:
            self._read()  # what cannot be seen is said from the start
            self.close()

    def run(
        self, containers: Mapping[str, WatchedContainer], members: Mapping[str, Sequence[Member]]
    ) -> Iterator[tuple[str, Observation]]:
        """Findings with the id of the container. ``members`` are all processes of each."""
        if not self._present or (self.lacking and self._monotonic() < self._next):
            return
        if not self.lacking and not any(_uses_gpus(c) for c in containers.values()):
            self.close()
            self._before = frozenset()
            return
        gpus = self._read()
        own = {container: {m.pid for m in found} for container, found in members.items()}
        seats = self._outside(gpus)
        found = {_known(i, seats[i.pid]): i for i in intruders(gpus, own, seats)}
        before, self._before = self._before, frozenset(found)
        told: dict[tuple[str, str], int] = {}
        for known in sorted(before & found.keys()):
            told[known[:2]] = told.get(known[:2], 0) + 1
            observation = self._observation(found[known], seats[found[known].pid])
            if told[known[:2]] <= _MOST and observation is not None:
                yield known[0], observation

    def close(self) -> None:
        """Lets go of the driver. Twice is fine."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _read(self) -> tuple[Gpu, ...]:
        lacking: tuple[str, ...] = ()
        gpus: tuple[Gpu, ...] = ()
        try:
            if self._reader is None:
                self._reader = self._opened()
            gpus = tuple(self._reader.read())
        except UnseenError as error:
            self.close()
            self._next = self._monotonic() + AGAIN_SECONDS
            lacking = (f"who else uses the GPUs of sealed pods: {error}",)
        if lacking != self.lacking:
            _log.warning("%s", lacking[0] if lacking else "who uses the GPUs is seen again")
        self.lacking = lacking
        return gpus

    def _outside(self, gpus: Sequence[Gpu]) -> dict[int, Seat]:
        """Those on a GPU that belong to no sealed pod, and still run."""
        found = {}
        for pid in {pid for gpu in gpus for pid in gpu.pids}:
            seat = self._processes.seat(pid, fresh=True)
            if seat is None or seat.stat.exiting:
                continue
            if seat.pod is None or not self._sealed(seat.pod):
                found[pid] = seat
        return found

    def _observation(self, intruder: Intruder, seat: Seat) -> Observation | None:
        lineage = self._processes.above(intruder.pid)
        if lineage is None:
            return None
        process = lineage.chain[0]
        command = named_by(process)
        home = f"pod {seat.pod}, which is not sealed" if seat.pod else "no pod"
        gpu = f"{intruder.gpu.name} {intruder.gpu.uuid}"
        return Observation(
            FindingId.GPU_FOREIGN,
            f"process {intruder.pid} ({command}) of {home} uses {gpu}, on which this pod computes",
            lineage=lineage,
            evidence={"gpu": gpu, "process": f"{intruder.pid}: {command}", "belongs to": home},
            subject=f"{intruder.gpu.uuid} {process.executable}",
        )


def _known(intruder: Intruder, seat: Seat) -> _Known:
    return intruder.container_id, intruder.gpu.uuid, seat.key


def _uses_gpus(container: WatchedContainer) -> bool:
    """Whether it has the device that all use of GPUs begins with; the link it may be is not
    followed.
    """
    try:
        os.lstat(f"{container.root}{_CONTROL}")
    except OSError:
        return False
    return True
