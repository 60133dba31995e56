"""Which reports count: those of the node that the pod runs on."""

from __future__ import annotations

from typing import Any

from trainseal.api.driftreport import DriftReport
from trainseal.controller.belief import PodFact, judge

SEAL, JOB, NODE = "char-lm-1", "uid-of-job", "node-1"
POD = PodFact("trainer-0", "uid-of-pod", NODE, frozenset({JOB}), SEAL, running=True)


def report(name: str = "trainer-0-uid-of-p", **changed: Any) -> DriftReport:
    spec = {
        "reporter": "Agent",
        "node": NODE,
        "sealedRun": SEAL,
        "pod": {"name": "trainer-0", "uid": "uid-of-pod"},
    } | changed
    wire = {k: v for k, v in spec.items() if v is not None}
    return DriftReport.parse({"metadata": {"name": name, "uid": "uid-of-report"}, "spec": wire})


def test_a_report_of_the_node_that_the_pod_runs_on_counts() -> None:
    assert judge(report(), SEAL, [JOB], POD, ()).standing == "Believed"


def test_a_report_of_another_node_is_dropped_with_both_named() -> None:
    found = judge(report(node="node-2"), SEAL, [JOB], POD, ())
    assert found.standing == "Dropped"
    assert "node-2" in found.why
    assert NODE in found.why


def test_a_report_about_a_pod_of_another_run_is_dropped() -> None:
    assert judge(report(), SEAL, ["uid-of-another-job"], POD, ()).standing == "Dropped"


def test_a_label_does_not_make_a_pod_the_runs() -> None:
    foreign = PodFact("trainer-0", "uid-of-pod", NODE, frozenset(), SEAL, running=True)
    assert judge(report(), SEAL, [JOB], foreign, ()).standing == "Dropped"


def test_a_report_about_a_pod_that_nobody_knows_is_unproved() -> None:
    assert judge(report(), SEAL, [JOB], None, ()).standing == "Unproved"


def test_a_report_that_was_believed_stays_so_when_its_pod_is_gone() -> None:
    assert judge(report(), SEAL, [JOB], None, ["uid-of-report"]).standing == "Believed"


def test_the_controllers_report_has_the_seals_name_and_no_other() -> None:
    own = {"reporter": "Controller", "node": None, "pod": None}
    assert judge(report(SEAL, **own), SEAL, [JOB], None, ()).standing == "Believed"
    assert judge(report("other", **own), SEAL, [JOB], None, ()).standing == "Dropped"
    passed_off = {**own, "node": NODE}
    assert judge(report(SEAL, **passed_off), SEAL, [JOB], None, ()).standing == "Dropped"
