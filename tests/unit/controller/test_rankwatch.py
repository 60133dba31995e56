"""Ranks compared by what their agents say: who differs for long, by a report that counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.unit import world
from tests.unit.provenance.test_livepods import EXPECTED, IMAGES, running
from trainseal.agent.observed import Profile
from trainseal.agent.profiles import report_of
from trainseal.api.driftreport import DriftReport
from trainseal.api.findings import FindingId
from trainseal.controller.ownreport import Seen, merged
from trainseal.controller.podfindings import Sealed
from trainseal.controller.rankwatch import APART_SECONDS, START_UP, RankWatch

Object = dict[str, Any]
SEALED = Sealed({world.OBJECT_UID: EXPECTED}, IMAGES)
RUN = ("research", "char-lm-1")
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
OPTIM = "/usr/lib/python3/dist-packages/torch/optim/adam.py"


def report(index: int, files: dict[str, str] | None = None, **spec: Any) -> Object:
    """As the agent of node-1 writes it of a rank that began an hour ago."""
    started = NOW - timedelta(hours=1)
    profile = report_of("trainer", started, Profile(files or {}, {}, {}))
    made: Object = {
        "apiVersion": "trainseal.dev/v1alpha1",
        "kind": "DriftReport",
        "metadata": {"name": f"w-{index}", "namespace": "research"},
        "spec": {
            "reporter": "Agent",
            "sealedRun": RUN[1],
            "node": "node-1",
            "pod": {"name": f"w-{index}", "uid": f"pod-{index}"},
            **spec,
        },
        "status": {"profiles": [profile.wire()]},
    }
    DriftReport.parse(made)
    return made


@dataclass
class Run:
    """Three ranks at work, rank 1 with a file that its policy excepts."""

    clock: float = 0.0
    pods: list[Object] = field(default_factory=lambda: [running(n) for n in range(3)])
    reports: list[Object] = field(
        default_factory=lambda: [report(0), report(1, {OPTIM: "sha256:aa"}), report(2)]
    )

    def __post_init__(self) -> None:
        self.watch = RankWatch(lambda: NOW, lambda: self.clock)

    def look(self, after: float = APART_SECONDS) -> list[Seen]:
        self.clock += after
        return self.watch.look(RUN, self.pods, self.reports, SEALED)

    def twice(self) -> list[Seen]:
        self.look()
        return self.look()


@pytest.fixture
def run() -> Run:
    return Run()


def test_a_rank_that_differs_in_two_looks_is_told_of_with_what_and_where(run: Run) -> None:
    assert run.look() == []
    assert run.look(after=1.0) == []
    (seen,) = run.look()
    assert seen.id is FindingId.RANK_DIFFERS
    assert (seen.evidence["index"], seen.evidence["node"]) == ("1", "node-1")
    assert OPTIM in seen.evidence["files, trainer"]
    assert OPTIM in seen.message
    (again,) = run.look()
    assert (again.key, again.occasion) == (seen.key, seen.occasion)


def test_ranks_that_are_alike_are_silent(run: Run) -> None:
    run.reports = [report(n, {OPTIM: "sha256:aa"}) for n in range(3)]
    assert run.twice() == []


def test_what_others_come_to_as_well_is_silent(run: Run) -> None:
    run.look()
    run.reports = [report(n, {OPTIM: "sha256:aa"}) for n in range(3)]
    assert run.look() == []
    # And begins anew where one goes on to differ.
    run.reports[2] = report(2, {OPTIM: "sha256:bb"})
    assert run.look() == []
    (seen,) = run.look()
    assert seen.evidence["index"] == "2"


def test_a_rank_that_has_just_begun_is_compared_later(run: Run) -> None:
    profile = run.reports[1]["status"]["profiles"][0]
    profile["started"] = (NOW - START_UP + timedelta(seconds=1)).isoformat()
    assert run.twice() == []
    profile["started"] = (NOW - START_UP).isoformat()
    assert len(run.twice()) == 1


@pytest.mark.parametrize(
    "spec",
    [
        {"node": "node-2"},
        {"reporter": "Controller"},
        {"pod": {"name": "w-1", "uid": "another"}},
    ],
    ids=["from another node", "by another", "about another pod"],
)
def test_a_report_that_is_not_of_the_pods_node_says_nothing(run: Run, spec: dict[str, Any]) -> None:
    run.reports[1] = report(1, {OPTIM: "sha256:aa"}, **spec)
    assert run.twice() == []


def test_a_pod_of_no_job_of_the_run_is_no_peer(run: Run) -> None:
    run.pods[1]["metadata"]["ownerReferences"][0]["uid"] = "other"
    assert run.twice() == []


@pytest.mark.parametrize("profiles", [None, [], ["x"], [{"container": "trainer"}]])
def test_a_report_without_a_profile_that_can_be_read_is_no_peer(run: Run, profiles: Any) -> None:
    run.reports[0]["status"] = {"profiles": profiles}
    (seen,) = run.twice()
    assert seen.evidence["index"] == "1"


def test_a_run_that_is_over_is_forgotten(run: Run) -> None:
    run.look()
    run.watch.keep([])
    assert run.look() == []
    run.watch.keep([RUN])
    assert len(run.look()) == 1


def test_a_pod_that_differs_in_many_ways_still_makes_a_report_that_can_be_written(
    run: Run,
) -> None:
    started = NOW - timedelta(hours=1)
    odd = Profile({OPTIM: "x" * 900}, {"/opt/evil.so": ""}, {"LD_PRELOAD": "/evil.so"})
    for number, one in enumerate(run.reports):
        made = [
            report_of(f"c{n}", started, odd if number == 1 else Profile({}, {}, {}))
            for n in range(20)
        ]
        one["status"]["profiles"] = [p.wire() for p in made]
    seen = run.twice()
    written = merged([], seen, NOW)
    assert written is not None
    assert len(written[0]) == 1
