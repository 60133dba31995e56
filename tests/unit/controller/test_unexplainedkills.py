"""Kills that nobody explains are counted over all runs, from what is on record."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from trainseal.controller.unexplainedkills import (
    UnexplainedKill,
    UnexplainedKills,
    in_words,
    on_record,
)

NOW = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)


def report(namespace: str, name: str, *findings: dict[str, Any], by: str = "Controller") -> Any:
    return {
        "metadata": {"namespace": namespace, "name": name},
        "spec": {"reporter": by},
        "status": {"findings": list(findings)},
    }


def finding(key: str, hours: float = 1, id_: str = "pod.killed", **more: str) -> dict[str, Any]:
    at = (NOW - timedelta(hours=hours)).isoformat()
    return {"id": id_, "key": key, "evidence": {"at": at, "node": "node-1"}, **more}


def test_only_what_nobody_explains_counts() -> None:
    reports = [
        report("research", "a", finding("1"), finding("2", id_="pod.unrecorded")),
        report("research", "b", finding("3", user="eve"), finding("4", id_="pod.deleted")),
        report("research", "c", finding("5"), by="Agent"),
        report("vision", "d", finding("6", hours=100)),
        {},
    ]
    assert [k.mark[2] for k in on_record(reports)] == ["1", "2", "6"]
    metric = UnexplainedKills()
    metric.reports = reports
    (family,) = metric.collect()
    counts = {s.labels["namespace"]: s.value for s in family.samples if s.name.endswith("_total")}
    assert counts == {"research": 2, "vision": 1}


def test_a_kill_tells_how_many_there_were_within_a_day_and_where() -> None:
    kill = UnexplainedKill("research", ("research", "a", "1"), "node-2", NOW)
    reports = [
        report("research", "b", finding("2"), finding("3", hours=25)),
        report("vision", "c", finding("4", hours=23)),
    ]
    words = in_words(kill, on_record(reports))
    assert words == (
        "unexplained within 24 h: 2 in this namespace, 3 in the cluster; "
        "nodes: node-1 (2), node-2 (1)"
    )


def test_one_that_is_on_record_already_counts_once() -> None:
    kill = UnexplainedKill("research", ("research", "a", "1"), "node-1", NOW - timedelta(hours=1))
    words = in_words(kill, on_record([report("research", "a", finding("1"))]))
    assert words.startswith("unexplained within 24 h: 1 in this namespace, 1 in the cluster")
