"""Signed trees read again, step by step."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from trainseal.agent.files import Tree
from trainseal.agent.observed import FOUND_BY, READING, Observation
from trainseal.agent.sweep_tree import SignedTree, TreeSweep
from trainseal.agent.sweeps import TREE_PART, TREE_RATE, part_of_tree
from trainseal.provenance.manifests import TreeManifest

FILES = {"train.py": b"print(1)\n", "lib/model.py": b"x" * 3_000_000, "lib/empty.py": b""}
BIG = 1 << 40


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, data in FILES.items():
        path = tmp_path / "workspace" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return tmp_path / "workspace"


def sweep_of(tree: Path) -> TreeSweep:
    manifest = TreeManifest.of("trainer", {n: sha256(d).hexdigest() for n, d in FILES.items()})
    return TreeSweep(SignedTree(manifest, "/workspace"), partial(Tree, str(tree.parent)))


def whole(sweep: TreeSweep) -> list[Observation]:
    before = sweep.passes
    found: list[Observation] = []
    while sweep.passes == before:
        found += sweep.step(BIG)
    return found


def test_a_tree_as_signed_is_silent(tree: Path) -> None:
    sweep = sweep_of(tree)
    assert whole(sweep) == []
    assert whole(sweep) == []


def _link(path: Path) -> None:
    path.unlink()
    path.symlink_to("lib/model.py")


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


BREAKS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "changed": (lambda t: (t / "train.py").write_text("evil"), "train.py", "not as signed"),
    "missing": (lambda t: (t / "lib/empty.py").unlink(), "lib/empty.py", "missing"),
    "unlisted": (lambda t: (t / "lib/evil.py").touch(), "lib/evil.py", "does not list"),
    "unlisted link": (lambda t: (t / "evil").symlink_to("/etc"), "evil", "does not list"),
    "now a link": (lambda t: _link(t / "train.py"), "train.py", "no regular file"),
    "now a pipe": (lambda t: _pipe(t / "train.py"), "train.py", "no regular file"),
}


@pytest.mark.parametrize("case", BREAKS)
def test_a_difference_is_found_in_the_next_pass(tree: Path, case: str) -> None:
    act, name, words = BREAKS[case]
    sweep = sweep_of(tree)
    assert whole(sweep) == []
    act(tree)
    (found,) = whole(sweep)
    assert (found.finding, found.path) == ("tree.changed", f"/workspace/{name}")
    assert words in found.message


def test_a_changed_file_names_both_digests(tree: Path) -> None:
    (tree / "train.py").write_bytes(b"evil")
    (found,) = whole(sweep_of(tree))
    assert found.evidence == {
        "signed": f"sha256:{sha256(FILES['train.py']).hexdigest()}",
        "found": f"sha256:{sha256(b'evil').hexdigest()}",
        # So nobody is accused for having been in the container just then.
        FOUND_BY: READING,
    }


def test_a_directory_that_became_a_link_is_not_followed(tree: Path, tmp_path: Path) -> None:
    (tree / "lib").rename(tmp_path / "elsewhere")
    (tree / "lib").symlink_to(tmp_path / "elsewhere")
    found = {o.path for o in whole(sweep_of(tree))}
    assert found == {f"/workspace/{p}" for p in ("lib", "lib/model.py", "lib/empty.py")}


def test_a_step_reads_about_its_budget_and_the_next_goes_on(tree: Path) -> None:
    sweep = sweep_of(tree)
    (tree / "lib/model.py").write_bytes(b"y" * 3_000_000)
    steps = []
    while sweep.passes == 0:
        steps.append(sweep.step(500_000))
    assert len(steps) >= 3
    assert sum(map(len, steps)) == 1


def test_the_budget_for_a_set_time_follows_from_the_last_pass(tree: Path) -> None:
    sweep = sweep_of(tree)
    whole(sweep)
    assert sweep.bytes_of_last_pass
    assert sweep.bytes_of_last_pass >= 3_000_000
    assert sweep.bytes_a_second(100) == sweep.bytes_of_last_pass // 100 + 1


def test_a_sweep_reads_by_its_share_of_time_a_small_tree_whole_and_no_tree_at_once() -> None:
    assert part_of_tree(100, 0.0) == TREE_PART
    assert part_of_tree(100, 10.0) == TREE_PART
    assert part_of_tree(100_000, 10.0) == 1_000_000
    assert part_of_tree(TREE_RATE * 10, 3600.0) == TREE_RATE * 60


def test_a_flood_of_unlisted_files_is_counted_not_listed(tree: Path) -> None:
    for number in range(150):
        (tree / f"n{number}").touch()
    found = whole(sweep_of(tree))
    assert len(found) == 101
    assert found[-1].evidence["more"] == "50"


def test_a_container_that_is_gone_is_no_difference(tree: Path) -> None:
    sweep = sweep_of(tree)
    sweep.step(1)
    tree.parent.rename(tree.parent.with_name("gone"))
    with pytest.raises(OSError, match="No such file"):
        whole(sweep)
