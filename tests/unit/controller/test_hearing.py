"""What is new in an event of a watch: what others did, and how things stand."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from trainseal.controller.hearing import Hearing, News

Object = dict[str, Any]


def job(version: int, **changes: Any) -> Object:
    """A Job as the API server has it at this version."""
    made: Object = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "char-lm-worker", "uid": "1", "resourceVersion": str(version)},
        "spec": {"suspend": False},
        "status": {},
    }
    made["metadata"] |= changes.pop("metadata", {})
    return made | changes


@pytest.fixture
def hearing() -> Hearing:
    """One that knows of the Job that was made by us at version 7."""
    found = Hearing()
    found.wrote("POST", job(7))
    return found


def test_what_we_made_ourselves_is_no_news(hearing: Hearing) -> None:
    assert hearing.of(job(7), gone=False) is News.OURS
    assert hearing.of(job(7), gone=False) is News.OURS


def test_how_it_stands_is_news_and_no_change(hearing: Hearing) -> None:
    assert hearing.of(job(8, status={"active": 1}), gone=False) is News.STATUS
    managed = {"managedFields": [{"manager": "kube-controller-manager"}]}
    assert hearing.of(job(9, metadata=managed), gone=False) is News.STATUS


def test_a_status_that_we_wrote_is_no_news(hearing: Hearing) -> None:
    hearing.wrote("PATCH", job(8, status={"phase": "Sealed"}))
    assert hearing.of(job(8, status={"phase": "Sealed"}), gone=False) is News.OURS


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": {"suspend": True}},
        {"metadata": {"labels": {"trainseal.dev/job": "another"}}},
        {"metadata": {"ownerReferences": []}},
        {"metadata": {"deletionTimestamp": "2026-11-28T00:00:00Z"}},
        {"data": {"config.json": "{}"}},
    ],
)
def test_what_another_changed_is_a_change(hearing: Hearing, changes: Object) -> None:
    assert hearing.of(job(8, **changes), gone=False) is News.CHANGE
    assert hearing.of(job(9, **copy.deepcopy(changes)), gone=False) is News.STATUS


def test_what_is_gone_is_a_change_and_so_is_what_takes_its_place(hearing: Hearing) -> None:
    assert hearing.of(job(7), gone=True) is News.CHANGE
    assert hearing.of(job(7), gone=False) is News.CHANGE
    assert hearing.of(job(8, metadata={"uid": "2"}), gone=False) is News.CHANGE


def test_what_was_not_heard_of_before_is_a_change() -> None:
    assert Hearing().of(job(7), gone=False) is News.CHANGE


def test_a_change_between_two_writes_of_ours_is_heard_though_the_watch_tells_the_last_alone(
    hearing: Hearing,
) -> None:
    edited = {"spec": {"suspend": True}}
    hearing.wrote("PATCH", job(9, **edited, status={"phase": "Sealed"}))
    assert hearing.of(job(9, **edited, status={"phase": "Sealed"}), gone=False) is News.CHANGE


def test_a_change_that_is_told_after_our_next_write_is_heard(hearing: Hearing) -> None:
    edited = {"spec": {"suspend": True}}
    hearing.wrote("PATCH", job(9, **edited))
    assert hearing.of(job(8, **edited), gone=False) is News.CHANGE
    assert hearing.of(job(9, **edited), gone=False) is News.STATUS


def test_of_what_was_changed_before_it_was_heard_of_nobody_knows_what_else_changed() -> None:
    """As when the controller has just started."""
    found = Hearing()
    found.wrote("PATCH", job(8, status={"phase": "Sealed"}))
    assert found.of(job(8, status={"phase": "Sealed"}), gone=False) is News.CHANGE


def test_no_more_are_known_than_there_is_room_for(
    hearing: Hearing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainseal.controller.hearing._KNOWN", 2)
    for uid in ("2", "3"):
        hearing.wrote("POST", job(1, metadata={"uid": uid}))
    assert hearing.of(job(7), gone=False) is News.CHANGE
