"""The note on who chose the sizes of elastic roles: it holds for one job and one choice."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit import world
from trainseal.provenance.choosers import Choice, note_choice, read_choice
from trainseal.provenance.keyrings import UntrustedError
from trainseal.provenance.tickets import Ticket, issue_ticket

DIGEST = "sha256:" + "1" * 64
CHOICE = Choice("bob@example.org", DIGEST, {"worker": 3}, world.NOW)
RING = world.keyring(world.TICKET_KEY)


def test_what_was_noted_is_read() -> None:
    text = note_choice(world.TICKET_KEY, CHOICE)
    assert read_choice(RING, text, DIGEST, {"worker": 3}) == CHOICE


@pytest.mark.parametrize(
    ("digest", "replicas", "words"),
    [
        ("sha256:" + "2" * 64, {"worker": 3}, "it is for sha256:1111"),
        (DIGEST, {"worker": 4}, "it is on other numbers"),
        (DIGEST, {}, "it is on other numbers"),
    ],
)
def test_beside_another_job_or_another_choice_it_does_not_count(
    digest: str, replicas: Any, words: str
) -> None:
    text = note_choice(world.TICKET_KEY, CHOICE)
    with pytest.raises(UntrustedError, match=words):
        read_choice(RING, text, digest, replicas)


def test_one_that_is_forged_or_is_a_ticket_does_not_count() -> None:
    ticket = issue_ticket(world.TICKET_KEY, Ticket("bob", "u", DIGEST, world.NOW))
    forged = note_choice(world.MALLORY, CHOICE)
    for text in (ticket, forged, "", "x", "x.y", "A" * 10_000):
        with pytest.raises(UntrustedError, match="the note on who chose does not count"):
            read_choice(RING, text, DIGEST, {"worker": 3})
