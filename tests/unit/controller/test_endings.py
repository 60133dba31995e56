"""Why a run's pods ended: the gate's one line, the one that explains what there is now."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit import world
from trainseal.controller.endings import gate_message

Object = dict[str, Any]
SEAL = "char-lm-1"


def pod(name: str, index: int, minute: int, **status: Any) -> Object:
    """A pod of that place, made at that minute, ended half a minute later if at all."""
    return {
        "metadata": {
            "name": name,
            "creationTimestamp": f"2026-11-23T12:{minute:02}:00Z",
            "labels": {
                "trainseal.dev/seal": SEAL,
                "batch.kubernetes.io/job-completion-index": str(index),
            },
            "annotations": {"batch.kubernetes.io/job-completion-index": str(index)},
            "ownerReferences": [{"uid": "job-1", "controller": True}],
        },
        "status": {"phase": "Failed"} | status,
    }


def gated(name: str, index: int, minute: int, code: int, words: str = "", **more: Any) -> Object:
    """A pod whose gate ended with this code."""
    at = f"2026-11-23T12:{minute:02}:30Z"
    terminated = {"exitCode": code, "message": words, "finishedAt": at, "reason": "Error"}
    gate = {"name": "trainseal-gate", "state": {"terminated": terminated}}
    return pod(name, index, minute, initContainerStatuses=[gate], **more)


def crashed(name: str, index: int, minute: int) -> Object:
    """A pod that passed its gate and whose trainer then failed."""
    at = f"2026-11-23T12:{minute:02}:40Z"
    trainer = {"name": "trainer", "state": {"terminated": {"exitCode": 1, "finishedAt": at}}}
    return gated(name, index, minute, 0, containerStatuses=[trainer])


def at_work(name: str, index: int, minute: int) -> Object:
    """A pod that passed its gate and runs."""
    found = gated(name, index, minute, 0)
    found["status"]["phase"] = "Running"
    return found


class Pods:
    """An API server with these pods, which lists a page of them as it is asked to."""

    def __init__(self, *pods: Object) -> None:
        self.pods = list(pods)
        self.asked = 0

    async def request(self, _method: str, path: str, *, query: Object) -> Object:
        assert path == "/api/v1/namespaces/research/pods"
        self.asked += 1
        wanted = dict(part.split("=") for part in query["labelSelector"].split(","))
        found = [
            p
            for p in self.pods
            if wanted.items() <= p["metadata"]["labels"].items()
            and ("fieldSelector" not in query or p["status"].get("phase") == "Failed")
        ]
        start, size = int(query.get("continue", 0)), int(query["limit"])
        more = {"continue": str(start + size)} if start + size < len(found) else {}
        return {"items": found[start : start + size], "metadata": more}


def message(*pods: Object) -> str:
    return world.run(gate_message(Pods(*pods), "research", SEAL))  # type: ignore[arg-type]


def test_the_gates_refusal_is_told_with_its_pod() -> None:
    refused = gated("p1", 1, 0, 1, " train.py: other bytes\n")
    assert message(crashed("p0", 0, 0), refused) == "gate of pod p1: train.py: other bytes"


def test_a_gate_that_left_no_words_is_told_by_its_reason() -> None:
    assert message(gated("p0", 0, 0, 137)).endswith("Error")


@pytest.mark.parametrize(
    "status",
    [
        {},
        {"initContainerStatuses": None},
        {"initContainerStatuses": ["x", {"name": "trainseal-gate"}]},
        {
            "initContainerStatuses": [
                {"name": "prepare", "state": {"terminated": {"exitCode": 1, "message": "no"}}}
            ]
        },
    ],
)
def test_what_is_not_the_gates_is_not_told(status: Any) -> None:
    assert message(pod("p0", 0, 0, **status)) == ""


@pytest.mark.parametrize("place", [0, 300, 1199])
def test_the_one_refusal_among_many_undetermined_ranks_is_found(place: int) -> None:
    pods = [gated(f"p{n}", n, n % 50, 2, "undetermined: registry away") for n in range(1200)]
    pods[place] = gated("refused", place, 0, 1, "train.py: other bytes")
    assert message(*pods) == "gate of pod refused: train.py: other bytes"


def test_a_later_refusal_is_not_hidden_by_an_older_undetermined_of_its_place() -> None:
    older = gated("old", 0, 0, 2, "undetermined: registry away")
    assert "refuted" in message(older, gated("new", 0, 5, 1, "refuted: train.py"))
    assert "refuted" in message(gated("new", 0, 5, 1, "refuted: train.py"), older)


def test_of_several_refusals_the_newest_is_told() -> None:
    pods = [gated(f"p{minute}", minute, minute, 1, f"file {minute}") for minute in (3, 9, 6)]
    assert message(*pods) == "gate of pod p9: file 9"


def test_an_undetermined_gate_is_told_until_its_place_has_passed() -> None:
    away = gated("p0", 0, 0, 2, "undetermined: registry away")
    waiting = pod("p0-again", 0, 3, phase="Pending")
    assert "registry away" in message(away)
    assert "registry away" in message(away, waiting)
    assert message(away, at_work("p0-again", 0, 3)) == ""


def test_another_place_that_passed_explains_nothing_away() -> None:
    away = gated("p0", 0, 0, 2, "undetermined: registry away")
    assert "registry away" in message(away, at_work("p1", 1, 3))
    other = at_work("other", 0, 3)
    other["metadata"]["ownerReferences"][0]["uid"] = "another-roles-job"
    assert "registry away" in message(away, other)


def test_a_place_that_failed_otherwise_since_is_not_explained_by_its_older_gate() -> None:
    away = gated("p0", 0, 0, 2, "undetermined: registry away")
    assert message(away, crashed("p0-again", 0, 3)) == ""
    assert message(away, pod("evicted-at-once", 0, 3)) == ""


def test_a_place_that_still_waits_is_told_though_others_have_passed() -> None:
    pods = [gated(f"p{n}", n, n, 2, f"undetermined {n}") for n in range(3)]
    passed = [at_work(f"again-{n}", n, 9) for n in (1, 2)]
    assert message(*pods, *passed) == "gate of pod p0: undetermined 0"


def test_what_is_asked_of_the_api_server_is_bounded() -> None:
    pods = [gated(f"p{n}", n, 0, 2, "undetermined") for n in range(20)]
    cluster = Pods(*pods, *(at_work(f"again-{n}", n, 9) for n in range(20)))
    assert world.run(gate_message(cluster, "research", SEAL)) == ""  # type: ignore[arg-type]
    assert cluster.asked <= 5
