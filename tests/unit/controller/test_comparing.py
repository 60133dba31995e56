"""When the controller compares a run with its seal, and which access records it reads of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.unit.world import NOW
from trainseal.api.findings import FindingId
from trainseal.cluster.informer import Event
from trainseal.controller import comparing, records
from trainseal.controller.comparing import FULL_PASS_SECONDS, Comparing
from trainseal.controller.disturbances import SESSIONS
from trainseal.controller.ownreport import Seen
from trainseal.controller.podbook import Tracked

Object = dict[str, Any]
KEY = ("research", "char-lm-1")


class Server:
    """Has one page after the other, for ever, or as many as it is told."""

    def __init__(self, pages: int) -> None:
        self.pages = pages
        self.asked: list[str] = []

    async def request(self, _method: str, _path: str, *, query: Mapping[str, str]) -> Object:
        self.asked.append(query["labelSelector"])
        spec = {
            "pod": {"name": "p", "uid": "u"},
            "action": "Exec",
            "username": "eve",
            "allowed": True,
            "time": "2026-11-23T12:00:00Z",
        }
        more = {"continue": "x"} if len(self.asked) < self.pages else {}
        return {"metadata": more, "items": [{"metadata": {"name": "r"}, "spec": spec}]}

    def read(self, actions: frozenset[str], pod: str = "") -> int:
        world = SimpleNamespace(kube=self, clock=None)

        async def read() -> int:
            compared = Comparing(cast("Any", world))
            return len(await compared._records(("n", "s-1"), actions, pod))

        return asyncio.run(read())


def test_deletions_are_asked_for_without_the_sessions_beside_them() -> None:
    server = Server(1)
    assert server.read(comparing._ENDING) == 1
    assert server.asked == ["trainseal.dev/seal=s-1,trainseal.dev/action in (Delete,Evict)"]


def test_sessions_are_asked_for_by_pod() -> None:
    server = Server(3)
    assert server.read(SESSIONS, "u") == 3
    assert server.asked[0] == (
        "trainseal.dev/seal=s-1,trainseal.dev/action in (Attach,EphemeralContainer,Exec),"
        "trainseal.dev/pod-uid=u"
    )


def test_of_a_flood_so_much_is_read_and_it_is_said(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(10**6)
    assert server.read(SESSIONS, "u") == records._MOST_PAGES
    assert "more than" in caplog.text


def dated(passed: bool, late: timedelta | None) -> list[datetime | None]:
    """Since when a changed Service and a rank that differs can have been so."""
    recorded: list[Seen] = []

    class Own:
        async def record(self, _namespace: str, _seal: str, seen: Sequence[Seen]) -> None:
            recorded.extend(seen)

    compared = Comparing(cast("Any", SimpleNamespace(kube=None, clock=None)))
    compared._own = cast("Any", Own())
    if passed:
        compared._passed[KEY] = NOW
    wrong = [
        Seen(FindingId.OBJECT_CHANGED, "Service s", "changed", "now"),
        Seen(FindingId.RANK_DIFFERS, "u", "differs", "now"),
    ]
    asyncio.run(compared._record(KEY, wrong, late=late))
    return [seen.not_before for seen in recorded]


def test_what_a_full_pass_finds_came_after_the_one_before_but_for_ranks() -> None:
    minute = timedelta(minutes=1)
    assert dated(passed=True, late=minute) == [NOW - minute, None]


def test_what_the_first_pass_finds_may_have_been_so_from_the_start() -> None:
    assert dated(passed=False, late=timedelta()) == [None, None]
    assert dated(passed=True, late=None) == [None, None]


@pytest.mark.parametrize(
    ("ages", "waits"),
    [((), False), ((1,), False), ((60, 61), False), ((60, 1), True), ((1, 1), True)],
)
def test_pods_that_have_just_appeared_are_compared_with_each_other_later(
    ages: Sequence[float], waits: bool
) -> None:
    standing = [Tracked({}, appeared=100 - age) for age in ages]
    assert comparing._has_new_peer(standing, 100) == waits


# When a run is compared ---------------------------------------------------------------------------


class Due:
    """A comparison at ``seconds``; runs ``added`` to the queue, and of these the full passes."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.seconds = 0.0
        world = SimpleNamespace(kube=None, clock=None)
        self.compared = Comparing(cast("Any", world), monotonic=lambda: self.seconds)
        self.added: list[tuple[str, str]] = []
        monkeypatch.setattr(self.compared, "changed", self.added.append)

    def hears(self, event: Event, **status: Any) -> None:
        """Of the seal, by its watch."""
        spec = {"job": {"name": "char-lm"}}
        obj: Object = {"metadata": {"name": KEY[1]}, "spec": spec, "status": status}
        shaped = comparing._shape(obj)
        if event != "DELETED":
            cast("Any", self.compared._seals.objects)[KEY] = shaped
        self.compared._on_seal(event, KEY, shaped)

    def passes(self, begin: float) -> bool:
        """Whether a full pass is due."""
        self.compared._full.clear()
        self.compared._pass_what_is_due(begin)
        return KEY in self.compared._full


@pytest.fixture
def due(monkeypatch: pytest.MonkeyPatch) -> Due:
    return Due(monkeypatch)


BINDING: Object = {"objects": []}
JOB = ("research", "char-lm")


def test_a_seal_may_be_open_until_all_are_known_and_then_while_its_run_is_on(due: Due) -> None:
    assert due.compared.may_be_open(JOB)
    due.compared._seals.synced.set()
    assert not due.compared.may_be_open(JOB)
    due.hears("ADDED")
    assert due.compared.may_be_open(JOB)
    assert not due.compared.may_be_open(("elsewhere", "char-lm"))
    due.hears("MODIFIED", binding=BINDING, phase="Succeeded")
    assert not due.compared.may_be_open(JOB)


def test_a_run_that_is_just_bound_is_compared_and_not_all_of_it_read(due: Due) -> None:
    due.hears("ADDED")
    assert due.added == []
    due.hears("MODIFIED", binding=BINDING, phase="Bound")
    assert (due.added, due.compared._full) == ([KEY], set())


def test_all_of_a_run_that_has_ended_is_read_once_more(due: Due) -> None:
    due.hears("ADDED", binding=BINDING, phase="Succeeded")
    assert due.added == []
    due.hears("MODIFIED", binding=BINDING, phase="Failed")
    assert (due.added, due.compared._full) == ([KEY], {KEY})


def test_who_changes_what_a_run_is_made_of_has_all_of_it_read(due: Due) -> None:
    due.hears("ADDED", binding=BINDING, phase="Bound")
    due.compared.job_changed("research", "char-lm")
    assert due.compared._full == {KEY}


def test_a_full_pass_comes_each_minute_and_at_once_for_what_was_there_at_the_start(
    due: Due,
) -> None:
    due.hears("ADDED", binding=BINDING, phase="Bound")
    assert due.passes(begin=0.0)
    for seconds, is_due in (
        (5.0, False),
        (59.0, False),
        (61.0, True),
        (66.0, False),
        (122.0, True),
    ):
        due.seconds = seconds
        assert due.passes(seconds + FULL_PASS_SECONDS) is is_due, seconds


def test_a_run_that_begins_later_has_its_first_pass_a_minute_after(due: Due) -> None:
    due.seconds = 100.0
    due.hears("ADDED", binding=BINDING, phase="Bound")
    assert not due.passes(100.0 + FULL_PASS_SECONDS)
    due.seconds = 161.0
    assert due.passes(161.0 + FULL_PASS_SECONDS)


def test_one_that_has_ended_has_none(due: Due) -> None:
    due.hears("ADDED", binding=BINDING, phase="Succeeded")
    assert not due.passes(begin=0.0)
