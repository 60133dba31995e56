"""A report that only counts fills no volume; what is new in it, and how it was last, is kept."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.sample_objects import drift_report, sealed_run
from trainseal.archive.main import Archive, catch_up
from trainseal.archive.revisions import APART, Recorded, is_due, says
from trainseal.archive.store import Store, lines, read_object
from trainseal.cluster.api import KubeError, NotFoundError
from trainseal.provenance.evidence import walk

Object = dict[str, Any]
NOW = datetime(2026, 11, 23, 21, 0, tzinfo=UTC)


def report(count: int = 1, *keys: str, watching: str = "True") -> Object:
    obj = drift_report()
    obj["metadata"] |= {"uid": "uid-1", "namespace": "research"}
    obj["status"] = {
        "findings": [{"key": k, "count": count} for k in keys or ("0" * 16,)],
        "conditions": [{"type": "Watching", "status": watching, "message": str(count)}],
    }
    return obj


LAST = Recorded(NOW, says(report()) or b"")


@pytest.mark.parametrize(
    ("new", "after", "due"),
    [
        (report(2), 1, False),
        (report(2), 59, False),
        (report(2), 60, True),
        (report(1, "0" * 16, "1" * 16), 1, True),
        (report(1, watching="False"), 1, True),
        (sealed_run(), 1, True),
    ],
    ids=["count", "count again", "a minute", "finding", "condition", "another kind"],
)
def test_what_is_new_is_recorded_at_once_and_counts_by_the_minute(
    new: Object, after: int, due: bool
) -> None:
    assert is_due(LAST, says(new), NOW + timedelta(seconds=after)) is due


def test_what_was_not_seen_before_is_recorded() -> None:
    assert is_due(None, says(report()), NOW)


class Server:
    """Has the one report, or answers with what is broken."""

    def __init__(self, found: Object | Exception) -> None:
        self.found = found

    async def get(self, path: str) -> Object:
        assert path.endswith(
            "/namespaces/research/driftreports/" + drift_report()["metadata"]["name"]
        )
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


class Ground:
    """An archive on disk, and a clock that goes when told."""

    def __init__(self, store: Store) -> None:
        self.now = NOW
        self.store = store
        self.archive = Archive(store, lambda: self.now)

    def counts(self) -> list[int | None]:
        found: list[int | None] = []
        for entry, _ in walk(lines(self.store.folder)):
            body = read_object(self.store.folder, entry.digest) if entry.digest else b""
            count = body.partition(b'"count":')[2][:3].partition(b",")[0]
            found.append(int(count) if count else None)
        return found

    async def catch_up(self, found: Mapping[str, Any] | Exception) -> None:
        await catch_up(Server(found), self.archive)  # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store(tmp_path) as store:
        yield store


async def test_a_loop_that_writes_is_a_revision_a_minute_and_how_it_ended(store: Store) -> None:
    ground = Ground(store)
    for count in range(100, 390):
        await ground.archive.take(report(count))
        ground.now += timedelta(seconds=1)
    assert ground.counts() == [100, 160, 220, 280, 340]
    await ground.catch_up(report(389))
    assert ground.archive.late
    ground.now += APART
    await ground.catch_up(report(389))
    assert ground.counts() == [100, 160, 220, 280, 340, 389]
    assert not ground.archive.late


async def test_how_it_was_last_is_recorded_with_its_deletion(store: Store) -> None:
    ground = Ground(store)
    await ground.archive.take(report(100))
    await ground.archive.take(report(101))
    await ground.archive.take(report(102), deleted=True)
    assert ground.counts() == [100, 102, None]
    assert not ground.archive.late


async def test_what_cannot_be_read_just_then_is_recorded_later(store: Store) -> None:
    ground = Ground(store)
    await ground.archive.take(report(100))
    await ground.archive.take(report(101))
    ground.now += APART
    for error in (KubeError(500, "Down", "down"), NotFoundError(404, "NotFound", "gone")):
        await ground.catch_up(error)
        assert ground.archive.late
    other = copy.deepcopy(report(7))
    other["metadata"]["uid"] = "uid-2"
    await ground.catch_up(other)
    assert ground.counts() == [100]
    await ground.catch_up(report(101))
    assert ground.counts() == [100, 101]


async def test_a_new_finding_in_a_loop_is_recorded_at_once(store: Store) -> None:
    ground = Ground(store)
    await ground.archive.take(report(100))
    await ground.archive.take(report(101, "0" * 16, "1" * 16))
    assert ground.counts() == [100, 101]


async def test_what_is_put_off_is_forgotten_where_the_report_is_gone(store: Store) -> None:
    ground = Ground(store)
    await ground.archive.take(report(100))
    await ground.archive.take(report(101))
    await ground.archive.listed("DriftReport", set())
    assert not ground.archive.late
    assert ground.counts() == [100, None]
