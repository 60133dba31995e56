"""Kills that nobody explains, over all runs: what is random in one run is a pattern in many.

Counted from the reports and not as they come, so that a restart repeats nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from prometheus_client import REGISTRY
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from trainseal.api.findings import FindingId
from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.controller.disturbances import timestamp

WINDOW = timedelta(hours=24)
_IDS = frozenset({FindingId.POD_KILLED.value, FindingId.POD_UNRECORDED.value})


@dataclass(frozen=True, slots=True)
class UnexplainedKill:
    """One that is on record. ``mark`` tells it from all others."""

    namespace: str
    mark: tuple[str, str, str]
    node: str
    at: datetime


def on_record(reports: Iterable[JsonObject]) -> Iterator[UnexplainedKill]:
    """Those that the controller's own DriftReports hold and that name no person."""
    for report in reports:
        if json_object(report.get("spec")).get("reporter") != "Controller":
            continue
        metadata = json_object(report.get("metadata"))
        namespace, name = str(metadata.get("namespace")), str(metadata.get("name"))
        for finding in json_objects(json_object(report.get("status")).get("findings")):
            if finding.get("id") not in _IDS or finding.get("user"):
                continue
            evidence = json_object(finding.get("evidence"))
            at = timestamp(evidence.get("at"))
            if at is not None:
                mark = (namespace, name, str(finding.get("key")))
                yield UnexplainedKill(namespace, mark, str(evidence.get("node") or ""), at)


def in_words(kill: UnexplainedKill, others: Iterable[UnexplainedKill]) -> str:
    """How many there were within the 24 hours before this one, it included, and where."""
    since = kill.at - WINDOW
    near = {k.mark: k for k in others if since <= k.at <= kill.at}
    near[kill.mark] = kill
    here = sum(k.namespace == kill.namespace for k in near.values())
    nodes = Counter(k.node or "none" for k in near.values())
    places = ", ".join(f"{node} ({count})" for node, count in nodes.most_common(5))
    more = f" and {len(nodes) - 5} more" if len(nodes) > 5 else ""
    return (
        f"unexplained within 24 h: {here} in this namespace, {len(near)} in the cluster; "
        f"nodes: {places}{more}"
    )


class UnexplainedKills(Collector):
    """``trainseal_unexplained_kills_total`` by namespace."""

    def __init__(self) -> None:
        self.reports: Iterable[JsonObject] = ()

    def collect(self) -> Iterator[CounterMetricFamily]:
        """Prometheus' side."""
        found = CounterMetricFamily(
            "trainseal_unexplained_kills_total",
            "Workers that were killed or deleted, and nothing explains it.",
            labels=["namespace"],
        )
        counts = Counter(kill.namespace for kill in on_record(self.reports))
        for namespace, count in sorted(counts.items()):
            found.add_metric([namespace], count)
        yield found


METRIC = UnexplainedKills()
REGISTRY.register(METRIC)
