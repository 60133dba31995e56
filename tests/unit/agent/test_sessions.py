"""Sessions joined with access records: a table of what explains what, with its benign twins."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest

from trainseal.agent.observed import Lineage, Process, WatchedContainer
from trainseal.agent.sessions import GRACE, Sessions, becomes, explained, own_commands
from trainseal.api.accessrecord import AccessRecord
from trainseal.api.model import JsonObject

START = datetime(2026, 11, 23, 12, 0, 0, tzinfo=UTC)
ID = "a1" * 32
CONTAINER = WatchedContainer(
    *("research", "char-lm-worker-0", "uid-0", "char-lm", "trainer", ID, 100),
    started=START - timedelta(hours=1),
    mounts=(),
    env={},
)
SESSION = Process(4242, 77, START, "/usr/bin/cat", ("cat", "/etc/hosts"), 0, ID)


def record(name: str = "r1", ago: float = 0.5, **changes: object) -> AccessRecord:
    spec: dict[str, object] = {
        "pod": {"name": "char-lm-worker-0", "uid": "uid-0"},
        "sealedRun": "char-lm",
        "action": "Exec",
        "username": "mallory",
        "command": ["cat", "/etc/hosts"],
        "container": "trainer",
        "allowed": True,
        "time": (START - timedelta(seconds=ago)).isoformat(),
        **changes,
    }
    return AccessRecord.parse(
        {
            "apiVersion": "trainseal.dev/v1alpha1",
            "kind": "AccessRecord",
            "metadata": {"name": name, "namespace": "research"},
            "spec": spec,
        }
    )


def runs(*argv: str) -> Process:
    return replace(SESSION, command=argv)


def who(session: Process, *records: AccessRecord) -> tuple[str, str] | None:
    found = explained(session, "trainer", records)
    return (found.record, found.how) if found else None


def test_the_record_of_the_same_command_just_before_explains_it() -> None:
    assert who(SESSION, record()) == ("r1", "command")


@pytest.mark.parametrize(
    "other",
    [
        record(action="Attach", command=None),
        record(action="PortForward", command=None, container=None),
        record(allowed=False),
        record(container="sidecar"),
        record(command=["cat", "/etc/passwd"]),
        record(ago=16),
        record(ago=-3),
    ],
    ids=["attach", "port-forward", "denied", "container", "command", "long ago", "after"],
)
def test_what_does_not_fit_explains_nothing(other: AccessRecord) -> None:
    assert who(SESSION, other) is None


@pytest.mark.parametrize("ago", [-1.5, 0, 14.9])
def test_clocks_may_differ_a_little_and_streams_take_a_while(ago: float) -> None:
    assert who(SESSION, record(ago=ago)) == ("r1", "command")


def test_of_one_container_the_record_need_not_name_it() -> None:
    assert who(SESSION, record(container=None)) == ("r1", "command")


def test_of_two_records_the_later_one_is_meant() -> None:
    early, late = record("early", 9, username="alice"), record("late", 1, username="bob")
    found = explained(SESSION, "trainer", [early, late])
    assert found
    assert (found.record, found.user, found.others) == ("late", "bob", ("alice",))


def test_a_script_runs_as_its_interpreter_with_its_path() -> None:
    asked = record(command=["report", "now"])
    assert who(runs("/bin/bash", "-e", "/app/report", "now"), asked) == ("r1", "command")
    assert who(runs("/bin/bash", "-e", "/app/other", "now"), asked) is None


def test_a_shell_that_runs_its_last_command_in_its_place_is_known() -> None:
    asked = record(command=["sh", "-c", "cd /tmp && X=1 exec python -m http.server > log"])
    how = "what its command runs"
    assert who(runs("python", "-m", "http.server"), asked) == ("r1", how)


def test_a_shell_that_ran_on_as_something_else_is_joined_by_time_if_it_is_the_only_one() -> None:
    asked = record(command=["bash"], tty=True)
    assert who(runs("python3"), asked) == ("r1", "time only")
    assert who(runs("python3"), asked, record("r2", 3, command=["sh"])) is None


def test_the_runtimes_helper_is_joined_with_nothing_before_it_becomes_the_program() -> None:
    asked = record(command=["bash"], tty=True)
    assert who(runs("runc", "init"), asked) is None
    assert who(runs("/proc/self/exe", "init"), asked) is None
    assert who(runs("bash"), asked) == ("r1", "command")


def test_a_program_that_cannot_run_on_as_another_is_not_joined_by_time() -> None:
    assert who(runs("python3"), record(command=["ls", "-l"])) is None


def test_a_long_command_is_compared_by_its_digest() -> None:
    argv = ("echo", *("x" * 40 for _ in range(90)))
    digest = sha256("".join(f"{w}\0" for w in argv).encode()).hexdigest()
    asked = record(command=list(argv[:64]), commandDigest=f"sha256:{digest}", truncated=["command"])
    assert who(runs(*argv), asked) == ("r1", "command")
    other = record(command=["echo"], commandDigest=f"sha256:{'0' * 64}")
    assert who(runs("echo", "y"), other) is None


def judge(
    session: Process,
    *records: AccessRecord,
    own: tuple[tuple[str, ...], ...] = (),
    after: timedelta = GRACE,
    current: bool = True,
    sessions: Sessions | None = None,
) -> str | None:
    lineage = Lineage((session,), session)
    found = (sessions or Sessions()).judge(
        lineage, CONTAINER, records, own, START + after, current=current
    )
    return found.finding.value if found else None


def test_a_record_explains_one_session_only() -> None:
    sessions, second = Sessions(), replace(SESSION, pid=4243)
    asked = record()
    assert judge(SESSION, asked, sessions=sessions) == "process.entered"
    assert judge(second, asked, sessions=sessions) == "process.unrecorded"
    assert judge(SESSION, asked, sessions=sessions) == "process.entered"


def test_who_opened_it_stays_though_it_runs_on_as_another_program() -> None:
    sessions, asked = Sessions(), record()
    assert judge(SESSION, asked, sessions=sessions) == "process.entered"
    assert judge(runs("python3"), asked, sessions=sessions) == "process.entered"


def test_asked_while_it_is_what_was_asked_for_it_is_known_among_others_of_that_moment() -> None:
    sessions = Sessions()
    shells = [record("r1", command=["sh", "-c", "a"]), record("r2", 3, command=["sh", "-c", "b"])]
    for session in (runs("sh", "-c", "b"), runs("python3")):
        sessions.opened_by(session, "trainer", shells, exactly=True)
    found = sessions.opened_by(runs("python3"), "trainer", shells)
    assert found is not None
    assert found.record == "r2"


def test_asked_exactly_no_record_is_used_up_by_a_guess() -> None:
    sessions, asked = Sessions(), record(command=["bash"], tty=True)
    assert sessions.opened_by(runs("python3"), "trainer", [asked], exactly=True) is None
    assert sessions.opened_by(runs("python3"), "trainer", [asked]) is not None


def test_a_record_may_come_a_moment_later_than_its_process() -> None:
    assert judge(SESSION, after=GRACE - timedelta(seconds=1)) is None
    assert judge(SESSION) == "process.unrecorded"


def test_while_records_are_behind_nobody_is_called_unrecorded_and_afterwards_they_are() -> None:
    later = timedelta(minutes=2)
    assert judge(SESSION, after=later, current=False) is None
    assert judge(SESSION, record(), after=later, current=False) == "process.entered"
    assert judge(SESSION, after=later) == "process.unrecorded"
    # No record would explain what came past the control group.
    outside = replace(SESSION, container_id=None)
    assert judge(outside, after=later, current=False) == "process.unrecorded"


def test_what_did_not_come_by_the_control_group_is_explained_by_no_record() -> None:
    for elsewhere in (None, "b2" * 32):
        session = replace(SESSION, container_id=elsewhere)
        assert judge(session, record(), after=timedelta()) == "process.unrecorded"


def test_a_session_that_ended_before_it_was_seen_as_its_program_is_explained_by_time() -> None:
    helper = runs("runc", "init")
    early, late = timedelta(seconds=1), GRACE + timedelta(seconds=1)
    mine, again, anothers = record(), record("r2", 3), record("r3", 2, username="ann")
    assert judge(helper, mine, after=early) is None, "it may yet be seen"
    assert judge(helper, mine, after=late) == "process.entered"
    assert judge(helper, mine, again, after=late) == "process.entered", "either is mallory's"
    assert judge(helper, mine, anothers, after=late) == "process.unrecorded", "whose it is?"
    assert judge(helper, record(ago=60), after=late) == "process.unrecorded"
    assert judge(replace(helper, container_id=None), mine, after=late) == "process.unrecorded"


def test_one_record_explains_one_such_session_and_no_second() -> None:
    sessions, helper = Sessions(), runs("runc", "init")
    another = replace(helper, pid=4243)
    assert sessions.opened_by(helper, "trainer", [record()], late=True)
    assert sessions.opened_by(another, "trainer", [record()], late=True) is None


def test_the_runtimes_helper_on_its_way_in_is_left_alone_and_not_for_long() -> None:
    helper = replace(runs("runc", "init"), container_id=None)
    assert judge(helper, after=timedelta(seconds=1)) is None
    assert judge(helper) == "process.unrecorded"


def test_a_descendant_of_the_first_process_is_no_session() -> None:
    found = Sessions().judge(Lineage((SESSION,)), CONTAINER, [], [], START + GRACE)
    assert found is None


TEMPLATE: JsonObject = {
    "name": "trainer",
    "livenessProbe": {"exec": {"command": ["cat", "/tmp/healthy"]}},
    "readinessProbe": {"exec": {"command": ["sh", "-c", "test -e /r && curl $(HOST):80"]}},
    "lifecycle": {"preStop": {"exec": {"command": ["/bin/stop.sh"]}}},
    "startupProbe": {"httpGet": {"port": 80}},
}


@pytest.mark.parametrize(
    "argv",
    [
        ("cat", "/tmp/healthy"),
        ("sh", "-c", "test -e /r && curl node:80"),
        ("curl", "node:80"),
        ("/bin/sh", "/bin/stop.sh"),
    ],
)
def test_probes_and_hooks_of_the_sealed_template_are_silent(argv: tuple[str, ...]) -> None:
    own = tuple(own_commands(TEMPLATE, {"HOST": "node"}))
    assert judge(runs(*argv), own=own) is None


def test_what_only_resembles_a_probe_is_not_silent() -> None:
    own = tuple(own_commands(TEMPLATE, {"HOST": "node"}))
    for argv in (("cat", "/tmp/healthy", "x"), ("sh", "-c", "evil"), ("curl", "evil:80")):
        assert judge(runs(*argv), own=own) == "process.unrecorded"


def test_a_probe_by_nsenter_is_not_the_kubelets() -> None:
    session = replace(runs("cat", "/tmp/healthy"), container_id=None)
    assert judge(session, own=(("cat", "/tmp/healthy"),)) == "process.unrecorded"


def test_a_word_that_the_shell_expands_may_be_any_one_word_but_never_the_program() -> None:
    assert becomes(("sh", "-c", 'ls "$DIR"'), ("ls", "/data"))
    assert not becomes(("sh", "-c", 'ls "$DIR"'), ("ls", "/data", "-l"))
    assert not becomes(("sh", "-c", '"$TOOL" x'), ("evil", "x"))


def test_a_text_of_several_lines_within_quotes_is_followed_to_its_command() -> None:
    text = "date +%s; exec python3 -c '\nimport time\ntime.sleep(9)\n'"
    argv = ("python3", "-c", "\nimport time\ntime.sleep(9)\n")
    assert becomes(("sh", "-c", text), argv)
    assert not becomes(("sh", "-c", text), ("python3", "-c", "\nimport os\n"))
