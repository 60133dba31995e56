"""Of a pod's report and the operator's order, the later counts."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast

import pytest

from trainseal.agent.freezing import KILLED, Freezing
from trainseal.agent.reports import Reports
from trainseal.api.model import Condition
from trainseal.provenance.freezeorders import Order

NOW = datetime(2026, 11, 1, tzinfo=UTC)
LATER, EARLIER = NOW + timedelta(minutes=1), NOW - timedelta(minutes=1)
UID = "pod"


class Said:
    """What stands in the pod's report."""

    def __init__(self) -> None:
        self.known = True
        self.found: Condition | None = None

    def is_known(self, _: str) -> bool:
        return self.known

    def condition(self, _uid: str, _what: str) -> Condition | None:
        return self.found

    def say(self, _uid: str, what: str, status: str, reason: str, _words: str) -> None:
        self.found = Condition.model_validate(
            {"type": what, "status": status, "reason": reason, "lastTransitionTime": NOW}
        )


async def at_once(_: float) -> None:
    """No time passes."""


class Pod:
    """A pod's group with two containers, and who decides about it."""

    def __init__(self, group: Path, *, allowed: bool = True) -> None:
        self.group = group
        for number in "ab":
            (group / (number * 64)).mkdir()
            (group / (number * 64) / "freezer.state").write_text("THAWED")
        self.said = Said()
        self.freezing = Freezing(cast("Reports", self.said), allowed=allowed, pause=at_once)

    async def done(self) -> None:
        while self.freezing._acts:  # noqa: ASYNC110 - until all is carried out
            await asyncio.sleep(0.001)

    async def obey(self, order: Order) -> None:
        self.freezing.obey(UID, self.group, order)
        while self.freezing._acts:  # noqa: ASYNC110 - until all is carried out
            await asyncio.sleep(0.001)

    @property
    def states(self) -> set[str]:
        return {f.read_text() for f in self.group.glob("*/freezer.state")}


@pytest.fixture
def pod(tmp_path: Path) -> Pod:
    return Pod(tmp_path)


async def test_an_order_freezes_each_container_and_a_later_one_thaws_them(pod: Pod) -> None:
    await pod.obey(Order("Frozen", NOW))
    assert pod.states == {"FROZEN"}
    assert pod.freezing.holds(UID)
    await pod.obey(Order("Thawed", LATER))
    assert pod.states == {"THAWED"}
    assert not pod.freezing.holds(UID)


async def test_an_old_order_to_thaw_does_not_let_go_what_was_frozen_since(pod: Pod) -> None:
    await pod.obey(Order("Frozen", NOW))
    await pod.obey(Order("Thawed", EARLIER))
    assert pod.states == {"FROZEN"}


async def test_an_agent_that_was_away_when_thawing_was_ordered_obeys_afterwards(
    pod: Pod,
) -> None:
    await pod.obey(Order("Frozen", NOW))
    pod.freezing = Freezing(cast("Reports", pod.said), allowed=True)  # a new agent
    await pod.obey(Order("Thawed", LATER))
    assert pod.states == {"THAWED"}


async def test_before_it_is_known_what_was_nothing_is_done(pod: Pod) -> None:
    pod.said.known = False
    await pod.obey(Order("Frozen", NOW))
    assert pod.states == {"THAWED"}


async def test_an_order_to_thaw_what_never_was_frozen_does_nothing(pod: Pod) -> None:
    await pod.obey(Order("Thawed", NOW))
    assert pod.said.found is None


async def test_where_freezing_is_switched_off_the_report_says_so(tmp_path: Path) -> None:
    pod = Pod(tmp_path, allowed=False)
    await pod.obey(Order("Frozen", NOW))
    assert pod.states == {"THAWED"}
    assert pod.said.found is not None
    assert (pod.said.found.status, pod.said.found.reason) == ("Unknown", "NotFrozen")


# Pods that are to end ---------------------------------------------------------------------------


async def test_a_deleted_pod_stands_still_until_its_time_is_over_then_it_can_end(
    pod: Pod,
) -> None:
    """Version 1 of the freezer holds back even SIGKILL; thawed before, it would go on."""
    await pod.obey(Order("Frozen", NOW))
    ends = NOW + timedelta(seconds=30)
    assert not pod.freezing.let_end(UID, pod.group, ends, ends)
    await pod.done()
    assert pod.states == {"FROZEN"}
    assert pod.freezing.let_end(UID, pod.group, ends, ends + KILLED)
    await pod.done()
    assert pod.states == {"THAWED"}
    assert not pod.freezing.holds(UID)


async def test_also_what_an_earlier_agent_froze_can_end(pod: Pod) -> None:
    await pod.obey(Order("Frozen", NOW))
    pod.freezing = Freezing(cast("Reports", pod.said), allowed=True)
    pod.freezing.let_end(UID, pod.group, NOW, NOW + KILLED)
    await pod.done()
    assert pod.states == {"THAWED"}


async def test_a_pod_that_is_gone_from_the_api_and_stands_still_here_can_end(pod: Pod) -> None:
    await pod.obey(Order("Frozen", NOW))
    pod.freezing.forget(UID, pod.group)
    await pod.done()
    assert pod.states == {"THAWED"}


async def test_a_pod_that_never_was_frozen_is_left_alone_when_it_ends(pod: Pod) -> None:
    (pod.group / ("a" * 64) / "freezer.state").write_text("PAUSED")  # somebody else's doing
    assert pod.freezing.let_end(UID, pod.group, NOW, NOW + KILLED)
    pod.freezing.forget(UID, pod.group)
    await pod.done()
    assert pod.states == {"PAUSED", "THAWED"}
