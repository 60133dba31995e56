"""What the seal says of code and config mounts becomes their manifest, or a finding."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from hashlib import sha256
from pathlib import Path

import pytest

from trainseal.agent.files import Tree
from trainseal.agent.observed import Observation, RoleMount, WatchedContainer
from trainseal.agent.sealedtemplates import SealedTrees
from trainseal.agent.signedtrees import SignedTrees
from trainseal.agent.sweep_tree import TreeSweep
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
    trees = SignedTrees(lambda _: SealedTrees({"code-trainer": digest}))
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
    trees = SignedTrees(lambda _: SealedTrees({"code-trainer": digest}))
    assert list(trees.of(container)) == []
    ((_, observation),) = trees.differing()
    assert observation.finding is FindingId.TREE_CHANGED
    assert observation.path == "/workspace"
    assert observation.evidence["sealed digest"] == digest
    assert list(trees.differing()) == []


# Config -------------------------------------------------------------------------------------------

CONFIG = {
    "config.json": b'{"learning_rate": 0.0003}\n',
    "config.yaml": b'"learning_rate": 0.0003\n',
}
DIGESTS = {name: f"sha256:{sha256(data).hexdigest()}" for name, data in CONFIG.items()}


@pytest.fixture
def configured(tmp_path: Path) -> WatchedContainer:
    folder = tmp_path / "etc" / "training"
    folder.mkdir(parents=True)
    for name, data in CONFIG.items():
        (folder / name).write_bytes(data)
    mounts = (RoleMount("/etc/training", "config", "config"),)
    start = datetime(2026, 11, 1, tzinfo=UTC)
    return Mounted(str(tmp_path), "p", "u", "s", "trainer", "c", 1, start, mounts, {})


def first_pass(container: WatchedContainer) -> list[Observation]:
    (tree,) = SignedTrees(lambda _: SealedTrees(config=DIGESTS)).of(container)
    return TreeSweep(tree, partial(Tree, container.root)).step(1 << 30)


def test_a_config_mount_is_held_to_the_sealed_digests_from_the_first_reading(
    configured: WatchedContainer,
) -> None:
    assert first_pass(configured) == []
    faster = b'{"learning_rate": 0.3}\n'
    Path(configured.root, "etc/training/config.json").write_bytes(faster)
    (found,) = first_pass(configured)
    assert (found.finding, found.path) == (FindingId.TREE_CHANGED, "/etc/training/config.json")
    assert found.evidence["signed"] == DIGESTS["config.json"]
    assert found.evidence["found"] == f"sha256:{sha256(faster).hexdigest()}"


CHANGES: dict[str, Callable[[Path], object]] = {
    "config.yaml": lambda folder: (folder / "config.yaml").unlink(),
    "override.yaml": lambda folder: (folder / "override.yaml").touch(),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_config_file_that_is_missing_or_was_added_is_found(
    configured: WatchedContainer, name: str
) -> None:
    CHANGES[name](Path(configured.root, "etc/training"))
    (found,) = first_pass(configured)
    assert (found.finding, found.path) == (FindingId.TREE_CHANGED, f"/etc/training/{name}")


@pytest.mark.parametrize("digests", [{}, {"../config.json": DIGESTS["config.json"]}])
def test_a_config_mount_that_nothing_is_known_of_is_said_not_to_be_read(
    configured: WatchedContainer, digests: dict[str, str]
) -> None:
    trees = SignedTrees(lambda _: SealedTrees(config=digests))
    assert list(trees.of(configured)) == []
    ((_, found),) = trees.differing()
    assert found.finding is FindingId.WATCH_BLIND
    assert "/etc/training" in found.message
    assert list(trees.differing()) == []


def test_a_pod_that_is_gone_is_asked_for_again_and_no_difference(
    configured: WatchedContainer,
) -> None:
    answers = iter([None, SealedTrees(config=DIGESTS)])
    trees = SignedTrees(lambda _: next(answers))
    assert list(trees.of(configured)) == []
    assert len(trees.of(configured)) == 1
    assert list(trees.differing()) == []
