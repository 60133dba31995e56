"""pyproject.toml says what is needed and why, requirements/ which bytes of it: they agree."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
LOCKS = ("run", "dev", "docs", "build", "lock")

_PIN = re.compile(r"([A-Za-z0-9._-]+)==(\S+?)(?: ; (.+?))? \\")
_HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


@cache
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def declared(lock: str) -> list[Requirement]:
    """What pyproject.toml wants of a lock."""
    found = project()
    texts = {
        "run": found["project"]["dependencies"],
        "dev": found["project"]["dependencies"] + found["project"]["optional-dependencies"]["dev"],
        "docs": found["dependency-groups"]["docs"],
        "build": found["dependency-groups"]["build"],
        "lock": found["dependency-groups"]["lock"],
    }
    return [Requirement(text) for text in texts[lock]]


@cache
def pins(lock: str) -> dict[str, Version]:
    """Each name with its version; AssertionError for a line that is neither pin nor hash."""
    found: dict[str, Version] = {}
    hashed: set[str] = set()
    name = ""
    for line in (ROOT / f"requirements/{lock}.txt").read_text().splitlines():
        if line.lstrip().startswith("#"):
            continue
        if pin := _PIN.fullmatch(line):
            name = canonicalize_name(pin[1])
            assert name not in found, line
            found[name] = Version(pin[2])
        else:
            assert _HASH.fullmatch(line), f"{lock}.txt: neither a pin nor a hash: {line}"
            hashed.add(name)
    assert set(found) == hashed, f"{lock}.txt: without a hash: {set(found) - hashed}"
    return found


@pytest.mark.parametrize("lock", LOCKS)
def test_every_line_of_a_lock_is_one_version_with_its_hashes(lock: str) -> None:
    assert pins(lock)


@pytest.mark.parametrize("lock", LOCKS)
def test_every_dependency_is_pinned_within_what_is_asked_for(lock: str) -> None:
    stale = [
        f"{wanted}: {pins(lock).get(canonicalize_name(wanted.name))}"
        for wanted in declared(lock)
        if (pinned := pins(lock).get(canonicalize_name(wanted.name))) is None
        or pinned not in wanted.specifier
    ]
    assert stale == [], "run: make lock"


@pytest.mark.parametrize("lock", ["dev", "build"])
def test_what_two_locks_have_in_common_has_one_version(lock: str) -> None:
    for other in ("run", "dev"):
        both = pins(lock).keys() & pins(other).keys()
        assert {n: pins(lock)[n] for n in both} == {n: pins(other)[n] for n in both}
    assert pins("run").keys() <= pins("dev").keys()


def test_the_backend_that_builds_is_the_one_that_is_locked() -> None:
    assert project()["build-system"]["requires"] == project()["dependency-groups"]["build"]
    for wanted in (*declared("build"), *declared("lock")):
        assert str(wanted.specifier).startswith("=="), f"{wanted} is not exact"


def test_every_package_that_trainseal_imports_is_declared() -> None:
    """And so has its reason: what comes along with another package may go along with it too."""
    imported = {
        name
        for path in (ROOT / "operator/trainseal").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        for name in _imports(node)
        if name not in sys.stdlib_module_names and name != "trainseal"
    }
    names = {canonicalize_name(wanted.name) for wanted in declared("run")}
    distributions = packages_distributions()
    undeclared = {
        name
        for name in imported
        if not names.intersection(map(canonicalize_name, distributions.get(name, [])))
    }
    assert imported
    assert undeclared == set()


def _imports(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name.partition(".")[0] for alias in node.names]
    if isinstance(node, ast.ImportFrom) and not node.level:
        return [(node.module or "").partition(".")[0]]
    return []
