"""What the documents say of the code is what the code says."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guides.pages import commands
from tests.unit.cli.commandlines import calls, problem

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "operator" / "trainseal"
DOCUMENTS = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")
] + sorted((ROOT / "docs").rglob("*.md"))

#: Calls that make a verdict or a refusal, and which of their arguments is the reason.
REASONS_IN = {"refuted": 0, "undetermined": 0, "Refusal": 0, "refuse": 3, "Verdict": 4}
_REASON = re.compile(r"[A-Z][A-Za-z]+")
_METRIC = re.compile(r"\btrainseal_[a-z_]+[a-z]\b")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_CODE = re.compile(r"^```.*?^```|`[^`\n]+`", flags=re.MULTILINE | re.DOTALL)


def reasons() -> set[str]:
    """Every reason that stands literally in a call that makes a verdict, or in an error's class."""
    return {
        reason
        for layer in ("provenance", "registry", "verifier")
        for path in (PACKAGE / layer).glob("*.py")
        for reason in _reasons_in(path)
    }


def _reasons_in(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            at = REASONS_IN.get(node.func.id)
            if at is not None and len(node.args) > at:
                yield from _literals(node.args[at])
        elif (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and node.target.id == "reason"
            and node.value is not None
        ):
            yield from _literals(node.value)


def _literals(node: ast.expr) -> Iterator[str]:
    for part in ast.walk(node):
        value = part.value if isinstance(part, ast.Constant) else None
        if isinstance(value, str) and _REASON.fullmatch(value):
            yield value


def test_every_reason_of_a_verdict_stands_on_the_page_of_reasons() -> None:
    page = (ROOT / "docs/reference/reasons.md").read_text()
    found = reasons()
    assert {"NoSignature", "OtherJob", "WritableCode", "RegistryUnavailable"} & found
    assert sorted(reason for reason in found if f"`{reason}`" not in page) == []


def test_every_metric_that_a_document_names_is_one_that_a_process_exports() -> None:
    exported = set(_METRIC.findall((ROOT / "docs/reference/metrics.md").read_text()))
    named = {
        (document.name, name)
        for document in DOCUMENTS
        for name in _METRIC.findall(document.read_text())
    }
    assert len(exported) > 40
    assert sorted((where, name) for where, name in named if name not in exported) == []


def test_no_document_has_two_versions_of_a_passage() -> None:
    marks = re.compile(r"^(<{7} |={7}$|>{7} )", flags=re.MULTILINE)
    assert [d.name for d in DOCUMENTS if marks.search(d.read_text())] == []


def test_every_link_between_documents_leads_to_a_file_and_a_heading() -> None:
    broken = []
    for document in DOCUMENTS:
        for link in _LINK.findall(_CODE.sub("", document.read_text())):
            if "://" in link:
                continue
            path, _, anchor = link.partition("#")
            target = (document.parent / path).resolve() if path else document
            if not target.exists():
                broken.append(f"{document.name}: {link}: no such file")
            elif anchor and anchor not in _anchors(target):
                broken.append(f"{document.name}: {link}: no such heading")
    assert broken == []


# What people type -------------------------------------------------------------------------------

_HOW_TO = sorted((ROOT / "docs/how-to").glob("*.md"))
_GUIDES = [ROOT / "README.md", ROOT / "docs/tutorial.md", *_HOW_TO]


def typed(page: str) -> Iterator[str]:
    """The commands of a page."""
    return (step.command for step in commands(page))


@pytest.mark.parametrize("page", _GUIDES, ids=lambda page: page.stem)
def test_every_call_of_ours_that_a_guide_shows_is_one_that_the_command_takes(page: Path) -> None:
    found = [call for script in typed(page.read_text()) for call in calls(script)]
    assert [(" ".join(call), why) for call in found if (why := problem(call))] == []


def test_guides_show_calls() -> None:
    assert sum(len(list(calls(s))) for page in _GUIDES for s in typed(page.read_text())) > 45


@pytest.mark.parametrize("page", _GUIDES, ids=lambda page: page.stem)
def test_what_a_guide_has_people_type_is_shell(page: Path) -> None:
    for script in typed(page.read_text()):
        found = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
        assert found.returncode == 0, f"{script}\n{found.stderr}"


def test_every_page_is_in_the_sites_contents() -> None:
    """By name, or by a pattern of a folder; the strict build says the same, later."""
    entries = re.findall(r"^([a-z][\w/*-]+)$", (ROOT / "docs/index.md").read_text(), re.MULTILINE)
    pages = {p.relative_to(ROOT / "docs").with_suffix("") for p in (ROOT / "docs").rglob("*.md")}
    lost = [p for p in pages if not any(p.match(entry) for entry in [*entries, "index"])]
    assert sorted(map(str, lost)) == []
    assert [e for e in entries if not any(p.match(e) for p in pages)] == []


def _anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", document.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^a-z0-9 _-]", "", h.lower()).replace(" ", "-") for h in headings}
