"""Every command of a page is carried out by a test, or stands with the reason why by none."""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

from tests.guides.ledger import elsewhere, entries, one_line
from tests.guides.pages import GUIDES, ROOT, Typed, commands, read

SUITES = sorted(ROOT.glob("tests/e2e/test_*.py"))
WALKS = (*SUITES, ROOT / "tests/guides/tutorial.py")


@cache
def walked() -> frozenset[str]:
    """The pages that a walk is made through: they stand there as literals."""
    return frozenset(
        node.value
        for walk in WALKS
        for node in ast.walk(ast.parse(walk.read_text()))
        if isinstance(node, ast.Constant) and node.value in GUIDES
    )


def unaccounted(page: str, text: str, *, walk: bool) -> list[str]:
    """The page's commands that nothing carries out and no reason excuses."""
    found = [one_line(step.command) for step in commands(text)]
    return [] if walk else [command for command in found if not elsewhere(page, command)]


@pytest.mark.parametrize("page", GUIDES)
def test_every_command_of_a_page_is_run_by_a_test_or_excused_with_a_reason(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    assert unaccounted(page, text, walk=page in walked()) == []


def test_no_entry_is_of_a_command_that_a_page_no_longer_has() -> None:
    found = {
        (page, one_line(s.command)) for page in GUIDES for s in read(page) if isinstance(s, Typed)
    }
    assert [e for e in entries() if (e.page, e.command) not in found] == []


def test_every_entry_has_a_test_or_a_reason_and_not_both() -> None:
    assert [e for e in entries() if bool(e.test) == bool(e.reason)] == []


@pytest.mark.parametrize("test", sorted({entry.test for entry in entries() if entry.test}))
def test_every_test_that_an_entry_names_is_there(test: str) -> None:
    path, _, name = test.partition("::")
    tree = ast.parse((ROOT / path).read_text())
    assert name in {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_a_command_that_a_page_gains_is_unaccounted_for_where_no_walk_runs_it() -> None:
    page = "how-to/engines.md"
    text = (ROOT / "docs" / page).read_text() + "\n    $ kubectl get pods\n"
    assert unaccounted(page, text, walk=False) == ["kubectl get pods"]
    assert unaccounted(page, text, walk=True) == []


def test_a_walk_leaves_out_what_stands_here_and_nothing_else() -> None:
    page = "how-to/engines.md"
    assert elsewhere(page, "kubectl get jobset,jobs \\\n  -n research -o name")
    assert not elsewhere(page, "kubectl get jobset")
    assert not elsewhere("tutorial.md", "kubectl get jobset,jobs -n research")


def test_suites_are_found() -> None:
    assert Path(ROOT, "tests/e2e/test_guides.py") in SUITES
