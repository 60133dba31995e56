"""How many runs of a template live, and who is told once there is room."""

from __future__ import annotations

from typing import Any

from trainseal.controller.launchbook import LaunchBook, shape

Object = dict[str, Any]
DIGEST = "sha256:" + "1" * 64


def seal(name: str, phase: str | None = None, digest: str = DIGEST) -> Object:
    return {
        "metadata": {"name": name, "namespace": "research"},
        "spec": {"launch": {"digest": digest, "job": {}}},
        "status": {"phase": phase} if phase else {},
    }


def event(book: LaunchBook, kind: Any, obj: Object) -> None:
    book.listen(kind, ("research", obj["metadata"]["name"]), shape(obj))


def test_what_lives_counts_and_what_has_ended_or_is_gone_does_not() -> None:
    book = LaunchBook()
    event(book, "ADDED", seal("a"))
    event(book, "ADDED", seal("b", "Bound"))
    event(book, "ADDED", seal("c", "Succeeded"))
    event(book, "ADDED", seal("d", digest="sha256:" + "2" * 64))
    assert book.live("research", DIGEST) == 2
    assert book.live("other", DIGEST) == 0
    event(book, "MODIFIED", seal("a", "Failed"))
    event(book, "DELETED", seal("b"))
    assert book.live("research", DIGEST) == 0


def test_every_run_counts_while_its_seal_is_kept() -> None:
    book = LaunchBook()
    event(book, "ADDED", seal("a"))
    event(book, "ADDED", seal("b", "Succeeded"))
    book.made(("research", "c"), DIGEST, "job-c")
    assert book.runs("research", DIGEST) == 3
    event(book, "MODIFIED", seal("a", "Failed"))
    assert book.runs("research", DIGEST) == 3
    event(book, "DELETED", seal("b", "Succeeded"))
    assert book.runs("research", DIGEST) == 2
    assert (book.runs("other", DIGEST), book.live("research", DIGEST)) == (0, 1)


def test_a_seal_counts_from_the_moment_it_is_made_and_once() -> None:
    book = LaunchBook()
    book.made(("research", "a"), DIGEST, "job-a")
    event(book, "ADDED", seal("a"))
    assert book.live("research", DIGEST) == 1


def test_those_who_wait_are_told_in_their_order_and_no_more_than_there_is_room_for() -> None:
    told: list[tuple[str, str]] = []
    book = LaunchBook(told.append)
    event(book, "ADDED", seal("a"))
    event(book, "ADDED", seal("b"))
    for name in ("first", "second", "third"):
        book.waits(("research", name), DIGEST, 2)
    book.waits(("research", "first"), DIGEST, 2)  # again: it keeps its place
    event(book, "MODIFIED", seal("a", "Succeeded"))
    assert told == [("research", "first")]
    book.made(("research", "c"), DIGEST, "first")
    book.gone(("research", "second"))
    told.clear()
    event(book, "MODIFIED", seal("b", "Failed"))
    assert told == [("research", "third")]
