"""What the archive follows, and that evidence is in it whatever is deleted later."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import pytest

from tests.sample_objects import evidence_item
from trainseal.api.crd import KINDS, RULES, WRITTEN_ONCE
from trainseal.archive import main as module
from trainseal.archive.main import Archive
from trainseal.archive.store import Store, lines, read_object
from trainseal.cluster.api import Kube, KubeError
from trainseal.provenance.evidence import walk

Object = dict[str, Any]
NOW = datetime(2026, 11, 26, tzinfo=UTC)


def test_every_kind_that_is_written_once_is_archived() -> None:
    once = {k.name for k in KINDS if WRITTEN_ONCE in RULES.get(k.spec.__name__, ())}
    assert once <= set(module._KINDS)


class Server:
    """Has one evidence item, which somebody deletes once it was listed."""

    def __init__(self) -> None:
        self.item = evidence_item()
        self.item["metadata"] |= {"namespace": "research", "uid": "uid-1"}
        self.limits: dict[str, str] = {}

    async def request(
        self, _method: str, path: str, *, query: Mapping[str, str], **_: Any
    ) -> Object:
        kind = path.rpartition("/")[2]
        self.limits[kind] = query["limit"]
        without_kind = {k: v for k, v in self.item.items() if k not in ("kind", "apiVersion")}
        items = [without_kind] if kind == "evidenceitems" else []
        return {"apiVersion": "trainseal.dev/v1alpha1", "metadata": {}, "items": items}

    async def watch(self, path: str, *_: Any) -> AsyncIterator[tuple[str, Object]]:
        if path.endswith("/evidenceitems"):
            yield "DELETED", self.item
        await asyncio.Event().wait()

    async def get(self, path: str) -> Object:
        raise KubeError(0, "Unreachable", path)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    with Store(tmp_path / "archive") as found:
        yield found


async def test_evidence_that_is_deleted_stays_whole_in_the_archive(store: Store) -> None:
    server = Server()
    working = asyncio.ensure_future(
        module._work(cast("Kube", server), "trainseal-system", Archive(store, lambda: NOW))
    )
    async with asyncio.timeout(10):
        while store.head.number < 2:  # noqa: ASYNC110 - until both are on disk
            await asyncio.sleep(0.001)
    working.cancel()
    await asyncio.gather(working, return_exceptions=True)
    kept, gone = (entry for entry, _ in walk(lines(store.folder)))
    assert (kept.kind, gone.digest) == ("EvidenceItem", None)
    assert json.loads(read_object(store.folder, str(kept.digest))) == server.item
    # Each may have a quarter of a megabyte: a page of them is no larger than one of other kinds.
    assert int(server.limits["evidenceitems"]) < int(server.limits["sealedruns"])
