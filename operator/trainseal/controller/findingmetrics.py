"""Findings on record, as Prometheus reads them: ``trainseal_findings_total`` by id and severity.

Counted from the reports and not as they come, so that a restart repeats nothing. Every id of the
list is there from the start, at zero.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from trainseal.api.findings import FINDINGS
from trainseal.controller.holds import HOLDING
from trainseal.controller.sightings import Sighting

_KNOWN = tuple((i.value, kind.severity) for i, kind in FINDINGS.items())


class FindingMetrics(Collector):
    """Findings by run; only what the list knows becomes a label."""

    def __init__(self) -> None:
        self._runs: dict[tuple[str, str], Counter[tuple[str, str]]] = {}
        self._held: dict[tuple[str, str], str] = {}

    def count(self, run: tuple[str, str], sightings: Sequence[Sighting]) -> None:
        """The findings on a run, as they are now."""
        self._runs[run] = Counter((s.finding.id, s.finding.severity) for s in sightings)

    def held(self, run: tuple[str, str], response: str | None) -> None:
        """Whether a run is held, and how."""
        if response is None:
            self._held.pop(run, None)
        else:
            self._held[run] = response

    def forget(self, run: tuple[str, str]) -> None:
        """The seal is gone."""
        self._runs.pop(run, None)
        self._held.pop(run, None)

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Prometheus' side."""
        findings = CounterMetricFamily(
            "trainseal_findings_total", "Findings on record.", labels=["id", "severity"]
        )
        total: Counter[tuple[str, str]] = Counter()
        for run in list(self._runs.values()):
            total.update(run)
        for label in _KNOWN:
            findings.add_metric(label, total[label])
        yield findings
        held = GaugeMetricFamily(
            "trainseal_held_runs", "Runs that a finding holds.", labels=["response"]
        )
        held_now = Counter(self._held.values())
        for response in HOLDING:
            held.add_metric([response], held_now[response])
        yield held


METRICS = FindingMetrics()
REGISTRY.register(METRICS)
