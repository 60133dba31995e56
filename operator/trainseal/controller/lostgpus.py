"""GPUs that TrainSeal itself keeps from training: ``trainseal_lost_gpu_seconds_total``.

What a platform team asks for first. Of each run it is the time that the run was held (frozen,
suspended, in quarantine, ended) times the GPUs that it asks for, as its seal says both. So a
controller that takes over goes on where the last one stood, with the time in which there was none.

What it does not know: the seals that were deleted before it started. Of one that is deleted
meanwhile it keeps what it had counted, so that the counter does not fall.

Labels: namespaces that have a seal, times four responses. Nobody but the controller writes seals.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from pydantic import ValidationError

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.api.sealedrun import HeldTime, Hold
from trainseal.cluster.informer import Event
from trainseal.controller.disturbances import timestamp
from trainseal.controller.heldtime import seconds_held
from trainseal.controller.holds import HOLDING
from trainseal.provenance.boundseals import has_ended
from trainseal.provenance.gpuasks import GpuRules, held

Key = tuple[str, str]
#: What is kept of a seal instead of its roles.
_GPUS = "gpus"


def shape(rules: GpuRules) -> Callable[[JsonObject], JsonObject]:
    """What is kept of a seal: how it was held, and how many GPUs its run asks for."""

    def kept(seal: JsonObject) -> JsonObject:
        metadata, spec = json_object(seal.get("metadata")), json_object(seal.get("spec"))
        status = json_object(seal.get("status"))
        return {
            "metadata": {k: metadata.get(k) for k in ("name", "namespace", "resourceVersion")},
            "spec": {_GPUS: sum(_gpus(role, rules) for role in json_objects(spec.get("roles")))},
            "status": {k: status.get(k) for k in ("phase", "completionTime", "hold", "heldTime")},
        }

    return kept


def _gpus(role: JsonObject, rules: GpuRules) -> int:
    replicas = role.get("replicas")
    count = replicas if isinstance(replicas, int) else 0
    return count * held(json_object(role.get("template")), rules)


@dataclass(frozen=True, slots=True)
class Held:
    """How one run was held. ``until`` is when it ended; None: it goes on."""

    gpus: int
    hold: Hold | None
    over: tuple[HeldTime, ...]
    until: datetime | None

    @classmethod
    def of(cls, seal: JsonObject) -> Held:
        """Of a seal as it is kept. Raises ValidationError where it is not one of ours."""
        status = json_object(seal.get("status"))
        hold = status.get("hold")
        gpus = json_object(seal.get("spec")).get(_GPUS)
        ended = timestamp(status.get("completionTime")) if has_ended(seal) else None
        return cls(
            gpus=gpus if isinstance(gpus, int) else 0,
            hold=Hold.model_validate(hold) if isinstance(hold, dict) else None,
            over=tuple(map(HeldTime.model_validate, json_objects(status.get("heldTime")))),
            until=ended,
        )

    def gpu_seconds(self, now: datetime) -> dict[str, int]:
        """By response."""
        until = now if self.until is None else self.until
        return {r: s * self.gpus for r, s in seconds_held(self.over, self.hold, until).items()}

    def response(self) -> str | None:
        """That holds the run now."""
        return self.hold.response if self.hold is not None and self.until is None else None


class LostGpus(Collector):
    """Counts when it is asked; ``clock`` is set by who has one."""

    def __init__(self) -> None:
        self.clock: Callable[[], datetime] = lambda: datetime.now(UTC)
        self._runs: dict[Key, Held] = {}
        self._deleted: Counter[tuple[str, str]] = Counter()
        #: A run's end is heard of a moment later: what was told for that moment stays told, or
        #: Prometheus would take it for a restart and count all of it again.
        self._told: Counter[tuple[str, str]] = Counter()

    def listen(self, event: Event, key: Key, seal: JsonObject) -> None:
        """The informer's listener."""
        if event != "DELETED":
            # One that cannot be read is of a newer release: what is known of it stands.
            with contextlib.suppress(ValidationError):
                self._runs[key] = Held.of(seal)
        elif (known := self._runs.pop(key, None)) is not None:
            for response, seconds in known.gpu_seconds(self.clock()).items():
                self._deleted[key[0], response] += seconds

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Prometheus' side. Each namespace is there from its first seal on, at zero."""
        now = self.clock()
        namespaces = sorted({n for n, _ in self._runs} | {n for n, _ in self._deleted})
        lost, held_now = self._deleted.copy(), Counter[tuple[str, str]]()
        for (namespace, _), run in self._runs.items():
            for response, seconds in run.gpu_seconds(now).items():
                lost[namespace, response] += seconds
            if (response_now := run.response()) is not None:
                held_now[namespace, response_now] += run.gpus
        counter = CounterMetricFamily(
            "trainseal_lost_gpu_seconds_total",
            "Seconds for which TrainSeal held runs, times the GPUs that these ask for.",
            labels=["namespace", "response"],
        )
        gauge = GaugeMetricFamily(
            "trainseal_held_gpus",
            "GPUs of the runs that TrainSeal holds now, as they ask for them.",
            labels=["namespace", "response"],
        )
        for namespace in namespaces:
            for response in HOLDING:
                label = (namespace, response)
                self._told[label] = max(self._told[label], lost[label])
                counter.add_metric(label, self._told[label])
                gauge.add_metric(label, held_now[label])
        yield counter
        yield gauge


METRIC = LostGpus()
REGISTRY.register(METRIC)
