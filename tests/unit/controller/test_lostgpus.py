"""GPU-seconds that holds cost: from seals alone, and never counted twice or forgotten."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from tests.unit.world import NOW
from trainseal.api.sealedrun import HeldTime, Hold
from trainseal.controller.heldtime import seconds_held, with_period
from trainseal.controller.holds import next_hold
from trainseal.controller.lostgpus import LostGpus, shape
from trainseal.provenance.drift import CompiledDrift
from trainseal.provenance.gpuasks import GpuRules
from trainseal.provenance.keyrings import rfc3339

Object = dict[str, Any]
RULES = GpuRules(lambda name: name == "nvidia.com/gpu")


def held(response: str = "Freeze", minutes: float = 0, since: float | None = None) -> Object:
    """A hold for so many minutes by this response, and held at all for ``since`` minutes."""
    wire: Object = {
        "id": "0" * 16,
        "response": response,
        "since": rfc3339(NOW - timedelta(minutes=since if since is not None else minutes)),
        "findings": ["0" * 16],
        "reason": "file.changed",
        "severity": "Critical",
        "message": "a file was changed",
    }
    return wire | {"responseSince": rfc3339(NOW - timedelta(minutes=minutes))}


def seal(
    name: str = "a", namespace: str = "research", *, gpus: int = 8, pods: int = 2, **status: Any
) -> Object:
    limits = {"nvidia.com/gpu": str(gpus), "cpu": "64"}
    container = {"name": "trainer", "resources": {"limits": limits}}
    role = {"name": "worker", "replicas": pods, "template": {"spec": {"containers": [container]}}}
    return {
        "metadata": {"name": name, "namespace": namespace, "resourceVersion": "1"},
        "spec": {"roles": [role], "job": {"name": name}},
        "status": {"phase": "Bound", **status},
    }


class Watched:
    """A metric that was told of seals; the time goes on by ``later``."""

    def __init__(self, *seals: Object) -> None:
        self.now = NOW
        self.metric = LostGpus()
        self.metric.clock = lambda: self.now
        for one in seals:
            self.tell(one)

    def tell(self, one: Object, event: Any = "MODIFIED") -> None:
        key = (one["metadata"]["namespace"], one["metadata"]["name"])
        self.metric.listen(event, key, shape(RULES)(one))

    def later(self, minutes: float) -> Watched:
        self.now += timedelta(minutes=minutes)
        return self

    def lost(self, namespace: str = "research") -> dict[str, float]:
        """GPU-minutes, by response; what is none is left out."""
        return self._values("trainseal_lost_gpu_seconds_total", namespace, 60)

    def held(self, namespace: str = "research") -> dict[str, float]:
        return self._values("trainseal_held_gpus", namespace, 1)

    def _values(self, name: str, namespace: str, unit: int) -> dict[str, float]:
        return {
            s.labels["response"]: s.value / unit
            for family in self.metric.collect()
            for s in family.samples
            if s.name == name and s.labels["namespace"] == namespace and s.value
        }


def test_a_hold_costs_its_time_and_all_gpus_of_the_run() -> None:
    watched = Watched(seal(hold=held(minutes=3)))
    assert watched.lost() == {"Freeze": 3 * 16}
    assert watched.held() == {"Freeze": 16}
    assert watched.later(2).lost() == {"Freeze": 5 * 16}


def test_a_run_that_nothing_holds_costs_nothing() -> None:
    watched = Watched(seal())
    assert (watched.lost(), watched.held()) == ({}, {})
    assert watched.later(60).lost() == {}


def test_each_namespace_is_there_from_its_first_seal_on_so_that_a_first_hold_is_an_increase() -> (
    None
):
    (counter, gauge) = Watched(seal()).metric.collect()
    for family in (counter, gauge):
        values = {(s.labels["namespace"], s.labels["response"]): s.value for s in family.samples}
        assert values == {
            ("research", r): 0 for r in ("Freeze", "Suspend", "Quarantine", "Terminate")
        }


def test_a_controller_that_takes_over_goes_on_where_the_last_one_stood() -> None:
    known = seal(hold=held("Suspend", minutes=10, since=15), heldTime=[period("Freeze", 5)])
    before = Watched(known)
    assert before.lost() == {"Freeze": 5 * 16, "Suspend": 10 * 16}
    # For a minute there is none: that minute is lost to training all the same.
    after = Watched(known).later(1)
    assert after.lost() == {"Freeze": 5 * 16, "Suspend": 11 * 16}


def period(response: str, minutes: int) -> Object:
    return {"response": response, "seconds": minutes * 60}


def test_a_hold_that_was_lifted_costs_no_more_than_it_did() -> None:
    watched = Watched(seal(heldTime=[period("Freeze", 7)]))
    assert watched.later(60).lost() == {"Freeze": 7 * 16}
    assert watched.held() == {}


def test_a_hold_ends_with_its_run() -> None:
    over = seal(
        phase="Failed",
        completionTime=rfc3339(NOW - timedelta(minutes=1)),
        hold=held("Terminate", minutes=4),
    )
    watched = Watched(over)
    assert watched.later(60).lost() == {"Terminate": 3 * 16}
    assert watched.held() == {}


def test_the_counter_never_falls_when_an_end_or_a_deletion_is_heard_of() -> None:
    running = seal(hold=held(minutes=4))
    watched = Watched(running)
    assert watched.lost() == {"Freeze": 64}
    ended = rfc3339(NOW - timedelta(minutes=1))
    watched.tell(
        running | {"status": running["status"] | {"phase": "Deleted", "completionTime": ended}}
    )
    assert watched.lost() == {"Freeze": 64}
    watched.tell(running, "DELETED")
    assert watched.later(60).lost() == {"Freeze": 64}


def test_runs_of_one_namespace_add_up_and_those_of_others_do_not() -> None:
    watched = Watched(
        seal("a", hold=held(minutes=1)),
        seal("b", gpus=1, pods=1, hold=held("Quarantine", minutes=1)),
        seal("c", "vision", hold=held(minutes=1)),
        seal("d", gpus=0, hold=held(minutes=1)),
    )
    assert watched.lost() == {"Freeze": 16, "Quarantine": 1}
    assert watched.lost("vision") == {"Freeze": 16}


def test_a_seal_of_a_newer_release_counts_as_it_was_last_known() -> None:
    watched = Watched(seal(hold=held(minutes=1)))
    watched.tell(seal(hold=held("Something", minutes=1)))
    assert watched.lost() == {"Freeze": 16}


# What stands in the seal --------------------------------------------------------------------------


def test_a_hold_of_an_earlier_release_counts_from_its_beginning() -> None:
    wire = held("Suspend", minutes=1, since=5)
    del wire["responseSince"]
    assert seconds_held((), Hold.model_validate(wire), NOW) == {"Suspend": 300}


def test_a_period_that_is_over_is_added_to_those_of_the_same_response() -> None:
    over = [HeldTime(response="Freeze", seconds=60), HeldTime(response="Suspend", seconds=1)]
    hold = Hold.model_validate(held("Freeze", minutes=2))
    found = {item.response: item.seconds for item in with_period(over, hold, NOW)}
    assert found == {"Freeze": 180, "Suspend": 1}


def test_a_clock_that_is_behind_takes_nothing_away() -> None:
    hold = Hold.model_validate(held("Freeze", minutes=-2))
    assert seconds_held((), hold, NOW) == {"Freeze": 0}


def test_a_hold_says_since_when_it_holds_in_this_way() -> None:
    policies = [CompiledDrift(freeze_seconds=300, then="Suspend")]
    before = Hold.model_validate(held("Freeze", minutes=1))
    same = next_hold(before, (), (), policies, NOW)
    assert same is not None
    assert (same.response, same.response_since) == ("Freeze", NOW - timedelta(minutes=1))
    later = NOW + timedelta(minutes=4)
    stronger = next_hold(before, (), (), policies, later)
    assert stronger is not None
    assert (stronger.response, stronger.response_since) == ("Suspend", later)
    assert stronger.since == before.since
