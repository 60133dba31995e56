"""Telling an Alertmanager: a loopback server stands in for it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from tests.unit.controller.test_holds import finding
from tests.unit.world import NOW
from trainseal.controller import alerts
from trainseal.controller.alerts import MAX_WAITING, Alert, Alerts, alert

TOKEN = "s3cr3t-token"


@dataclass
class Manager:
    """Answers with ``answers`` in turn, then 200; keeps what it took."""

    answers: list[int] = field(default_factory=list)
    requests: list[Any] = field(default_factory=list)
    refuse: str = ""
    led_astray: bool = False

    async def post(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.requests.append((request.headers.get("Authorization"), body))
        if self.refuse and any(a["labels"]["pod"] == self.refuse for a in body):
            return web.Response(status=400, text="bad")
        status = self.answers.pop(0) if self.answers else 200
        headers = {"Location": "/elsewhere"} if status == 307 else {}
        return web.Response(status=status, headers=headers)

    async def elsewhere(self, _: web.Request) -> web.Response:
        self.led_astray = True
        return web.Response()


def made(id_: str = "ns/seal/mark", pod: str = "trainer-0") -> Alert:
    return alert(id_, namespace="research", job="char-lm", pod=pod, finding=finding(), now=NOW)


def play(
    manager: Manager,
    items: list[Alert],
    done: Callable[[list[str]], bool],
    token: Path | None = None,
) -> list[str]:
    """Offers the alerts and waits; returns the ids that were delivered."""
    delivered: list[str] = []
    changed = asyncio.Event()

    def told(id_: str) -> None:
        delivered.append(id_)
        changed.set()

    async def work() -> None:
        app = web.Application()
        app.router.add_post("/am/api/v2/alerts", manager.post)
        app.router.add_post("/elsewhere", manager.elsewhere)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        (address,) = runner.addresses
        sender = Alerts(f"http://127.0.0.1:{address[1]}/am/", token, told)
        for item in items:
            assert sender.offer(item)
        task = asyncio.ensure_future(sender.run())
        try:
            async with asyncio.timeout(10):
                while not done(delivered):
                    changed.clear()
                    await changed.wait()
        finally:
            task.cancel()
            await runner.cleanup()

    asyncio.run(work())
    return delivered


@pytest.fixture(autouse=True)
def _short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alerts, "_FIRST_PAUSE", 0.001)


def test_an_alert_says_what_where_who_and_since_when() -> None:
    body: Any = made().body
    assert body["labels"] == {
        "alertname": "TrainSealFinding",
        "severity": "critical",
        "namespace": "research",
        "job": "char-lm",
        "pod": "trainer-0",
        "finding": "file.changed",
        "key": "0123456789abcdef",
    }
    assert "/opt/adam.py" in body["annotations"]["summary"]
    assert "mallory" in body["annotations"]["description"]
    assert body["startsAt"] == "2026-11-23T12:00:00Z"
    assert body["endsAt"] > body["startsAt"]


def test_alerts_go_out_as_one_list_with_the_token(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text(f"{TOKEN}\n")
    manager = Manager()
    delivered = play(manager, [made("a"), made("b")], lambda d: len(d) == 2, token)
    assert delivered == ["a", "b"]
    ((authorization, body),) = manager.requests
    assert authorization == f"Bearer {TOKEN}"
    assert body == [made("a").body, made("b").body]


def test_what_the_alertmanager_does_not_take_is_sent_again_and_the_log_holds_no_secret(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token = tmp_path / "token"
    token.write_text(TOKEN)
    manager = Manager(answers=[503, 401, 307])
    with caplog.at_level(logging.DEBUG):
        assert play(manager, [made("a")], lambda d: d == ["a"], token) == ["a"]
    assert len(manager.requests) == 4
    assert not manager.led_astray, "the token is for this host alone"
    assert "401" in caplog.text
    assert TOKEN not in caplog.text


def test_one_alert_that_is_refused_for_good_keeps_back_no_other() -> None:
    manager = Manager(refuse="bad-pod")
    items = [made("a"), made("b", "bad-pod"), made("c")]
    assert sorted(play(manager, items, lambda d: len(d) == 3)) == ["a", "b", "c"]
    taken = [a["labels"]["pod"] for _, body in manager.requests[1:] for a in body]
    assert taken == ["trainer-0", "bad-pod", "trainer-0"]


def test_a_full_queue_says_so_and_the_same_alert_twice_is_one() -> None:
    async def offers() -> None:
        sender = Alerts("http://127.0.0.1:1", None, lambda _: None)
        for number in range(MAX_WAITING):
            assert sender.offer(made(str(number)))
        assert sender.offer(made("0"))
        assert not sender.offer(made("one more"))

    asyncio.run(offers())


def test_an_alert_about_what_is_enforced_names_what_and_who() -> None:
    made = alerts.enforcement_alert(
        "ProvenancePolicy", "research", "weakened by ann", "mode: found Audit",
        record="research-1", since=NOW, until=NOW + alerts.FIRING,
    )  # fmt: skip
    body: Any = made.body
    assert made.id.startswith(alerts.ENFORCEMENT)
    assert body["labels"] == {
        "alertname": "TrainSealEnforcement",
        "severity": "critical",
        "kind": "ProvenancePolicy",
        "name": "research",
        "record": "research-1",
    }
    assert body["annotations"]["summary"] == "weakened by ann"
