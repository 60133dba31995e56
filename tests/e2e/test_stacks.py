"""The Python stacks of two ranks by the hand of their agents, for somebody with the edit role."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.cluster import CommandError
from tests.e2e.lab import EDITOR, TEAM, Lab, Object
from tests.e2e.reports import condition
from tests.e2e.test_training import trainseal
from tests.e2e.test_watch import OPTIMIZER, freezing
from tests.guides.ground import ADMIN, Ground
from tests.stage.signing import signed
from tests.stage.waiting import eventually

__all__ = ["freezing"]

SECRET = "hunter2"
#: Rank 1 never comes to where the others wait.
STAND = f"""\
import os, threading, time
def pin_memory(password):
    time.sleep(3600)
def all_reduce(password):
    time.sleep(3600)
def load_batch(password):
    time.sleep(3600)
def step(password):
    load_batch(password) if os.environ["RANK"] == "1" else all_reduce(password)
threading.Thread(target=pin_memory, args=("{SECRET}",), daemon=True).start()
step("{SECRET}")
"""
#: What a person is shown of it.
SHOWN = """\
research/char-lm 2 of 2 ranks answered, asked for by …
    main threads: 2 different
      …
          all_reduce  /workspace/stand.py:…
          step  /workspace/stand.py:…
      …
    other threads: all alike
      ranks 0-1 …
"""
STANDING = {"all_reduce": ["0"], "load_batch": ["1"], "pin_memory": ["0", "1"]}


@pytest.fixture(scope="module")
def code(lab: Lab) -> str:
    """The script, signed as the team's code is."""
    return lab.push_tree("stacks-code", {"stand.py": STAND}, lab.alice)


@pytest.fixture
def ranks(
    lab: Lab, code: str, apply: Callable[[Object], Object], request: pytest.FixtureRequest
) -> Object:
    """A job of two ranks that stand where they will stay, watched."""
    name = "stacks-frozen" if "freezing" in request.fixturenames else "char-lm"
    job = lab.job(name, "stand.py")
    job["spec"]["code"][0]["oci"]["reference"] = code
    job["spec"]["roles"][0]["replicas"] = 2
    job = apply(signed(job, lab.alice))
    lab.wait_for_phase(job, "Running")
    eventually(
        lambda: [condition(lab, pod, "Watching") for pod in lab.pods(job)] == ["True"] * 2,
        "both are watched",
    )
    return job


def stacks(lab: Lab, job: Object) -> Any:
    """What the command line shows to programs."""
    name = job["metadata"]["name"]
    found = trainseal(lab, "debug", name, "-n", TEAM, "--stacks", "-o", "json")
    assert SECRET not in found
    return json.loads(found)


def where(found: Any) -> dict[str, list[str]]:
    """The innermost function of each group, with its ranks."""
    return {group["frames"][0]["name"]: group["ranks"] for group in found["groups"]}


def stands(lab: Lab, job: Object) -> bool:
    """Whether both ranks have come to where they stay. One answer a minute: it takes its time."""
    try:
        return where(stacks(lab, job)) == STANDING
    except CommandError:  # a rank has no Python process yet
        return False


def test_the_rank_that_stands_elsewhere_is_seen_and_who_asked_is_on_record(
    lab: Lab, ground: Ground, ranks: Object
) -> None:
    """Asked for by the editor, and then as how-to/debug-a-run.md says."""
    eventually(lambda: stands(lab, ranks), "both ranks stand where they stay", seconds=150)
    found = stacks(lab, ranks)
    files = {frame["file"] for group in found["groups"] for frame in group["frames"]}
    assert "/workspace/stand.py" in files
    assert [group["main"] for group in found["groups"]] == [True, True, False]
    users = lab.kubectl("get", "stackrequests", found["request"], "-o", "jsonpath={.spec.user}")
    assert users == EDITOR
    walk = ground.walk("how-to/debug-a-run.md", "ann")
    walk.instead["trainseal debug char-lm --stacks -n"] = SHOWN
    walk.before("kubectl create rolebinding", walk.become(ADMIN))
    walk.go()
    lab.admin("delete", "rolebinding", "debug", "-n", TEAM)


@pytest.mark.usefixtures("freezing")
def test_ranks_that_are_frozen_are_read_as_any(lab: Lab, ranks: Object) -> None:
    eventually(lambda: stands(lab, ranks), "both ranks stand where they stay", seconds=150)
    before = taken(stacks(lab, ranks))
    first, second = lab.pods(ranks)
    lab.kubectl("exec", first["metadata"]["name"], "--", "sh", "-c", f"echo '#' >> {OPTIMIZER}")
    eventually(
        lambda: [condition(lab, pod, "Frozen") for pod in (first, second)] == ["True"] * 2,
        "both are frozen",
    )
    # In this minute the answer is that of before; the run is suspended after five.
    eventually(lambda: taken(stacks(lab, ranks)) > before, "another minute's answer", seconds=100)
    assert where(stacks(lab, ranks)) == STANDING
    assert [condition(lab, pod, "Frozen") for pod in (first, second)] == ["True"] * 2


def taken(found: Any) -> str:
    """When the first of the ranks was read."""
    return str(min(rank["takenAt"] for rank in found["ranks"]))
