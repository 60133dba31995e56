"""The seal's tree digest makes what is mounted its own manifest, or a finding."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from trainseal.agent.observed import RoleMount, WatchedContainer
from trainseal.agent.signedtrees import SignedTrees
from trainseal.api.findings import FindingId
from trainseal.provenance.manifests import TreeManifest
from trainseal.registry.tree_files import hash_files, list_files


class Mounted(WatchedContainer):
    """A container whose root is a folder of the test's."""

    @property
    def root(self) -> str:
        return self.namespace


@pytest.fixture
def container(tmp_path: Path) -> WatchedContainer:
    tree = tmp_path / "workspace"
    (tree / "lib").mkdir(parents=True)
    (tree / "train.py").write_text("import lib\n")
    (tree / "lib" / "model.py").write_text("x = 1\n")
    mounts = (
        RoleMount("/workspace", "code", "code-trainer"),
        RoleMount("/tmp", "scratch", "scratch-0"),
    )
    start = datetime(2026, 11, 1, tzinfo=UTC)
    return Mounted(str(tmp_path), "p", "u", "s", "trainer", "c", 1, start, mounts, {})


def sealed(container: WatchedContainer) -> str:
    tree = Path(container.root, "workspace")
    return TreeManifest.of("code", hash_files(tree, list_files(tree))).root_digest


def test_a_mount_that_is_as_sealed_is_held_to_what_it_is(container: WatchedContainer) -> None:
    digest = sealed(container)
    trees = SignedTrees(lambda _: {"code-trainer": digest})
    (tree,) = trees.of(container)
    assert tree.path == "/workspace"
    assert set(tree.manifest.digests) == {"train.py", "lib/model.py"}
    # Read once: what changes later is the sweep's to find.
    Path(container.root, "workspace", "train.py").write_text("changed")
    assert trees.of(container) == (tree,)
    assert list(trees.differing()) == []


@pytest.mark.parametrize("change", ["changed", "added", "removed", "link"])
def test_a_mount_that_was_changed_before_it_was_first_read_is_a_finding(
    container: WatchedContainer, change: str
) -> None:
    digest = sealed(container)
    tree = Path(container.root, "workspace")
    if change == "changed":
        (tree / "train.py").write_text("import evil\n")
    elif change == "added":
        (tree / "zz.py").write_text("")
    elif change == "removed":
        (tree / "train.py").unlink()
    else:
        (tree / "train.py").unlink()
        (tree / "train.py").symlink_to("/etc/passwd")
    trees = SignedTrees(lambda _: {"code-trainer": digest})
    assert list(trees.of(container)) == []
    ((_, observation),) = trees.differing()
    assert observation.finding is FindingId.TREE_CHANGED
    assert observation.path == "/workspace"
    assert observation.evidence["sealed digest"] == digest
    assert list(trees.differing()) == []
