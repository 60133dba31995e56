"""Who is named where the process was gone: one person, or nobody."""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from trainseal.agent.attribution import nearby
from trainseal.agent.observed import Process
from trainseal.agent.processes import Processes
from trainseal.agent.senses import NodeSenses
from trainseal.agent.sessions import Sessions
from trainseal.api.accessrecord import AccessRecord
from trainseal.api.driftreport import Finding

NOW = datetime(2026, 11, 23, 21, 0, tzinfo=UTC)
PATH = "/usr/lib/python3/dist-packages/torch/optim/adam.py"


def record(user: str, before: float = 1.0, **changes: Any) -> AccessRecord:
    spec = {
        "pod": {"name": "w-0", "uid": "u"},
        "sealedRun": "s",
        "action": "Exec",
        "username": user,
        "container": "trainer",
        "command": ["sh"],
        "allowed": True,
        "time": NOW - timedelta(seconds=before),
    }
    return AccessRecord.parse({"metadata": {"name": f"{user}-{before}"}, "spec": spec | changes})


def named(*records: AccessRecord, inside: frozenset[str] = frozenset()) -> str | None:
    found = nearby(records, "trainer", PATH, NOW, inside)
    return found.user if found else None


def test_the_only_person_who_was_just_let_in_is_named_with_the_last_record() -> None:
    found = nearby([record("mallory", 9), record("mallory", 3)], "trainer", PATH, NOW)
    assert found is not None
    assert (found.user, found.record) == ("mallory", "mallory-3")
    assert found.by.startswith("time")


def test_who_sent_a_signal_is_named_by_time_and_that_nobody_saw_it_is_said() -> None:
    found = nearby([record("mallory")], "trainer", None, NOW, signal=True)
    assert found is not None
    assert "no signal tells its sender" in found.by


def test_of_two_who_were_let_in_the_one_whose_command_names_the_file_is_named() -> None:
    sed = record("mallory", command=["sed", "-i", "s/lr/-lr/", PATH])
    assert named(sed, record("bob")) == "mallory"


@pytest.mark.parametrize("word", [f"echo x >> {PATH}; sync", f"of={PATH}", f"'{PATH}'"])
def test_a_path_is_named_wherever_it_stands_in_a_word(word: str) -> None:
    assert named(record("mallory", command=["sh", "-c", word]), record("bob")) == "mallory"


@pytest.mark.parametrize("word", [f"{PATH}.orig", f"/mnt{PATH}", f"{PATH}/x", f"{PATH}c"])
def test_a_path_that_is_part_of_another_is_not_named(word: str) -> None:
    assert named(record("mallory", command=["cat", word]), record("bob")) is None


def test_of_two_nobody_is_named() -> None:
    assert named(record("mallory"), record("bob")) is None
    both = [record(u, command=["vi", PATH]) for u in ("mallory", "bob")]
    assert named(*both) is None


@pytest.mark.parametrize(
    "other",
    [
        record("bob", 61),
        record("bob", -3),
        record("bob", allowed=False),
        record("bob", container="sidecar"),
        record("bob", action="PortForward"),
        record("bob", action="Attach"),
        record("bob", action="Delete"),
    ],
)
def test_who_cannot_have_done_it_is_neither_named_nor_in_the_way(other: AccessRecord) -> None:
    assert named(other) is None
    assert named(other, record("mallory")) == "mallory"


def test_whose_session_is_still_open_may_have_done_it_however_long_ago_they_came() -> None:
    hours = record("mallory", 7200)
    assert named(hours) is None
    assert named(hours, inside=frozenset({"mallory-7200"})) == "mallory"
    assert named(hours, record("bob"), inside=frozenset({"mallory-7200"})) is None


def test_time_alone_accuses_nobody_of_what_no_event_told() -> None:
    """It may have been done on the node, while somebody innocent was in the pod."""
    assert nearby([record("mallory")], "trainer", PATH, NOW, told=False) is None
    sed = record("mallory", command=["sed", "-i", "s/lr/-lr/", PATH])
    found = nearby([sed], "trainer", PATH, NOW, told=False)
    assert found is not None
    assert found.user == "mallory"
    assert "it may come from the node" in found.by


@pytest.mark.parametrize(
    ("command", "person"),
    [(("runc", "init"), "mallory"), ((), "mallory"), (("python3", "train.py"), None)],
)
def test_a_session_that_was_never_seen_as_what_it_became_says_as_little_as_none(
    command: tuple[str, ...], person: str | None
) -> None:
    """As the runtime's helper, or once it had ended and was not yet waited for."""
    senses = NodeSenses.__new__(NodeSenses)
    senses._sessions, senses._processes = Sessions(), Processes()
    senses._records = lambda _: [record("mallory")]
    session = Process(2**30, 0, NOW - timedelta(hours=1), "/", command, 0, "c")
    finding = Finding.model_validate(
        {
            "id": "file.changed", "key": "0" * 16, "severity": "Critical", "message": "m",
            "firstTime": NOW, "lastTime": NOW, "count": 1, "container": "trainer", "path": PATH,
        }
    )  # fmt: skip
    found = senses.behind("u", finding, session)
    assert (found and found.user) == person


def test_a_session_that_ended_and_is_not_yet_waited_for_stays_what_it_was() -> None:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    try:
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        processes = Processes()
        ended = processes.read(pid)
        assert ended is not None
        was = replace(ended, command=("sed", "-i"), executable="/bin/sed", container_id="c")
        assert processes._now(was) == was
    finally:
        os.waitpid(pid, 0)
