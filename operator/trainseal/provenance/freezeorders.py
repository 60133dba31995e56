"""The order to freeze a run's pods, or to thaw them: signed by the operator, obeyed by agents.

It stands in the seal's status, which only the controller may write; the signature keeps whoever
could write it all the same from stopping a run, or from letting a stopped one go on. It is bound
to cluster, namespace, seal and the seal's digest, so an order lifted into another seal does not
verify. Of two orders of one seal the later counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from pydantic import JsonValue

from trainseal.provenance.keyrings import (
    Keyring,
    UntrustedError,
    read_signed_text,
    read_time,
    rfc3339,
    signed_text,
)
from trainseal.provenance.keys import PrivateKey
from trainseal.provenance.seals import seal_digest

FREEZE_TYPE = "application/vnd.trainseal.freeze-order.v1+json"
MAX_ORDER_BYTES = 2048
State = Literal["Frozen", "Thawed"]


@dataclass(frozen=True, slots=True)
class Order:
    """What a run's pods are to be, since when; ``until``: when the next response follows."""

    state: State
    since: datetime
    until: datetime | None = None


def sign_order(
    key: PrivateKey,
    order: Order,
    *,
    cluster: str,
    namespace: str,
    name: str,
    spec: Mapping[str, JsonValue],
) -> str:
    """The order over a seal (its namespace, name and spec), as text for its status."""
    content: dict[str, JsonValue] = {
        "cluster": cluster,
        "namespace": namespace,
        "name": name,
        "sealDigest": seal_digest(namespace, name, spec),
        "state": order.state,
        "since": rfc3339(order.since),
        "until": rfc3339(order.until) if order.until else None,
    }
    return signed_text(key, FREEZE_TYPE, content)


def read_order(
    keyring: Keyring,
    text: str,
    *,
    cluster: str,
    namespace: str,
    name: str,
    spec: Mapping[str, JsonValue],
) -> Order:
    """The order that a seal's status carries; raises UntrustedError where it is not ours."""
    try:
        content = read_signed_text(
            keyring, text, FREEZE_TYPE, time_field="since", max_bytes=MAX_ORDER_BYTES
        )
        wanted = {
            "cluster": cluster,
            "namespace": namespace,
            "name": name,
            "sealDigest": seal_digest(namespace, name, spec),
        }
        if {k: content.get(k) for k in wanted} != wanted:
            raise UntrustedError("it is about another seal")
        ordered, until = content.get("state"), content.get("until")
        states: tuple[State, ...] = ("Frozen", "Thawed")
        state = next((s for s in states if s == ordered), None)
        if state is None:
            raise UntrustedError(f"it orders {str(ordered)[:40]!r}, expected Frozen or Thawed")
        return Order(
            state,
            read_time(str(content.get("since"))),
            read_time(str(until)) if until is not None else None,
        )
    except ValueError as error:
        raise UntrustedError(
            f"SealedRun {namespace}/{name}: its freeze order does not count: {error}"
        ) from None
