"""Tickets: who asked, bound to the job they asked for."""

from __future__ import annotations

import base64
import contextlib
import json
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit import world
from trainseal.provenance.keyrings import KeyringEntry, UntrustedError
from trainseal.provenance.tickets import Ticket, issue_ticket, read_ticket

DIGEST = "sha256:" + "1" * 64
RING = world.keyring(world.TICKET_KEY)
TICKET = Ticket("bob@example.org", "uid-bob", DIGEST, world.NOW)


@given(st.text(max_size=200), st.text(max_size=40))
@settings(max_examples=50, deadline=None)
def test_a_ticket_is_read_back_as_issued(username: str, uid: str) -> None:
    ticket = Ticket(username, uid, DIGEST, world.NOW)
    assert read_ticket(RING, issue_ticket(world.TICKET_KEY, ticket), DIGEST) == ticket


def test_a_ticket_of_another_job_does_not_count() -> None:
    text = issue_ticket(world.TICKET_KEY, TICKET)
    with pytest.raises(UntrustedError, match="it is for sha256:1111"):
        read_ticket(RING, text, "sha256:" + "2" * 64)


def test_a_ticket_that_names_somebody_else_does_not_count() -> None:
    encoded, _, signature = issue_ticket(world.TICKET_KEY, TICKET).partition(".")
    content = json.loads(base64.b64decode(encoded)) | {"username": "alice"}
    forged = base64.b64encode(json.dumps(content).encode()).decode()
    with pytest.raises(UntrustedError, match="edited or forged"):
        read_ticket(RING, f"{forged}.{signature}", DIGEST)


def test_a_ticket_by_another_key_does_not_count() -> None:
    with pytest.raises(UntrustedError, match="the keyring does not hold"):
        read_ticket(RING, issue_ticket(world.SEAL_KEY, TICKET), DIGEST)


def test_a_ticket_from_before_its_key_does_not_count() -> None:
    public = world.TICKET_KEY.public
    ring = {public.id: KeyringEntry(public, world.NOW + timedelta(seconds=1))}
    with pytest.raises(UntrustedError, match="outside its key's validity"):
        read_ticket(ring, issue_ticket(world.TICKET_KEY, TICKET), DIGEST)


@pytest.mark.parametrize("text", ["", "x", ".", "e30=.", "W10=.W10=", "é", "A" * 5000, "AAAA.AAAA"])
def test_what_is_no_ticket_is_refused_in_words(text: str) -> None:
    with pytest.raises(UntrustedError, match="ticket does not count"):
        read_ticket(RING, text, DIGEST)


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_no_ticket_with_a_changed_character_counts_for_more_than_it_was(
    data: st.DataObject,
) -> None:
    text = issue_ticket(world.TICKET_KEY, TICKET)
    at = data.draw(st.integers(0, len(text) - 1))
    changed = text[:at] + data.draw(st.characters()) + text[at + 1 :]
    with contextlib.suppress(UntrustedError):
        # Base64 leaves some bits unused: the same ticket may have two spellings.
        assert read_ticket(RING, changed, DIGEST) == TICKET
