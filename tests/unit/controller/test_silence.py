"""An agent that is silent while sealed pods run on its node."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from prometheus_client import REGISTRY

from tests.unit.world import NOW
from trainseal.api.driftreport import Finding
from trainseal.api.findings import FindingId
from trainseal.api.model import InvalidObjectError
from trainseal.cluster.api import KubeError, NotFoundError
from trainseal.controller.heartbeats import Heartbeats
from trainseal.controller.ownreport import MAX_FINDINGS, Seen, merged
from trainseal.controller.sealedpods import SealedPods
from trainseal.controller.silence import Silence


def test_a_node_is_silent_fifteen_seconds_after_its_lease_last_changed() -> None:
    beats = Heartbeats()
    beats.saw("n", "a", 100.0)
    beats.saw("n", "a", 110.0)
    assert beats.silent("n", 115.0) is None
    assert beats.silent("n", 115.1) is not None


def test_a_renewal_counts_whatever_time_it_claims() -> None:
    beats = Heartbeats()
    beats.saw("n", "2026-11-23T12:00:00Z", 100.0)
    beats.saw("n", "1999-01-01T00:00:00Z", 114.0)
    assert beats.silent("n", 128.0) is None


def test_a_node_without_a_lease_is_silent_only_after_we_waited_for_one() -> None:
    beats = Heartbeats()
    assert beats.silent("n", 1000.0) is None
    assert beats.silent("n", 1016.0) is not None


def test_a_lease_that_is_taken_away_is_no_renewal() -> None:
    beats = Heartbeats()
    beats.saw("n", "a", 100.0)
    beats.saw("n", "", 110.0)
    assert beats.silent("n", 115.1) is not None


def test_what_a_watch_that_hangs_goes_on_saying_is_no_renewal() -> None:
    beats = Heartbeats()
    beats.saw("n", "a", 100.0)
    beats.saw("n", "b", 116.0, "read")
    beats.saw("n", "a", 118.0)
    assert beats.silent("n", 131.0) is None
    beats.saw("n", "b", 132.0, "read")
    assert beats.silent("n", 132.0) is not None
    # It goes on: what it then says is new to it.
    beats.saw("n", "c", 133.0)
    assert beats.silent("n", 147.0) is None


@dataclass
class Stage:
    """One sealed pod on one node; ``lease`` is what the API server says, or raises."""

    lease: str | KubeError = ""
    #: What the Lease of the node's own kubelet says; raised where it is an error.
    kubelet: str | KubeError = "2999-01-01T00:00:00Z"
    node: KubeError | None = None
    now: float = 1000.0
    recorded: list[tuple[str, str, list[Seen]]] = field(default_factory=list)
    refuses: Exception | None = None

    def __post_init__(self) -> None:
        self.pods = SealedPods()
        self.pod("ADDED")
        self.silence = Silence(self, "home", self.pods, self, lambda: self.now, lambda: NOW)  # type: ignore[arg-type]

    def pod(
        self,
        event: Any,
        phase: str = "Running",
        uid: str = "u",
        seal: str = "char-lm-1",
        **more: str,
    ) -> None:
        metadata = {
            "name": "trainer-0",
            "uid": uid,
            "labels": {"trainseal.dev/seal": seal},
            **more,
        }
        obj: Any = {
            "metadata": metadata,
            "spec": {"nodeName": "n"},
            "status": {"phase": phase},
        }
        self.pods.listen(event, ("research", "trainer-0"), obj)

    async def get_metadata(self, path: str) -> Any:
        assert path == "/api/v1/nodes/n"
        if self.node is not None:
            raise self.node
        return {}

    async def get(self, path: str) -> Any:
        if path.endswith("/namespaces/kube-node-lease/leases/n"):
            if isinstance(self.kubelet, KubeError):
                raise self.kubelet
            return {"spec": {"renewTime": self.kubelet}}
        assert path.endswith("/namespaces/home/leases/trainseal-agent-n")
        if isinstance(self.lease, KubeError):
            raise self.lease
        if not self.lease:
            raise NotFoundError(404, "NotFound", "no lease")
        return {"spec": {"renewTime": self.lease}}

    async def record(self, namespace: str, seal: str, seen: list[Seen]) -> None:
        if self.refuses and seal == "char-lm-1":
            raise self.refuses
        self.recorded.append((namespace, seal, seen))

    def look(self, after: float, known: str = "") -> None:
        self.now += after
        asyncio.run(self.silence.look(lambda _: known))


def test_silence_is_a_finding_on_the_pods_of_the_node() -> None:
    stage = Stage(lease="a")
    stage.look(0, "a")
    stage.look(15.5, "a")
    ((namespace, seal, (seen,)),) = stage.recorded
    assert (namespace, seal) == ("research", "char-lm-1")
    assert seen.id is FindingId.WATCH_SILENT
    assert seen.evidence["lastRenewal"] == "a"
    assert "trainer-0" in seen.message
    assert REGISTRY.get_sample_value("trainseal_agents_silent") == 1
    stage.look(0, "b")
    assert REGISTRY.get_sample_value("trainseal_agents_silent") == 0


@pytest.mark.parametrize(
    ("renewed", "since"),
    [
        ("2026-11-23T11:59:30Z", NOW - timedelta(seconds=30)),
        ("2026-11-23T12:59:00Z", NOW - timedelta(seconds=15.5)),  # its clock is ahead
        ("2026-11-23T11:59:30", None),
        ("yesterday", None),
    ],
)
def test_what_was_done_in_silence_was_done_after_the_last_renewal(
    renewed: str, since: datetime | None
) -> None:
    stage = Stage(lease=renewed)
    stage.look(0, renewed)
    stage.look(15.5, renewed)
    ((_, _, (seen,)),) = stage.recorded
    assert seen.not_before == since


def test_an_agent_that_renews_is_not_silent_though_our_watch_hangs() -> None:
    stage = Stage(lease="b")
    stage.look(0, "a")
    stage.look(20, "a")
    assert stage.recorded == []


def test_an_agent_that_falls_silent_is_found_though_our_watch_hangs() -> None:
    stage = Stage(lease="b")
    for _ in range(12):
        stage.look(2, "a")
    stage.lease = "c"  # the last renewal
    for _ in range(20):
        stage.look(2, "a")
    assert stage.recorded


def test_nobody_is_accused_while_the_api_server_is_away_nor_right_after() -> None:
    stage = Stage(lease=KubeError(0, "Unreachable", "away"))
    stage.look(0, "a")
    with pytest.raises(KubeError):
        stage.look(20, "a")
    stage.lease = "a"
    stage.look(1, "a")
    assert stage.recorded == []
    stage.look(16, "a")
    assert stage.recorded


@pytest.mark.parametrize(
    "refusal",
    [KubeError(403, "Forbidden", "the namespace ends"), InvalidObjectError("DriftReport", ())],
    ids=["refused", "unreadable"],
)
def test_a_run_whose_report_cannot_be_written_hides_no_other_run(refusal: Exception) -> None:
    stage = Stage(refuses=refusal)
    stage.pod("ADDED", uid="v", seal="other-1")
    stage.look(0)
    stage.look(20)
    assert [seal for _, seal, _ in stage.recorded] == ["other-1"]


def test_a_node_on_which_nothing_sealed_runs_may_be_silent() -> None:
    stage = Stage()
    stage.look(0)
    stage.pod("MODIFIED", "Succeeded")
    stage.look(30)
    assert stage.recorded == []


# Nodes that are lost ------------------------------------------------------------------------------

LAST = "2026-11-23T12:00:00.123456Z"


def lost(kubelet: str = "2026-11-23T12:00:06Z") -> Stage:
    """The node's agent was heard of last at LAST, and its kubelet when it says so."""
    stage = Stage(lease=LAST, kubelet=kubelet)
    stage.look(0, LAST)
    return stage


@pytest.mark.parametrize("kubelet", ["2026-11-23T11:59:51Z", "2026-11-23T12:00:06Z"])
def test_a_node_that_falls_silent_as_a_whole_is_no_finding(kubelet: str) -> None:
    stage = lost(kubelet)
    for _ in range(100):
        stage.look(2, LAST)
    assert stage.recorded == []
    assert REGISTRY.get_sample_value("trainseal_nodes_lost") == 1
    assert REGISTRY.get_sample_value("trainseal_agents_silent") == 0


def test_an_agent_that_is_silent_while_its_kubelet_renews_is_found() -> None:
    stage = lost("2026-11-23T12:00:08Z")
    stage.look(15.5, LAST)
    assert stage.recorded


@pytest.mark.parametrize("kubelet", ["", "yesterday", "2026-11-23T11:59:51"])
def test_a_kubelets_lease_that_says_nothing_excuses_nobody(kubelet: str) -> None:
    stage = lost(kubelet)
    stage.look(15.5, LAST)
    assert stage.recorded


def test_an_agent_that_never_came_is_found_whatever_its_kubelet_does() -> None:
    stage = Stage(kubelet="2026-11-23T11:59:51Z")
    stage.look(0)
    stage.look(15.5)
    assert stage.recorded


def test_the_agent_of_a_node_that_is_back_has_a_minute_to_follow() -> None:
    stage = lost()
    stage.look(60, LAST)
    stage.kubelet = "2026-11-23T12:01:30Z"
    stage.look(2, LAST)
    stage.look(58, LAST)
    assert stage.recorded == []
    stage.look(4, LAST)
    assert stage.recorded, "it did not"


def test_a_node_that_is_lost_again_is_waited_for_again() -> None:
    stage = lost()
    stage.look(500, LAST)
    stage.lease, stage.kubelet = "2026-11-23T13:00:00Z", "2026-11-23T13:00:01Z"
    stage.look(2, stage.lease)
    stage.look(500, stage.lease)
    assert stage.recorded == []


def test_a_node_that_stays_silent_is_found_on_the_pods_that_were_not_told_to_leave() -> None:
    stage = lost()
    stage.pod("ADDED", uid="v", seal="leaves-1", deletionTimestamp="2026-11-23T12:05:00Z")
    stage.look(20, LAST)
    stage.look(600, LAST)
    assert stage.recorded == []
    stage.look(2, LAST)
    assert [seal for _, seal, _ in stage.recorded] == ["char-lm-1"]


@pytest.mark.parametrize(("there", "found"), [(True, 1), (False, 0)])
def test_without_a_kubelets_lease_it_is_the_node_itself_that_is_there_or_is_not(
    there: bool, found: int
) -> None:
    stage = lost()
    stage.kubelet = NotFoundError(404, "NotFound", "no lease")
    stage.node = None if there else NotFoundError(404, "NotFound", "no node")
    stage.look(15.5, LAST)
    assert len(stage.recorded) == found


def test_what_the_controller_may_not_read_excuses_nobody() -> None:
    stage = lost()
    stage.kubelet = KubeError(403, "Forbidden", "leases")
    stage.look(15.5, LAST)
    assert stage.recorded


def test_nobody_is_accused_while_the_kubelets_lease_cannot_be_read() -> None:
    stage = lost()
    stage.kubelet = KubeError(0, "Unreachable", "away")
    with pytest.raises(KubeError):
        stage.look(15.5, LAST)
    stage.kubelet = "2999-01-01T00:00:00Z"
    stage.look(1, LAST)
    assert stage.recorded == []


# The controller's own report ----------------------------------------------------------------------


def silent(occasion: str = "n never", subject: str = "u") -> Seen:
    return Seen(FindingId.WATCH_SILENT, subject, "silent", occasion, {"node": "n"})


def once() -> list[Finding]:
    found = merged([], [silent()], NOW)
    assert found is not None
    return found[0]


def test_the_same_silence_seen_again_is_counted_once() -> None:
    assert merged(once(), [silent()], NOW) is None


def test_another_silence_of_the_same_node_is_the_same_finding_counted_up() -> None:
    again = merged(once(), [silent("n 12:00")], NOW)
    assert again is not None
    ((finding,), dropped) = again
    assert (finding.count, dropped) == (2, 0)
    assert finding.key == once()[0].key


def test_findings_beyond_the_bound_are_counted_as_dropped() -> None:
    many = [silent(subject=str(n)) for n in range(MAX_FINDINGS + 3)]
    found = merged([], many, NOW)
    assert found is not None
    assert (len(found[0]), found[1]) == (MAX_FINDINGS, 3)


def seen(id_: FindingId, subject: str) -> Seen:
    return Seen(id_, subject, "seen", "now")


def test_many_small_findings_hide_no_great_one() -> None:
    small = [seen(FindingId.POD_DELETED, str(n)) for n in range(MAX_FINDINGS)]
    full = merged([], small, NOW)
    assert full is not None
    found = merged(full[0], [silent()], NOW)
    assert found is not None
    assert len(found[0]) == MAX_FINDINGS
    assert silent().key in {f.key for f in found[0]}
    # The first stay; the one that made room is counted.
    assert [f.key for f in found[0]][:2] == [s.key for s in small[:2]]
    assert found[1] == 1
    # Seen again, what made room does not push anything out.
    again = merged(found[0], small, NOW)
    assert again is not None
    assert again[0] == found[0]
