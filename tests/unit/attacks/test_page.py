"""The page of detections tells apart what is missed by design and what was missed in a run."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.case import Case, Finding, Missed, NotTried
from tests.attacks.ledger import Ledger, Random
from tests.attacks.schedule import make
from trainseal.agent.observed import FOUND_BY, LOOKING

EDIT = Case("Code", "edited", "T1554", Finding("file.changed", "/a.py"))
UPPER = Case("Code", "put there from the node", "T1554", Finding("file.changed", "/b.py", by=""))
MOMENT = Case("Code", "ptrace for a moment", "T1055", Missed("it is over between two sweeps"))
GPU = Case("Code", "foreign process on the GPU", "T1496", NotTried("a GPU"))


@pytest.fixture
def ledger() -> Ledger:
    """Of a run in which all went as it must."""
    found = Ledger(cases=(EDIT, UPPER, MOMENT, GPU), random=Random(make(7), came_to_its_end=True))
    found.after = {EDIT.key: 0.1, UPPER.key: 9.9, MOMENT.key: None}
    found.found(UPPER, {"evidence": {FOUND_BY: LOOKING}})
    found.found(EDIT, {"evidence": {"digest": "sha256:1"}})
    assert found.random is not None
    found.random.archived = len(found.random.schedule.acts)
    return found


def page(ledger: Ledger, tmp_path: Path) -> str:
    file = tmp_path / "detection.md"
    ledger.write(file)
    return file.read_text() if file.exists() else ""


def test_what_is_missed_by_design_is_no_miss_of_the_run(ledger: Ledger, tmp_path: Path) -> None:
    text = page(ledger, tmp_path)
    assert "| missed by design | 1 |" in text
    assert "| missed in this run | 0 |" in text
    assert "**missed by design**: it is over between two sweeps" in text
    ledger.instead[EDIT.key] = "see the run's log"
    text = page(ledger, tmp_path)
    assert "| missed in this run | 1 |" in text
    assert "**missed in this run**: see the run's log" in text
    assert "| seen or refused | 1 (33%) |" in text


def test_what_was_found_by_looking_is_no_event(ledger: Ledger, tmp_path: Path) -> None:
    text = page(ledger, tmp_path)
    assert "events of files and programs | 0.1 s (1 acts, longest 0.1 s)" in text
    assert "sweeps and walks, every ten seconds | 9.9 s (1 acts, longest 9.9 s)" in text


def test_of_a_run_in_which_something_was_left_out_no_page_is_written(
    ledger: Ledger, tmp_path: Path
) -> None:
    kept = ledger.random
    ledger.random = None
    assert page(ledger, tmp_path) == ""
    ledger.random = kept
    del ledger.after[MOMENT.key]
    assert page(ledger, tmp_path) == ""


def test_acts_at_random_are_counted_with_their_seed(ledger: Ledger, tmp_path: Path) -> None:
    text = page(ledger, tmp_path)
    assert "--seed 7" in text
    assert "| exactly one finding | 48 |" in text
    assert "| lost | none |" in text
    assert ledger.random is not None
    ledger.random.lost = ["edit 3 by exec"]
    ledger.random.archived -= 1
    assert ledger.random.failures() == {"lost": ["edit 3 by exec"], "not in the archive": 1}
    assert "| lost | edit 3 by exec |" in page(ledger, tmp_path)
    ledger.random.came_to_its_end = False
    assert "did not come to its end in this run" in page(ledger, tmp_path)
