"""Why a run's pods ended: the gate's one line."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit import world
from trainseal.controller.endings import gate_message


class Pods:
    """An API server with these pods."""

    def __init__(self, *statuses: Any) -> None:
        self.items = [
            {"metadata": {"name": f"p{i}"}, "status": status} for i, status in enumerate(statuses)
        ]
        self.query: Any = None

    async def request(self, _method: str, _path: str, *, query: Any) -> Any:
        self.query = query
        return {"items": self.items}


def message(pods: Pods) -> str:
    return world.run(gate_message(pods, "research", "char-lm-1"))  # type: ignore[arg-type]


def ended(name: str, code: int, **fields: Any) -> Any:
    terminated = {"exitCode": code, **fields}
    return {"initContainerStatuses": [{"name": name, "state": {"terminated": terminated}}]}


def test_the_gates_refusal_is_told_with_its_pod() -> None:
    pods = Pods(
        ended("trainseal-gate", 0),
        ended("trainseal-gate", 1, message=" train.py: other bytes\n", reason="Error"),
    )
    assert message(pods) == "gate of pod p1: train.py: other bytes"
    assert pods.query["labelSelector"] == "trainseal.dev/seal=char-lm-1"


def test_a_gate_that_left_no_words_is_told_by_its_reason() -> None:
    assert message(Pods(ended("trainseal-gate", 137, reason="OOMKilled"))).endswith("OOMKilled")


@pytest.mark.parametrize(
    "status",
    [
        None,
        {},
        {"initContainerStatuses": None},
        {"initContainerStatuses": ["x", {"name": "trainseal-gate"}]},
        ended("prepare", 1, message="not the gate's"),
    ],
)
def test_what_is_not_the_gates_is_not_told(status: Any) -> None:
    assert message(Pods(status)) == ""
