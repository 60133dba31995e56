"""Findings added up."""

from __future__ import annotations

from datetime import timedelta

from tests.unit.controller.test_holds import seen
from tests.unit.world import NOW
from trainseal.api.findings import FindingId
from trainseal.api.trainingjob import DriftSummary
from trainseal.controller.findingmetrics import FindingMetrics
from trainseal.controller.sightings import in_short, reason_of, summary, worst


def test_findings_are_counted_by_severity_with_their_first_and_last_time() -> None:
    later = NOW + timedelta(minutes=3)
    found = summary(
        [seen("a"), seen("b", severity="Warning", first_time=later, last_time=later)], None
    )
    assert found is not None
    assert (found.critical, found.warning, found.info) == (1, 1, 0)
    assert (found.first_time, found.last_time) == (NOW, later)
    assert in_short(found) == "1 critical, 1 warning"


def test_counts_never_fall_though_reports_go() -> None:
    before = DriftSummary(critical=3, warning=0, info=0, first_time=NOW, last_time=NOW)
    assert summary([], before) == before
    after = summary([seen()], before)
    assert after is not None
    assert after.critical == 3


def test_nothing_found_is_no_summary() -> None:
    assert summary([], None) is None


def test_the_worst_is_the_most_severe_and_of_those_the_first() -> None:
    early = NOW - timedelta(hours=1)
    minor = seen("a", severity="Warning", first_time=early)
    first, second = seen("b"), seen("c", first_time=NOW + timedelta(seconds=1))
    assert worst([second, minor, first]) is first


def test_every_finding_makes_a_reason_that_kubernetes_takes() -> None:
    assert reason_of("process.memory-opened") == "ProcessMemoryOpened"
    for finding in FindingId:
        assert reason_of(finding).isalnum()
        assert reason_of(finding)[0].isupper()


def test_metrics_know_every_finding_and_count_no_run_twice() -> None:
    metrics = FindingMetrics()
    metrics.count(("ns", "a"), [seen("x"), seen("y")])
    metrics.count(("ns", "a"), [seen("x"), seen("y")])
    metrics.held(("ns", "a"), "Suspend")
    findings, held = metrics.collect()
    values = {s.labels["id"]: s.value for s in findings.samples}
    assert values["file.changed"] == 2
    assert set(values) == {i.value for i in FindingId}
    values = {s.labels["response"]: s.value for s in held.samples}
    assert values == {"Freeze": 0, "Suspend": 1, "Quarantine": 0, "Terminate": 0}
