"""Requests to an API server, over a real socket; the server says what the test wants."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import pytest
from aiohttp import web
from kubernetes.aio.client import ApiClient
from kubernetes.aio.client.configuration import Configuration

from trainseal.cluster import api
from trainseal.cluster.api import (
    ConflictError,
    GoneError,
    Kube,
    KubeError,
    NotFoundError,
    Writing,
    path_of,
)
from trainseal.cluster.official import OfficialConnection

Answer = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def serving(answer: Answer) -> AsyncIterator[Kube]:
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    (host, port), *_ = runner.addresses
    settings = Configuration()
    settings.host = f"http://{host}:{port}"
    client = ApiClient(configuration=settings)
    try:
        yield Kube(OfficialConnection(client))
    finally:
        await client.close()  # type: ignore[no-untyped-call]
        await runner.cleanup()


def watching(*lines: bytes) -> Answer:
    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for line in lines:
            await response.write(line)
        return response

    return answer


async def events(kube: Kube) -> list[tuple[str, Any]]:
    return [event async for event in kube.watch("/apis/x/v1/things", "1", {})]


def event(kind: str, **fields: Any) -> bytes:
    return json.dumps({"type": kind, "object": fields}).encode() + b"\n"


def around(told: list[Any]) -> Writing:
    """Keeps what it is called with, in order."""

    @contextmanager
    def writing(*what: Any) -> Iterator[Callable[[Any], None]]:
        told.append(what)
        try:
            yield told.append
        finally:
            told.append("ended")

    return writing


async def test_who_writes_is_told_what_came_of_it_and_nobody_of_what_is_read_or_tried() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"did": request.method})

    told: list[Any] = []
    async with serving(answer) as plain:
        kube = plain.telling(around(told))
        await kube.get("/x")
        await kube.create("/x", {}, dry_run=True)
        await kube.delete("/x")
        await plain.create("/x", {})
        assert told == []
        await kube.create("/x", {"a": 1})
        await kube.patch("/x/y", {"a": 1})
        await kube.replace("/x/y", {"a": 1})
    assert told == [
        ("POST", "/x", {"a": 1}), {"did": "POST"}, "ended",
        ("PATCH", "/x/y", {"a": 1}), {"did": "PATCH"}, "ended",
        ("PUT", "/x/y", {"a": 1}), {"did": "PUT"}, "ended",
    ]  # fmt: skip


async def test_a_write_that_is_refused_has_come_to_nothing() -> None:
    async def answer(request: web.Request) -> web.StreamResponse:
        return web.json_response({"reason": "Forbidden"}, status=403)

    told: list[Any] = []
    async with serving(answer) as plain:
        with pytest.raises(KubeError):
            await plain.telling(around(told)).create("/x", {})
    assert told == [("POST", "/x", {}), "ended"]


async def test_a_watch_gives_its_events_in_order() -> None:
    async with serving(watching(event("ADDED", a=1), event("DELETED", a=1))) as kube:
        assert await events(kube) == [("ADDED", {"a": 1}), ("DELETED", {"a": 1})]


async def test_a_large_object_is_an_event_like_any_other() -> None:
    """The bound is ours, and above what an API server stores."""
    large = "x" * 5_000_000
    async with serving(watching(event("ADDED", a=large), event("ADDED", a=2))) as kube:
        assert await events(kube) == [("ADDED", {"a": large}), ("ADDED", {"a": 2})]


async def test_a_line_without_end_is_an_error_that_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api, "MAX_EVENT_BYTES", 1000)
    async with serving(watching(b"x" * 5000)) as kube:
        with pytest.raises(KubeError):
            await events(kube)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (event("ERROR", code=410, reason="Expired", message="too old"), GoneError),
        (event("ERROR", code=500, reason="InternalError"), KubeError),
        (b"no json\n", KubeError),
    ],
)
async def test_an_error_within_a_watch_is_raised(line: bytes, kind: type[Exception]) -> None:
    async with serving(watching(event("ADDED", a=1), line)) as kube:
        with pytest.raises(kind):
            await events(kube)


async def test_metadata_is_asked_for_in_a_form_that_has_nothing_else() -> None:
    async def answer(request: web.Request) -> web.Response:
        # As an API server does: what it accepts is what it is sent, and nothing is more than that.
        accepted = request.headers["Accept"].split(",")
        assert accepted == ["application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"]
        return web.json_response({"kind": "PartialObjectMetadata", "metadata": {"name": "x"}})

    async with serving(answer) as kube:
        assert (await kube.get_metadata("/x"))["metadata"] == {"name": "x"}


@pytest.mark.parametrize(
    ("status", "kind"),
    [(404, NotFoundError), (409, ConflictError), (410, GoneError), (403, KubeError)],
)
async def test_a_refusal_carries_the_servers_words(status: int, kind: type[KubeError]) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response({"reason": "Why", "message": "because"}, status=status)

    async with serving(answer) as kube:
        with pytest.raises(kind) as error:
            await kube.get("/x")
    assert (error.value.status, error.value.reason) == (status, "Why")
    assert "because" in str(error.value)


@pytest.mark.parametrize("body", [b"[]", b"1", b"<html>"])
async def test_an_answer_that_is_no_object_is_an_error(body: bytes) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body, status=200 if body != b"<html>" else 502)

    async with serving(answer) as kube:
        with pytest.raises(KubeError):
            await kube.get("/x")


async def test_of_a_collection_only_the_metadata_of_all_pages_is_asked_for_and_given() -> None:
    asked: list[tuple[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append((request.query.get("continue", ""), request.query["labelSelector"]))
        assert "as=PartialObjectMetadataList" in request.headers["Accept"]
        name, more = ("a", {"continue": "x"}) if len(asked) == 1 else ("b", {})
        return web.json_response({"metadata": more, "items": [{"metadata": {"name": name}}]})

    async with serving(answer) as kube:
        found = [item async for item in kube.metadata("/apis/x/v1/things", {"labelSelector": "l"})]
    assert found == [{"name": "a"}, {"name": "b"}]
    assert asked == [("", "l"), ("x", "l")]


async def test_a_server_that_is_not_there_is_unreachable() -> None:
    settings = Configuration()
    settings.host = "http://127.0.0.1:1"
    client = ApiClient(configuration=settings)
    try:
        with pytest.raises(KubeError) as error:
            await Kube(OfficialConnection(client)).get("/x")
        assert error.value.status == 0
    finally:
        await client.close()  # type: ignore[no-untyped-call]


def test_paths_are_those_of_the_api_conventions() -> None:
    assert path_of("v1", "pods") == "/api/v1/pods"
    assert path_of("batch/v1", "jobs", "n", "x", "status") == (
        "/apis/batch/v1/namespaces/n/jobs/x/status"
    )
