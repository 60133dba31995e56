"""What is new in an event of a watch: what others did, and how things stand."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from trainseal.cluster.api import Method
from trainseal.controller.hearing import Hearing, News

Object = dict[str, Any]
_JOBS = "/apis/batch/v1/namespaces/research/jobs"
PATHS: dict[Method, str] = {"POST": _JOBS, "PATCH": f"{_JOBS}/char-lm-worker/status"}


def job(version: int, **changes: Any) -> Object:
    """A Job as the API server has it at this version."""
    made: Object = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "namespace": "research",
            "name": "char-lm-worker",
            "uid": "1",
            "resourceVersion": str(version),
        },
        "spec": {"suspend": False},
        "status": {},
    }
    made["metadata"] |= changes.pop("metadata", {})
    return made | changes


def of(hearing: Hearing, obj: Object, *, gone: bool) -> News:
    """What an event tells that is heard while nothing is written."""
    told: list[News] = []
    hearing.hear(obj, gone=gone, then=told.append)
    (news,) = told
    return news


def wrote(hearing: Hearing, method: Method, obj: Object) -> None:
    """A write of ours, and its answer."""
    with hearing.writing(method, PATHS[method], obj) as answered:
        answered(obj)


@pytest.fixture
def hearing() -> Hearing:
    """One that knows of the Job that was made by us at version 7."""
    found = Hearing()
    wrote(found, "POST", job(7))
    return found


def test_what_we_made_ourselves_is_no_news(hearing: Hearing) -> None:
    assert of(hearing, job(7), gone=False) is News.NOTHING
    assert of(hearing, job(7), gone=False) is News.NOTHING


@pytest.mark.parametrize(
    "status",
    [
        {"ready": 1},
        {"failed": 1},
        {"uncountedTerminatedPods": {"succeeded": ["uid"]}},
        {"conditions": [{"type": "Suspended", "status": "True"}]},
        {"active": 1, "startTime": "2026-11-28T00:00:00Z", "ready": 1},
    ],
)
def test_how_it_stands_is_news_and_no_change(hearing: Hearing, status: Object) -> None:
    assert of(hearing, job(8, status=status), gone=False) is News.STATUS
    # The same again, by another's hand, is none.
    managed = {"managedFields": [{"manager": "kube-controller-manager"}]}
    assert of(hearing, job(9, status=status, metadata=managed), gone=False) is News.NOTHING


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
    assert of(hearing, job(8, **changes), gone=False) is News.CHANGE
    assert of(hearing, job(9, **copy.deepcopy(changes)), gone=False) is News.NOTHING


def test_what_is_gone_is_a_change_and_so_is_what_takes_its_place(hearing: Hearing) -> None:
    assert of(hearing, job(7), gone=True) is News.CHANGE
    assert of(hearing, job(7), gone=False) is News.CHANGE
    assert of(hearing, job(8, metadata={"uid": "2"}), gone=False) is News.CHANGE


def test_what_was_not_heard_of_before_is_a_change() -> None:
    assert of(Hearing(), job(7), gone=False) is News.CHANGE


def test_a_change_between_two_writes_of_ours_is_heard_though_the_watch_tells_the_last_alone(
    hearing: Hearing,
) -> None:
    edited = {"spec": {"suspend": True}}
    wrote(hearing, "PATCH", job(9, **edited, status={"phase": "Sealed"}))
    assert of(hearing, job(9, **edited, status={"phase": "Sealed"}), gone=False) is News.CHANGE


def test_a_change_that_is_told_after_our_next_write_is_heard(hearing: Hearing) -> None:
    edited = {"spec": {"suspend": True}}
    wrote(hearing, "PATCH", job(9, **edited))
    assert of(hearing, job(8, **edited), gone=False) is News.CHANGE
    assert of(hearing, job(9, **edited), gone=False) is News.NOTHING


def test_of_what_was_changed_before_it_was_heard_of_nobody_knows_what_else_changed() -> None:
    """As when the controller has just started."""
    found = Hearing()
    wrote(found, "PATCH", job(8, status={"phase": "Sealed"}))
    assert of(found, job(8, status={"phase": "Sealed"}), gone=False) is News.CHANGE


def test_no_more_are_known_than_there_is_room_for(
    hearing: Hearing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainseal.controller.hearing._KNOWN", 2)
    for uid in ("2", "3"):
        wrote(hearing, "POST", job(1, metadata={"uid": uid}))
    assert of(hearing, job(7), gone=False) is News.CHANGE


# While a write is under way -----------------------------------------------------------------------


def test_what_a_watch_tells_of_a_write_before_its_answer_is_no_news() -> None:
    hearing, told = Hearing(), list[News]()
    with hearing.writing("POST", PATHS["POST"], job(0)) as answered:
        hearing.hear(job(7), gone=False, then=told.append)
        hearing.hear(job(8, status={"ready": 1}), gone=False, then=told.append)
        assert told == []
        answered(job(7))
    assert told == [News.NOTHING, News.STATUS]


def test_what_another_changes_while_a_write_is_under_way_is_heard_after_it(
    hearing: Hearing,
) -> None:
    told = list[News]()
    with hearing.writing("PATCH", PATHS["PATCH"], {}) as answered:
        hearing.hear(job(8, spec={"suspend": True}), gone=False, then=told.append)
        answered(job(9, spec={"suspend": True}, status={"phase": "Sealed"}))
    assert told == [News.CHANGE]


def test_what_is_heard_while_a_write_fails_is_heard_all_the_same(hearing: Hearing) -> None:
    told = list[News]()

    def fails() -> None:
        with hearing.writing("PATCH", PATHS["PATCH"], {}):
            hearing.hear(job(8, spec={"suspend": True}), gone=False, then=told.append)
            raise TimeoutError

    with pytest.raises(TimeoutError):
        fails()
    assert told == [News.CHANGE]


def test_what_is_heard_of_others_does_not_wait_for_it(hearing: Hearing) -> None:
    told = list[News]()
    other = job(1, metadata={"uid": "2", "name": "another"})
    elsewhere = job(1, metadata={"uid": "3", "namespace": "elsewhere"})
    with hearing.writing("POST", PATHS["POST"], job(0)):
        for obj in (other, elsewhere):
            hearing.hear(obj, gone=False, then=told.append)
        assert told == [News.CHANGE, News.CHANGE]


def test_it_waits_for_the_last_of_two_writes(hearing: Hearing) -> None:
    told = list[News]()
    with hearing.writing("PATCH", PATHS["PATCH"], {}) as one:
        with hearing.writing("PATCH", PATHS["PATCH"], {}) as two:
            hearing.hear(job(9), gone=False, then=told.append)
            two(job(8))
        assert told == []
        one(job(9))
    assert told == [News.NOTHING]


def test_no_more_events_wait_than_there_is_room_for(
    hearing: Hearing, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trainseal.controller.hearing._HELD", 1)
    told = list[News]()
    with hearing.writing("PATCH", PATHS["PATCH"], {}):
        hearing.hear(job(8, spec={"suspend": True}), gone=False, then=told.append)
        hearing.hear(job(9, spec={"suspend": None}), gone=False, then=told.append)
        assert told == [News.CHANGE]
    assert told == [News.CHANGE, News.CHANGE]
