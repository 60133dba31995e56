"""The operator's keys as the cluster keeps them."""

from __future__ import annotations

import base64
from datetime import timedelta
from typing import Any

import pytest
import yaml

from tests.unit import world
from trainseal.cluster.api import ConflictError, NotFoundError
from trainseal.cluster.keys import (
    CLOCK_SKEW,
    KEY_FIELD,
    ensure_in_keyring,
    ensure_private_key,
    new_key_pem,
    private_key_of,
    read_keyring,
)
from trainseal.provenance.keyrings import UntrustedError
from trainseal.provenance.keys import KeyFormatError

Object = dict[str, Any]


class Store:
    """The API server's Secrets and ConfigMaps; ``first`` runs before each write."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.first: Any = lambda: None

    async def get(self, path: str) -> Object:
        if path not in self.objects:
            raise NotFoundError(404, "NotFound", path)
        return self.objects[path]

    async def create(self, path: str, obj: Object) -> Object:
        self.first()
        name = f"{path}/{obj['metadata']['name']}"
        if name in self.objects:
            raise ConflictError(409, "AlreadyExists", name)
        self.objects[name] = obj
        return obj

    async def replace(self, path: str, obj: Object) -> Object:
        self.first()
        self.objects[path] = obj
        return obj


RING = "/api/v1/namespaces/ts/configmaps/trainseal-keyring"
KEYS: Any = {"seal": world.SEAL_KEY, "ticket": world.TICKET_KEY}


async def test_a_key_is_made_once() -> None:
    store: Any = Store()
    first = await ensure_private_key(store, "ts", "key")
    again = await ensure_private_key(store, "ts", "key")
    assert first.public.id == again.public.id


async def test_of_two_who_make_it_the_first_wins() -> None:
    store: Any = Store()
    other: Object = {"data": {KEY_FIELD: base64.b64encode(new_key_pem()).decode()}}

    def meanwhile() -> None:
        store.objects["/api/v1/namespaces/ts/secrets/key"] = other

    store.first = meanwhile
    found = await ensure_private_key(store, "ts", "key")
    assert found.public.id == private_key_of(other).public.id


@pytest.mark.parametrize(
    "secret", [{}, {"data": None}, {"data": {}}, {"data": {KEY_FIELD: "AAAA"}}]
)
def test_a_secret_without_a_key_says_so_and_shows_nothing(secret: Object) -> None:
    with pytest.raises(KeyFormatError) as error:
        private_key_of(secret)
    assert "AAAA" not in str(error.value)


async def test_the_keyring_holds_both_keys_apart() -> None:
    store: Any = Store()
    await ensure_in_keyring(store, "ts", KEYS, world.NOW)
    ring = store.objects[RING]
    assert list(read_keyring(ring, "seal")) == [world.SEAL_KEY.public.id]
    assert list(read_keyring(ring, "ticket")) == [world.TICKET_KEY.public.id]
    assert len(read_keyring(ring)) == 2


async def test_what_is_there_stays_and_nothing_is_written_twice() -> None:
    store: Any = Store()
    await ensure_in_keyring(store, "ts", {"seal": world.MALLORY}, world.NOW)
    before = store.objects[RING]
    await ensure_in_keyring(store, "ts", KEYS, world.NOW + timedelta(days=1))
    ring = read_keyring(store.objects[RING])
    assert ring[world.MALLORY.public.id] == read_keyring(before)[world.MALLORY.public.id]
    store.first = lambda: pytest.fail("written again")
    await ensure_in_keyring(store, "ts", KEYS, world.NOW + timedelta(days=2))


async def test_a_key_counts_for_a_webhook_whose_clock_is_behind() -> None:
    store: Any = Store()
    (entry,) = (await _made(store)).values()
    assert entry.valid_at(world.NOW - CLOCK_SKEW)
    assert not entry.valid_at(world.NOW - CLOCK_SKEW - timedelta(seconds=1))


async def _made(store: Any) -> Any:
    await ensure_in_keyring(store, "ts", {"seal": world.SEAL_KEY}, world.NOW)
    return read_keyring(store.objects[RING])


@pytest.mark.parametrize(
    "keys",
    [
        "{",
        "x",
        "- x",
        "- {purpose: seal}",
        yaml.safe_dump([{"purpose": "seal", "publicKey": world.ALICE.public.pem}]),
        yaml.safe_dump(["x"] * 300),
        "!!python/object/apply:os.system [x]",
    ],
)
def test_a_keyring_that_makes_no_sense_is_not_trusted(keys: str) -> None:
    with pytest.raises(UntrustedError):
        read_keyring({"data": {"keys.yaml": keys}}, "seal")


@pytest.mark.parametrize("ring", [{}, {"data": None}, {"data": {}}])
def test_an_empty_keyring_trusts_nobody(ring: Object) -> None:
    assert read_keyring(ring) == {}
