"""Collections kept in memory: what is missed by a broken watch is found by the next list."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from typing import Any

import pytest

from trainseal.cluster.api import GoneError, KubeError
from trainseal.cluster.informer import Informer

Object = dict[str, Any]


def obj(name: str, version: int, **fields: Any) -> Object:
    return {"metadata": {"namespace": "n", "name": name, "resourceVersion": str(version)}, **fields}


class Server:
    """Answers lists and watches from a script; a watch ends, or raises, after its events."""

    def __init__(self, *rounds: tuple[list[Object] | Exception, Iterable[Any]]) -> None:
        self.rounds = list(rounds)
        self.watches: list[Iterable[Any]] = []
        self.asked: list[str] = []
        self.idle = asyncio.Event()

    async def request(self, _method: str, _path: str, *, query: Mapping[str, str], **_: Any) -> Any:
        items, events = self.rounds[0] if len(self.rounds) == 1 else self.rounds.pop(0)
        if isinstance(items, Exception):
            raise items
        start = int(query.get("continue", "0"))
        page = items[start : start + 2]
        metadata: Object = {"resourceVersion": "100"}
        if start + 2 < len(items):
            metadata["continue"] = str(start + 2)
            self.rounds.insert(0, (items, events))
        else:
            self.watches.append(events)
        return {"metadata": metadata, "items": page}

    async def watch(
        self, _path: str, version: str, _query: Any
    ) -> AsyncGenerator[tuple[str, Object], None]:
        self.asked.append(version)
        events = self.watches.pop(0) if self.watches else ()
        for event in events:
            if isinstance(event, Exception):
                raise event
            yield event
        if not self.rounds[1:]:
            self.idle.set()
            await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    async def at_once(_: float) -> None:
        return None

    monkeypatch.setattr("trainseal.cluster.informer.asyncio.sleep", at_once)


async def told(
    server: Server, shape: Callable[[Object], Object] = lambda item: item, *, keep: bool = True
) -> tuple[list[tuple[str, str]], Informer]:
    """What the listener hears until the server has nothing more to say."""
    heard: list[tuple[str, str]] = []
    found = Informer(
        server,  # type: ignore[arg-type]
        "/x",
        listener=lambda event, key, _: heard.append((event, key[1])),
        shape=shape,
        keep=keep,
    )
    task = asyncio.ensure_future(found.run())
    async with asyncio.timeout(5):
        await server.idle.wait()
    task.cancel()
    return heard, found


async def test_a_list_of_many_pages_is_told_and_kept() -> None:
    heard, found = await told(Server(([obj(c, 1) for c in "abcde"], ())))
    assert heard == [("ADDED", c) for c in "abcde"]
    assert sorted(found.objects) == [("n", c) for c in "abcde"]
    assert found.synced.is_set()


async def test_a_watch_adds_changes_and_takes_away() -> None:
    events = [("ADDED", obj("b", 2)), ("MODIFIED", obj("a", 3, x=1)), ("DELETED", obj("b", 4))]
    server = Server(([obj("a", 1)], events))
    heard, found = await told(server)
    assert heard == [("ADDED", "a"), ("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]
    assert found.get("n", "a") == obj("a", 3, x=1)
    assert found.get("n", "b") is None


async def test_a_bookmark_moves_the_version_and_is_told_to_nobody() -> None:
    mark = ("BOOKMARK", {"metadata": {"resourceVersion": "200"}})
    server = Server(([], [mark, KubeError(0, "Unreachable", "x")]), ([], ()))
    heard, _ = await told(server)
    assert heard == []


@pytest.mark.parametrize(
    "error",
    [GoneError(410, "Expired", "x"), KubeError(0, "Unreachable", "x"), KubeError(500, "", "")],
)
async def test_what_happened_while_nobody_watched_is_found_by_the_next_list(
    error: Exception,
) -> None:
    server = Server(
        ([obj("a", 1), obj("b", 1), obj("c", 1)], [error]),
        ([obj("a", 1), obj("b", 2), obj("d", 2)], ()),
    )
    heard, found = await told(server)
    assert heard[3:] == [("DELETED", "c"), ("MODIFIED", "b"), ("ADDED", "d")]
    assert found.current
    assert sorted(name for _, name in found.objects) == ["a", "b", "d"]


async def test_a_collection_is_not_current_while_its_server_is_away() -> None:
    away = KubeError(0, "Unreachable", "x")
    said: list[bool] = []

    class Watched(Server):
        async def request(self, *args: Any, **options: Any) -> Any:
            said.append(found.current)
            return await super().request(*args, **options)

    server = Watched(([obj("a", 1)], [away]), (away, ()), ([obj("a", 1)], ()))
    found = Informer(server, "/x")  # type: ignore[arg-type]
    task = asyncio.ensure_future(found.run())
    async with asyncio.timeout(5):
        await server.idle.wait()
    assert said == [False, False, False]
    assert found.synced.is_set()
    assert found.current
    task.cancel()


async def test_the_last_known_state_stands_while_the_server_is_away() -> None:
    away: Any = KubeError(0, "Unreachable", "x")
    server = Server(([obj("a", 1)], [away]), (away, ()), (away, ()), ([obj("a", 1)], ()))
    heard, found = await told(server)
    assert heard == [("ADDED", "a")]
    assert found.get("n", "a")


async def test_only_the_shape_of_an_object_is_kept_and_told() -> None:
    server = Server(([obj("a", 1, big="x" * 99)], [("ADDED", obj("b", 2, big="x" * 99))]))
    _, found = await told(server, lambda item: {"metadata": item["metadata"]})
    assert found.objects == {("n", "a"): obj("a", 1), ("n", "b"): obj("b", 2)}


async def test_who_wrote_which_field_is_not_kept() -> None:
    listed, watched = obj("a", 1), obj("b", 2)
    for one in (listed, watched):
        one["metadata"]["managedFields"] = [{"manager": "kubectl"}]
    _, found = await told(Server(([listed], [("ADDED", watched)])))
    assert found.objects == {("n", "a"): obj("a", 1), ("n", "b"): obj("b", 2)}


async def test_what_is_not_kept_is_told_and_told_again_by_the_next_list() -> None:
    first = ([obj(c, 1) for c in "abc"], [("ADDED", obj("d", 2)), GoneError(410, "Gone", "gone")])
    again = ([obj(c, 1) for c in "cd"], [("ADDED", obj("e", 3)), ("DELETED", obj("d", 4))])
    heard, found = await told(Server(first, again), keep=False)
    added = [name for event, name in heard if event == "ADDED"]
    assert added == [*"abcd", *"cde"]
    assert heard[-1] == ("DELETED", "d")
    assert not found.objects
