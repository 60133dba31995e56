"""Who uses the GPUs of sealed pods. Pure; what NVML says is read elsewhere (``nvml``).

A GPU is a pod's while one of its processes is on it: that is what NVML can tell. Device nodes and
variables say less: a runtime that gives every GPU to whoever asks for none gives them to many. So a
GPU that its pod does not use yet, or not any more, is nobody's here, and whoever uses it is no
finding. A partition of a card (MIG) is a GPU of its own, with processes of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol


class UnseenError(Exception):
    """The GPUs' processes cannot be read; the text says why."""


@dataclass(frozen=True, slots=True)
class Gpu:
    """A GPU, or a partition of one, and the processes that use it, by the node's pids."""

    uuid: str
    name: str
    pids: frozenset[int]


class Reader(Protocol):
    """What tells of the node's GPUs. Close it."""

    def read(self) -> Iterable[Gpu]:
        """All of them, as they are now. Raises UnseenError."""

    def close(self) -> None:
        """Lets go of the driver. Twice is fine."""


@dataclass(frozen=True, slots=True)
class Intruder:
    """A process on a GPU that a container computes on, and that it shares with no sealed pod."""

    container_id: str
    gpu: Gpu
    pid: int


def intruders(
    gpus: Iterable[Gpu], members: Mapping[str, Collection[int]], outside: Collection[int]
) -> tuple[Intruder, ...]:
    """By container and GPU. ``members``: the pids of each sealed container; ``outside``: those
    that belong to no sealed pod at all, whoever else they belong to.
    """
    strangers = frozenset(outside)
    return tuple(
        Intruder(container, gpu, pid)
        for gpu in gpus
        for container, own in sorted(members.items())
        if not gpu.pids.isdisjoint(own)
        for pid in sorted(gpu.pids & strangers)
    )
