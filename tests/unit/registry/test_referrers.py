from __future__ import annotations

import asyncio
import json

import pytest

from trainseal.registry.concurrency import map_bounded
from trainseal.registry.descriptors import OCI_INDEX, OCI_MANIFEST, Descriptor, Manifest
from trainseal.registry.descriptors import sha256_digest as digest
from trainseal.registry.errors import NotFound, RegistryMisbehaved
from trainseal.registry.references import Reference
from trainseal.registry.referrers import (
    entries,
    fallback_tag,
    json_bytes,
    update_fallback,
    with_entry,
)

ENTRY = Descriptor(OCI_MANIFEST, digest(b"entry"), 5, "application/x", None, {"by": "ada"})
TAG = Reference("registry.example", "x", "sha256-00")


def test_the_fallback_tag_is_the_digest_with_a_dash() -> None:
    assert fallback_tag("sha256:" + "0" * 64) == "sha256-" + "0" * 64


def test_an_entry_is_added_to_an_index_and_others_stay_as_they_were() -> None:
    other = {"mediaType": "m", "digest": "sha512:kept", "size": 1, "unknown": ["kept"]}
    raw = json_bytes({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": [other]})
    changed = with_entry(raw, ENTRY, "it")
    assert changed is not None
    assert json.loads(changed)["manifests"] == [other, ENTRY.document()]
    assert entries(changed, "it") == [ENTRY]


def test_an_entry_that_is_there_is_not_added_again() -> None:
    first = with_entry(None, ENTRY, "it")
    assert first is not None
    assert with_entry(first, ENTRY, "it") is None


class Store:
    """Keeps one index; ``loses`` says how often a write is lost to another client's."""

    def __init__(self, loses: int) -> None:
        self.loses, self.raw = loses, b""

    async def manifest(self, reference: Reference) -> Manifest:
        if not self.raw:
            raise NotFound(str(reference), "absent")
        return Manifest(self.raw, OCI_INDEX, digest(self.raw))

    async def push_manifest(self, reference: Reference, raw: bytes, media_type: str) -> Descriptor:
        assert reference == TAG
        self.loses -= 1
        if self.loses < 0:
            self.raw = raw
        return Descriptor.of(media_type, raw)


async def test_an_entry_lost_to_another_client_is_written_again() -> None:
    store = Store(loses=3)
    await update_fallback(store, TAG, ENTRY)
    assert entries(store.raw, "it") == [ENTRY]


async def test_an_index_that_never_keeps_the_entry_is_said_so() -> None:
    with pytest.raises(RegistryMisbehaved, match="does not keep"):
        await update_fallback(Store(loses=1000), TAG, ENTRY)


async def test_a_few_at_a_time_in_order_and_the_first_failure_stops_the_others() -> None:
    running, most = 0, 0
    cancelled: list[int] = []

    async def work(number: int) -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return number * 2

    assert await map_bounded(work, range(20), 3) == [number * 2 for number in range(20)]
    assert most == 3

    async def fail(number: int) -> None:
        if number == 1:
            raise KeyError(number)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.append(number)
            raise

    with pytest.raises(KeyError):
        await map_bounded(fail, range(4), 4)
    assert sorted(cancelled) == [0, 2, 3]
