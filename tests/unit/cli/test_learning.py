"""`trainseal drift learn`: what is proposed covers what was found, and nothing elsewhere."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.cli.conftest import Run
from tests.unit.cli.test_drift import ARGUMENTS, Stage, finding, report, stage
from tests.unit.world import NOW
from trainseal.api.driftreport import Finding, ProcessRecord
from trainseal.api.findings import FINDINGS, FindingId
from trainseal.api.model import JsonObject
from trainseal.api.policy import DriftRules
from trainseal.cli.driftview import Found, RunFindings
from trainseal.cli.learning import Proposal, as_yaml, propose, signed_places
from trainseal.provenance.drift import Seen, compile_drift, excepted_by

__all__ = ["stage"]  # a fixture

PYTHON = "/usr/bin/python3.11"
CREATED = FindingId.FILE_CREATED
CRITICAL = [i for i, kind in FINDINGS.items() if kind.severity == "Critical"]


def found(
    path: str | None,
    id_: str = CREATED,
    program: str | None = PYTHON,
    *,
    reporter: str = "Agent",
    counts: bool = True,
    **changed: Any,
) -> Found:
    kind = next((FINDINGS[i] for i in FindingId if i == id_), None)
    fields: dict[str, Any] = {
        "id": id_,
        "key": "0123456789abcdef",
        "severity": kind.severity if kind else "Warning",
        "first_time": NOW,
        "last_time": NOW + timedelta(seconds=1),
        "count": 1,
        "path": path,
        "message": "made",
        "processes": [ProcessRecord(pid=1, executable=program)] if program else None,
    }
    return Found("r", reporter, "p", "node-1", Finding(**fields | changed), counts)


def seal(*read_only: str) -> JsonObject:
    mounts: list[Any] = [{"name": "m", "mountPath": p, "readOnly": True} for p in read_only]
    mounts.append({"name": "scratch", "mountPath": "/tmp"})
    pod: JsonObject = {"spec": {"containers": [{"name": "trainer", "volumeMounts": mounts}]}}
    return {
        "metadata": {"name": "char-lm-1"},
        "spec": {"roles": [{"name": "worker", "template": pod}]},
    }


def run(*items: Found, signed: Sequence[str] = ("/workspace", "/etc/training")) -> RunFindings:
    return RunFindings("research", "char-lm", seal(*signed), items, 0, 0, ())


def paths(proposal: Proposal) -> list[list[str]]:
    return [p.exception.paths or [] for p in proposal.proposed]


def learnt(*files: str) -> list[list[str]]:
    return paths(propose(run(*map(found, files))))


def test_many_files_of_one_program_below_one_directory_are_one_pattern() -> None:
    files = [f"/root/.triton/cache/{n:x}/kernel.so" for n in range(20)]
    (made,) = propose(run(*map(found, files))).proposed
    assert made.exception.paths == ["/root/.triton/cache/**"]
    assert made.exception.executables == [PYTHON]
    assert made.exception.findings == [CREATED]
    assert made.directory == "/root/.triton/cache"
    assert "WRITE HERE why it is harmless" in made.exception.reason
    assert "20 findings on research/char-lm-1" in made.exception.reason


@pytest.mark.parametrize(
    ("files", "patterns"),
    [
        (["/root/.a/x", "/root/.b/y"], [["/root/.a/x"], ["/root/.b/y"]]),
        (["/srv/app/x", "/srv/app/y", "/srv/app/z"], [["/srv/app/x", "/srv/app/y", "/srv/app/z"]]),
        ([f"/srv/app/log-{n}.txt" for n in "abcd"], [["/srv/app/log-*.txt"]]),
        ([f"/srv/app/{n}" for n in "abcd"], [["/srv/app/*"]]),
        ([f"/var/tmpx{n}" for n in "abcd"], [["/var/tmpx*"]]),
        ([f"/var/{n}" for n in "abcd"], [[f"/var/{n}"] for n in "abcd"]),
        ([f"/var/tmp{n}/f" for n in "abcd"], [["/var/tmp*/**"]]),
        ([f"/home/u/.x/{n}/f" for n in "abcd"], [["/home/u/.x/**"]]),
        ([f"/home/u{n}/f" for n in "abcd"], [[f"/home/u{n}/f"] for n in "abcd"]),
    ],
)
def test_patterns_are_no_wider_than_what_was_seen(
    files: list[str], patterns: list[list[str]]
) -> None:
    assert learnt(*files) == patterns


def test_where_signed_code_may_lie_each_file_is_named_or_none() -> None:
    for place in ("/usr/lib/python3/dist-packages/torch", "/workspace/pkg", "/etc/training"):
        files = [f"{place}/{n:02}.log" for n in range(32)]
        assert learnt(*files) == [files]
        proposal = propose(run(*map(found, [*files, f"{place}/33.log"])))
        assert proposal.proposed == ()
        assert "scratch mount" in proposal.left[0].why
        assert proposal.left[0].count == 33


def test_another_program_or_finding_is_another_exception() -> None:
    one, other = found("/srv/app/x"), found("/srv/app/x", program="/bin/sh")
    third = found("/srv/app/x", FindingId.BYTECODE_WRITTEN)
    proposal = propose(run(one, other, third))
    assert [p.found for p in proposal.proposed] == [(third,), (other,), (one,)]
    assert len({p.exception.name for p in proposal.proposed}) == 3


def test_a_finding_without_a_program_is_covered_whoever_did_it_and_the_reason_says_so() -> None:
    (made,) = propose(run(found("/srv/app/x", program=None))).proposed
    assert made.exception.executables is None
    assert "any is covered" in made.exception.reason


@pytest.mark.parametrize("id_", CRITICAL)
def test_what_is_critical_is_proposed_only_where_it_is_asked_for(id_: FindingId) -> None:
    view = run(found("/srv/app/x", id_))
    (left,) = propose(view).left
    assert f"`--also {id_}`" in left.why
    assert propose(view, [other for other in CRITICAL if other != id_]).proposed == ()
    (made,) = propose(view, [id_]).proposed
    assert made.exception.findings == [id_]


@pytest.mark.parametrize(
    ("item", "why"),
    [
        (found("/srv/x", user="mallory@example.org"), "a person's session"),
        (found("/srv/x", access_record="exec-1"), "a person's session"),
        (found("/srv/x", counts=False), "does not believe"),
        (found("/srv/x", FindingId.OBJECT_DELETED, reporter="Controller"), "the controller"),
        (found("/srv/x", "later.kind"), "does not know it"),
        (found(None), "names no file"),
        (found("/srv/*"), "cannot stand in a pattern"),
        (found("/srv/\x1b[2J"), "cannot stand in a pattern"),
        (found("/srv/\\udc80"), "cannot stand in a pattern"),
        (found("/srv/../x"), "cannot stand in a pattern"),
        (found("/srv/" + "x" * 600), "cannot stand in a pattern"),
        (found("/srv/x", program="/bin/*"), "its program cannot"),
    ],
)
def test_what_is_never_proposed_says_why(item: Found, why: str) -> None:
    proposal = propose(run(item), CRITICAL)
    assert proposal.proposed == ()
    assert why in proposal.left[0].why


def test_no_more_are_proposed_than_a_policy_holds() -> None:
    view = run(*(found(f"/d{n:03}/x/f") for n in range(70)), signed=("/d",))
    proposal = propose(view)
    rules = DriftRules(exceptions=[p.exception for p in proposal.proposed])
    assert len(rules.exceptions or ()) <= 64
    named = propose(run(*(found("/srv/x", program=f"/bin/{n}") for n in range(70))))
    assert len(named.proposed) == 64
    assert named.left[0].count == 6


_names = st.text("abt.-é ", min_size=1, max_size=3).filter(lambda n: n not in (".", ".."))
_roots = ["/tmp", "/tmp/abc", "/root", "/home/u", "/usr/lib", "/workspace", "/srv/a/b", ""]


@st.composite
def _runs(draw: st.DrawFn) -> list[Found]:
    """Findings, many of them of one kind and place."""
    roots = draw(st.lists(st.sampled_from(_roots), min_size=1, max_size=2, unique=True))
    depth = draw(st.integers(1, 3))
    parts = st.lists(_names, min_size=draw(st.integers(1, depth)), max_size=depth)
    files = st.builds(lambda root, p: "/".join([root, *p]), st.sampled_from(roots), parts)
    ids = st.sampled_from([CREATED, FindingId.MAP_FOREIGN])
    items = st.builds(found, files, ids, st.sampled_from([PYTHON, None]))
    many = st.builds(found, files)
    return [*draw(st.lists(many, min_size=5, max_size=30)), *draw(st.lists(items, max_size=10))]


def _near(path: str) -> list[str]:
    """Paths that differ in one part, or have one more."""
    parts = path.split("/")[1:]
    others = [[*parts[:n], "zz", *parts[n + 1 :]] for n in range(len(parts))]
    return ["/" + "/".join(p) for p in [*others, [*parts, "zz"], ["zz", *parts]]]


@given(_runs())
def test_what_is_proposed_covers_what_it_was_made_from_and_nothing_elsewhere(
    items: list[Found],
) -> None:
    view = run(*items)
    proposal = propose(view, [FindingId.MAP_FOREIGN])
    assert sum(len(p.found) for p in proposal.proposed) + sum(
        x.count for x in proposal.left
    ) == len(items)
    all_ = {str(item.finding.path) for item in items}
    for made in proposal.proposed:
        policy = compile_drift(DriftRules(exceptions=[made.exception]))
        (id_,) = made.exception.findings
        for item in made.found:
            program = item.finding.processes[0].executable if item.finding.processes else None
            assert excepted_by(Seen(id_, item.finding.path, program), [policy])
        seen = {str(item.finding.path) for item in made.found}
        program = made.exception.executables[0] if made.exception.executables else None
        for path in {*all_, *(near for found_ in seen for near in _near(found_))} - seen:
            if excepted_by(Seen(id_, path, program), [policy]):
                assert path.startswith(made.directory.rstrip("/") + "/")
                assert not path.startswith(("/usr/", *(f"{p}/" for p in signed_places(view.seal))))
        for elsewhere in FindingId:
            if elsewhere != id_:
                assert not excepted_by(Seen(elsewhere, min(seen), program), [policy])


@given(st.lists(st.builds(found, st.text(max_size=20).map(lambda t: f"/srv/{t}")), max_size=8))
def test_no_name_of_a_file_breaks_out_of_the_yaml(items: list[Found]) -> None:
    view = run(*items)
    proposal = propose(view)
    text = "\n".join(as_yaml(view, proposal))
    assert text.isprintable() or set(text) - {c for c in text if c.isprintable()} == {"\n"}
    assert yaml.safe_load(text) == [p.exception.wire() for p in proposal.proposed]


def test_what_is_printed_can_be_put_into_a_policy(trainseal: Run, stage: Stage) -> None:
    quiet = {"user": None, "accessRecord": None, "id": "file.created", "severity": "Warning"}
    stage.found(report(*(finding(**quiet, path=f"/root/.triton/cache/{n}/k.so") for n in range(5))))
    answer = trainseal("drift", "learn", "char-lm", *ARGUMENTS)
    assert (answer.code, answer.err) == (0, "")
    (exception,) = yaml.safe_load(answer.out)
    assert DriftRules.model_validate({"exceptions": [exception]}).exceptions
    assert exception["paths"] == ["/root/.triton/cache/**"]
    assert exception["executables"] == ["/usr/bin/sed"]
    value = json.loads(trainseal("drift", "learn", "char-lm", "-o", "json", *ARGUMENTS).out)
    assert value["exceptions"] == [exception]


def test_what_is_left_is_shown_and_ends_with_1(trainseal: Run, stage: Stage) -> None:
    stage.found(report(finding()))
    answer = trainseal("drift", "learn", "char-lm", *ARGUMENTS)
    assert answer.code == 1
    assert yaml.safe_load(answer.out) == []
    assert "critical findings" in answer.out
    assert "file.changed (1): a person's session did it" in answer.out
    assert "/usr/lib/python3/torch/optim/adam.py" in answer.out


def test_an_id_that_is_none_is_a_wrong_use(trainseal: Run, stage: Stage) -> None:
    answer = trainseal("drift", "learn", "char-lm", "--also", "file.chnged", *ARGUMENTS)
    assert answer.code == 64
    assert "--kinds" in answer.err


def test_a_job_may_be_named_with_and_without_show(trainseal: Run, stage: Stage) -> None:
    assert trainseal("drift", "show", "char-lm", *ARGUMENTS).code == 0
    assert trainseal("drift", *ARGUMENTS, "char-lm").code == 0
    assert "learn" in trainseal("drift", "--help").out
    assert "drift learn char-lm --also" not in trainseal("drift", "--help").out
    assert "--also" in trainseal("drift", "learn", "--help").out
