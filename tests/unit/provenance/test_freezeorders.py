"""Orders to freeze and to thaw: the operator's own, about one seal."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from tests.unit.world import CLUSTER, NOW, SEAL_KEY, TICKET_KEY, keyring, new_key
from trainseal.provenance.freezeorders import Order, read_order, sign_order
from trainseal.provenance.keyrings import UntrustedError

SEAL: dict[str, Any] = {
    "cluster": CLUSTER,
    "namespace": "research",
    "name": "char-lm-1",
    "spec": {"run": 1},
}
FROZEN = Order("Frozen", NOW, NOW + timedelta(minutes=5))


@pytest.mark.parametrize("order", [FROZEN, Order("Thawed", NOW)])
def test_an_order_is_read_as_it_was_signed(order: Order) -> None:
    assert read_order(keyring(SEAL_KEY), sign_order(SEAL_KEY, order, **SEAL), **SEAL) == order


@pytest.mark.parametrize(
    "change",
    [
        {"cluster": "another"},
        {"namespace": "other"},
        {"name": "char-lm-2"},
        {"spec": {"run": 2}},
    ],
)
def test_an_order_lifted_into_another_seal_does_not_count(change: dict[str, Any]) -> None:
    text = sign_order(SEAL_KEY, FROZEN, **SEAL)
    with pytest.raises(UntrustedError, match="about another seal"):
        read_order(keyring(SEAL_KEY), text, **SEAL | change)


def test_an_order_by_another_key_does_not_count() -> None:
    for key in (new_key(), TICKET_KEY):
        with pytest.raises(UntrustedError, match="does not count"):
            read_order(keyring(SEAL_KEY), sign_order(key, FROZEN, **SEAL), **SEAL)


@pytest.mark.parametrize("text", ["", "x", "e30=.c2ln", "\u2603." * 400])
def test_what_is_no_order_does_not_count(text: str) -> None:
    with pytest.raises(UntrustedError):
        read_order(keyring(SEAL_KEY), text, **SEAL)
