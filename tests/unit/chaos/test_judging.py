"""What chaos must not do is told, each thing by itself; a world in order has nothing to tell."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.chaos.containers import Started
from tests.chaos.judging import Object, Seen, failures
from tests.chaos.schedule import Submission

GOOD = Submission(1.0, 1, 2)
BAD = Submission(2.0, 2, 1, "changed")
INDEX = "batch.kubernetes.io/job-completion-index"


def pod(index: str) -> Object:
    return {
        "metadata": {
            "labels": {"trainseal.dev/job": "good-001"},
            "annotations": {INDEX: index},
        },
        "status": {"phase": "Succeeded"},
    }


def started(pod: str, container: str = "trainer") -> Started:
    return Started(f"id-{pod}", "research", pod, container)


SEEN = Seen(
    jobs={"good-001": {"metadata": {"uid": "u"}, "status": {"phase": "Succeeded"}}},
    seals=[{"spec": {"job": {"uid": "u"}}}, {"spec": {"job": {"uid": "another"}}}],
    pods=[pod("0"), pod("1")],
    started=[
        started("good-001-worker-0-abcde", "gate"),
        started("good-001-worker-0-abcde"),
        started("good-001-worker-1-fghij"),
        started("kube-proxy", "proxy"),
    ],
)


def told(seen: Seen, admitted: tuple[str, ...] = ("good-001",)) -> list[str]:
    return failures((GOOD, BAD), admitted, seen)


def test_a_world_in_order_has_nothing_to_tell() -> None:
    assert told(SEEN) == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda s: replace(s, jobs={}), "is lost"),
        (lambda s: replace(s, seals=[]), "has 0 seals"),
        (lambda s: replace(s, seals=[*s.seals, s.seals[0]]), "has 2 seals"),
        (lambda s: replace(s, pods=s.pods[:1]), "pods succeeded"),
        (lambda s: replace(s, pods=[*s.pods, pod("1")]), "pods succeeded"),
        (lambda s: replace(s, started=s.started[:2]), "trainers started"),
        (
            lambda s: replace(s, started=[*s.started, started("good-001-worker-1-again")]),
            "trainers started",
        ),
        (
            lambda s: replace(s, started=[*s.started, started("bad-002-worker-0-x", "gate")]),
            "bad-002 (changed): container gate",
        ),
        (lambda s: replace(s, started=[*s.started, started("bad-002")]), "bad-002 (changed)"),
        (lambda s: replace(s, started=[*s.started, Started("gone")]), "gone before"),
    ],
)
def test_each_thing_that_must_not_be_is_told(change: Callable[[Seen], Seen], words: str) -> None:
    (found,) = told(change(SEEN))
    assert words in found


def test_a_job_that_did_not_succeed_is_told() -> None:
    jobs = copy.deepcopy(dict(SEEN.jobs))
    jobs["good-001"]["status"]["phase"] = "Failed"
    assert told(replace(SEEN, jobs=jobs)) == ["good-001 is Failed, expected Succeeded"]


def test_what_was_admitted_and_should_not_be_is_told_and_so_is_what_was_refused() -> None:
    assert told(SEEN, ()) == ["good-001 was refused"]
    assert told(SEEN, ("good-001", "bad-002")) == ["bad-002 (changed) was admitted"]
