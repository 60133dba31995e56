"""Which access records the controller reads of a run: people make as many as they like."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.unit.world import NOW
from trainseal.api.findings import FindingId
from trainseal.controller import comparing, records
from trainseal.controller.comparing import Comparing
from trainseal.controller.disturbances import SESSIONS
from trainseal.controller.ownreport import Seen

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
