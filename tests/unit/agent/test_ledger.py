"""Findings of one pod: the same one counts up, bounds hold, a restart repeats nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainseal.agent.ledger import Ledger, Person, finding_of, key_of, places_of
from trainseal.agent.observed import FOUND_BY, LOOKING, Lineage, Observation, Process
from trainseal.api.driftreport import DriftReportStatus
from trainseal.api.findings import FindingId
from trainseal.api.model import JsonObject

NOW = datetime(2026, 11, 1, tzinfo=UTC)
SHELL = Process(4711, 1, NOW, "/usr/bin/sed", ("sed", "-i", "s/a/b/"), 1000, "c" * 64)


def seen(path: str = "/usr/lib/python3/torch/optim/sgd.py", **changes: object) -> Observation:
    fields: dict[str, object] = {
        "finding": FindingId.FILE_CHANGED,
        "message": "changed",
        "path": path,
        "lineage": Lineage((SHELL,), session=SHELL),
    }
    return Observation(**(fields | changes))  # type: ignore[arg-type]


def add(ledger: Ledger, observation: Observation, now: datetime = NOW) -> bool:
    key = key_of("trainer", observation)
    return ledger.again(key, now) or ledger.add(
        finding_of("trainer", observation, now, key),
        observation.lineage.session if observation.lineage else None,
    )


def written(ledger: Ledger) -> JsonObject:
    return {"findings": [f.wire() for f in ledger.findings()], "dropped": ledger.dropped}


def test_the_same_thing_seen_again_counts_up_and_keeps_its_first_time() -> None:
    ledger = Ledger()
    add(ledger, seen())
    add(ledger, seen(message="changed once more"), NOW + timedelta(seconds=5))
    (found,) = ledger.findings()
    assert (found.count, found.first_time) == (2, NOW)
    assert found.last_time == NOW + timedelta(seconds=5)


@pytest.mark.parametrize(
    "other",
    [
        {"path": "/usr/lib/python3/torch/optim/adam.py"},
        {"finding": FindingId.IMPORT_CHANGED},
        {"lineage": Lineage((Process(1, 0, NOW, "/usr/bin/vim", (), 0, None),))},
        {"subject": "something else"},
    ],
)
def test_another_path_id_program_or_subject_is_another_finding(other: dict[str, object]) -> None:
    assert key_of("trainer", seen()) != key_of("trainer", seen(**other))  # type: ignore[arg-type]


def test_another_container_is_another_finding() -> None:
    assert key_of("trainer", seen()) != key_of("sidecar", seen())


def test_a_subject_stands_for_path_and_program() -> None:
    one = key_of("trainer", seen(subject="queue"))
    assert one == key_of("trainer", seen(path="/elsewhere", lineage=None, subject="queue"))


def test_beyond_the_bound_findings_are_counted_not_listed() -> None:
    ledger = Ledger(most=3)
    for number in range(10):
        add(ledger, seen(f"/file-{number}"))
    assert [f.path for f in ledger.findings()] == ["/file-0", "/file-1", "/file-2"]
    assert ledger.dropped == 7


def test_a_flood_of_small_findings_hides_no_severe_one() -> None:
    ledger = Ledger(most=3)
    for number in range(10):
        add(ledger, seen(f"/tmp-{number}", finding=FindingId.FILE_CREATED))
    assert ledger.has_room("Critical")
    assert not ledger.has_room("Warning")
    add(ledger, seen("/usr/lib/python3/torch/optim/sgd.py"))
    assert [f.path for f in ledger.findings()][-1] == "/usr/lib/python3/torch/optim/sgd.py"
    assert len(ledger) == 3


@given(st.lists(st.tuples(st.sampled_from(FindingId), st.integers(0, 40)), max_size=80))
def test_no_order_of_findings_breaks_the_bounds(order: list[tuple[FindingId, int]]) -> None:
    ledger = Ledger(most=8, most_bytes=4000)
    for finding, number in order:
        add(ledger, seen(f"/file-{number}", finding=finding, difference="+" * (number * 40)))
        DriftReportStatus.model_validate(written(ledger))
        assert len(ledger) <= 8
        assert len(str([f.model_dump_json() for f in ledger.findings()])) < 9000


def test_what_an_earlier_agent_wrote_counts_on() -> None:
    before = Ledger(most=2)
    for path in ("/a", "/a", "/b", "/c"):
        add(before, seen(path))
    later = Ledger(most=8)
    add(later, seen("/d"), NOW + timedelta(minutes=1))
    add(later, seen("/a"), NOW + timedelta(minutes=1))
    later.take_over(written(before))
    assert [(f.path, f.count) for f in later.findings()] == [("/a", 3), ("/b", 1), ("/d", 1)]
    assert later.dropped == 1
    first = next(later.findings())
    assert (first.first_time, first.last_time) == (NOW, NOW + timedelta(minutes=1))


def test_a_walk_that_finds_the_trace_of_a_known_act_is_no_new_finding() -> None:
    before = Ledger()
    add(before, seen("/a"))
    trace = seen("/a", lineage=None)
    assert before.again(key_of("trainer", trace), NOW, places_of("trainer", trace))
    # Nor where the walk was quicker than reading what is known since before a restart.
    later = Ledger()
    add(later, trace)
    add(later, seen("/b", lineage=None))
    later.take_over(written(before))
    assert [(f.path, f.count) for f in later.findings()] == [("/a", 3), ("/b", 1)]


@pytest.mark.parametrize(
    ("told", "trace", "evidence"),
    [
        (FindingId.FILE_RENAMED, FindingId.FILE_CHANGED, {"digest": "sha256:1"}),
        (FindingId.FILE_RENAMED, FindingId.IMPORT_CHANGED, {}),
        (FindingId.FILE_RENAMED, FindingId.FILE_CREATED, {}),
        (FindingId.FILE_CHANGED, FindingId.FILE_ATTRIBUTES, {"time": "signed 1, now 2"}),
        (FindingId.FILE_RENAMED, FindingId.FILE_ATTRIBUTES, {"time": "signed 1, now 2"}),
        (FindingId.BYTECODE_MISMATCH, FindingId.FILE_ATTRIBUTES, {"time": "signed 1, now 2"}),
    ],
)
def test_a_trace_that_is_called_otherwise_than_its_act_is_no_new_finding(
    told: FindingId, trace: FindingId, evidence: dict[str, str]
) -> None:
    before = Ledger()
    add(before, seen("/a", finding=told))
    walked = seen("/a", finding=trace, lineage=None, evidence={**evidence, FOUND_BY: LOOKING})
    assert before.again(key_of("trainer", walked), NOW, places_of("trainer", walked))
    later = Ledger()
    add(later, walked)
    later.take_over(written(before))
    assert [(f.id, f.count) for f in later.findings()] == [(told.value, 3)]


@pytest.mark.parametrize(
    ("told", "found", "evidence"),
    [
        (FindingId.FILE_CHANGED, FindingId.FILE_ATTRIBUTES, {"mode": "0666", "time": "2"}),
        (FindingId.FILE_ATTRIBUTES, FindingId.FILE_CHANGED, {}),
        (FindingId.FILE_CHANGED, FindingId.FILE_REMOVED, {}),
    ],
)
def test_what_a_walk_finds_beyond_what_was_told_is_a_finding_of_its_own(
    told: FindingId, found: FindingId, evidence: dict[str, str]
) -> None:
    ledger = Ledger()
    add(ledger, seen("/a", finding=told))
    walked = seen("/a", finding=found, lineage=None, evidence={**evidence, FOUND_BY: LOOKING})
    assert not ledger.again(key_of("trainer", walked), NOW, places_of("trainer", walked))


def test_somebody_elses_act_at_the_same_place_is_a_finding_of_its_own() -> None:
    ledger = Ledger()
    add(ledger, seen("/a"))
    other = seen("/a", lineage=Lineage((Process(1, 0, NOW, "/usr/bin/vim", (), 0, None),)))
    assert not ledger.again(key_of("trainer", other), NOW, places_of("trainer", other))


def test_a_status_that_is_none_is_written_over() -> None:
    ledger = Ledger()
    add(ledger, seen())
    ledger.take_over({"findings": [{"id": "no"}]})
    assert len(ledger) == 1


def test_a_name_that_is_known_later_is_added() -> None:
    ledger = Ledger()
    add(ledger, seen())
    assert not ledger.name_people(lambda *_: None)
    assert ledger.name_people(
        lambda finding, session: (
            Person("mallory@example.org", "exec-1")
            if (finding.container, session) == ("trainer", SHELL)
            else None
        )
    )
    (found,) = ledger.findings()
    assert (found.user, found.access_record) == ("mallory@example.org", "exec-1")
    assert "named by" not in (found.evidence or {})


def test_who_is_named_for_another_reason_than_the_process_is_named_with_that_reason() -> None:
    ledger = Ledger()
    add(ledger, seen(lineage=None))
    ledger.name_people(lambda *_: Person("mallory@example.org", "exec-1", "time"))
    (found,) = ledger.findings()
    assert (found.user, (found.evidence or {})["named by"]) == ("mallory@example.org", "time")


def test_who_stopped_a_process_is_not_the_process_and_is_asked_for() -> None:
    ledger = Ledger()
    trainer = Lineage((Process(1, 0, NOW, "/usr/bin/python3", (), 0, None),))
    add(ledger, seen(finding=FindingId.PROCESS_STOPPED, lineage=trainer))
    assert ledger.name_people(lambda *_: Person("mallory@example.org", "exec-1", "time"))
    (found,) = ledger.findings()
    assert found.user == "mallory@example.org"
    assert found.processes, "it is still said whom it was done to"


def test_what_the_trainer_did_itself_is_put_to_nobodys_account() -> None:
    ledger = Ledger()
    itself = Lineage((Process(1, 0, NOW, "/usr/bin/python3", (), 0, None),))
    add(ledger, seen(lineage=itself))
    assert not ledger.name_people(lambda *_: Person("mallory@example.org", "exec-1"))


@given(st.binary(max_size=3000), st.text(max_size=12000))
def test_whatever_a_file_is_called_and_however_it_differs_it_fits_the_report(
    name: bytes, difference: str
) -> None:
    path = "/" + name.decode("utf-8", "surrogateescape")
    written = seen(path, difference=difference)
    found = finding_of("trainer", written, NOW, key_of("trainer", written))
    DriftReportStatus(findings=[found])
    found.model_dump_json().encode()


def test_a_command_line_stands_there_without_its_secrets() -> None:
    words = ("python3", "fetch.py", "--token", "s3cr3t-of-alice")
    itself = Lineage((Process(4711, 1, NOW, "/usr/bin/python3", words, 1000, None),))
    done = seen(lineage=itself)
    found = finding_of("trainer", done, NOW, key_of("trainer", done))
    assert found.processes
    assert found.processes[0].command == ["python3", "fetch.py", "--token", "(15 characters)"]


def test_evidence_is_asked_for_once_whatever_came_of_it() -> None:
    ledger = Ledger()
    add(ledger, seen())
    key = key_of("trainer", seen())
    asked = ledger.unasked(key)
    assert asked is not None
    assert asked.key == key
    add(ledger, seen())
    assert ledger.unasked(key) is None
    assert ledger.unasked("0" * 16) is None


def test_after_a_restart_evidence_that_was_written_is_not_asked_for_again() -> None:
    first = Ledger()
    for path in ("/a", "/b"):
        add(first, seen(path))
    kept, lost = (key_of("trainer", seen(path)) for path in ("/a", "/b"))
    first.keep(kept, "item-1")
    first.evidence_dropped = 1
    second = Ledger()
    second.take_over(written(first) | {"evidenceDropped": first.evidence_dropped})
    assert second.kept() == {kept}
    assert second.unasked(kept) is None
    # What was not written before it may be taken when it is seen again.
    assert second.unasked(lost) is not None
    assert second.evidence_dropped == 1
    assert [f.evidence_item for f in second.findings()] == ["item-1", None]


def test_what_a_walk_finds_after_a_restart_is_said_to_be_the_finding_of_before() -> None:
    first, second = Ledger(), Ledger()
    add(first, seen())
    walked = seen(lineage=None)
    add(second, walked)
    second.unasked(key_of("trainer", walked))
    same = second.take_over(written(first))
    assert {k: f.key for k, f in same.items()} == {
        key_of("trainer", walked): key_of("trainer", seen())
    }
    assert second.unasked(key_of("trainer", seen())) is None


# Whose act, and when ---------------------------------------------------------------------------

LATER = NOW + timedelta(minutes=5)
ANN, MALLORY = Person("ann", "exec-ann"), Person("mallory", "exec-mallory")
MALLORYS = replace(SHELL, pid=4800, started=LATER)
WHO = {SHELL.pid: ANN, MALLORYS.pid: MALLORY}


def by(session: Process | None, process: Process | None = None, **changes: Any) -> Observation:
    return seen(lineage=Lineage((process or session or SHELL,), session=session), **changes)


def key_in(
    ledger: Ledger,
    act: Observation,
    *,
    who: Mapping[int, Person] = WHO,
    now: datetime = LATER,
    thawed: datetime | None = None,
) -> str:
    key = key_of("trainer", act)
    return ledger.key_of_act(key, act, now, lambda _, session: who.get(session.pid), thawed)


@pytest.fixture
def anns() -> Ledger:
    """A ledger with a file that ann changed by a session of hers."""
    ledger = Ledger()
    add(ledger, by(SHELL))
    ledger.name_people(lambda _, session: ANN if session is not None else None)
    return ledger


def told(anns: Ledger) -> str:
    (finding,) = anns.findings()
    return finding.key


def test_what_one_person_does_again_counts_up(anns: Ledger) -> None:
    assert key_in(anns, by(SHELL)) == told(anns)


def test_another_persons_act_by_the_same_program_is_a_finding_of_its_own(anns: Ledger) -> None:
    key = key_in(anns, by(MALLORYS))
    assert key != told(anns)
    assert key_in(anns, by(MALLORYS)) == key


def test_after_a_restart_the_session_of_before_counts_up_and_anothers_does_not(
    anns: Ledger,
) -> None:
    replaced = Ledger()
    replaced.take_over(written(anns))
    assert key_in(replaced, by(SHELL)) == told(anns)
    assert key_in(replaced, by(MALLORYS)) == key_in(anns, by(MALLORYS)) != told(anns)


def test_a_program_that_outlived_its_session_is_no_new_finding_after_a_restart() -> None:
    ledger, replaced = Ledger(), Ledger()
    add(ledger, by(SHELL, subject="/tmp/miner"))
    ledger.name_people(lambda _, __: ANN)
    replaced.take_over(written(ledger))
    assert key_in(replaced, by(None, subject="/tmp/miner")) == told(ledger)


def test_a_name_that_came_late_makes_no_second_finding() -> None:
    ledger = Ledger()
    add(ledger, by(SHELL))
    assert key_in(ledger, by(SHELL)) == told(ledger)


def test_who_writes_what_the_pods_own_process_wrote_does_not_hide_behind_it() -> None:
    ledger = Ledger()
    add(ledger, by(None))
    assert key_in(ledger, by(MALLORYS)) != told(ledger)
    assert key_in(ledger, by(None)) == told(ledger)


def test_what_the_pods_own_process_does_is_not_put_to_the_account_of_a_person(
    anns: Ledger,
) -> None:
    assert key_in(anns, by(None)) != told(anns)


def test_a_session_that_no_record_explains_counts_up(anns: Ledger) -> None:
    """It is a finding itself; the kubelet's probes are not, and come every few seconds."""
    assert key_in(anns, by(MALLORYS), who={}) == told(anns)


def test_the_trace_that_a_walk_finds_is_nobodys_new_act(anns: Ledger) -> None:
    found = by(MALLORYS, evidence={FOUND_BY: LOOKING})
    assert key_in(anns, found) == told(anns)


def test_what_a_person_does_once_the_pod_was_let_go_on_is_a_new_finding(anns: Ledger) -> None:
    thawed = NOW + timedelta(minutes=1)
    key = key_in(anns, by(SHELL), thawed=thawed)
    assert key != told(anns)
    again = NOW + timedelta(minutes=6)
    assert key_in(anns, by(SHELL), now=again, thawed=thawed) == key
    assert key_in(anns, by(SHELL), now=again, thawed=LATER) not in {key, told(anns)}


def test_the_rest_of_a_write_that_the_freeze_interrupted_is_no_new_finding(anns: Ledger) -> None:
    thawed = NOW + timedelta(minutes=1)
    at_once = thawed + timedelta(seconds=1)
    assert key_in(anns, by(SHELL), now=at_once, thawed=thawed) == told(anns)
    begun = replace(SHELL, pid=4712, started=at_once)
    assert key_in(anns, by(SHELL, begun), now=at_once, thawed=thawed) != told(anns)


def test_what_a_sweep_tells_while_it_lasts_is_not_new_after_each_thaw() -> None:
    ledger, runs = Ledger(), by(SHELL, subject="/tmp/miner")
    add(ledger, runs)
    ledger.name_people(lambda _, __: ANN)
    thawed = NOW + timedelta(minutes=1)
    assert key_in(ledger, runs, thawed=thawed) == told(ledger)
    begun = replace(SHELL, pid=4712, started=LATER)
    assert key_in(ledger, by(SHELL, begun, subject="/tmp/miner"), thawed=thawed) != told(ledger)
