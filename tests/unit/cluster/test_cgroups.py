"""Controllers reach the cluster's group, or the error says which does not, and why."""

import errno
import os
from collections.abc import Collection
from pathlib import Path

import pytest

from tests.cluster import cgroups
from tests.cluster.cgroups import NEEDED, Cgroup, Hierarchy, delegate, try_out
from tests.cluster.errors import ClusterError

ALL = NEEDED | {"hugetlb", "rdma"}


class Kernel:
    """As cgroup v2 takes what is written into cgroup.subtree_control."""

    def __init__(self) -> None:
        self.refused: dict[str, int] = {}

    def enable(self, folder: Path, controller: str) -> None:
        if number := self.refused.get(controller):
            raise OSError(number, os.strerror(number))
        file = folder / "cgroup.subtree_control"
        file.write_text(" ".join(sorted({*file.read_text().split(), controller})) + "\n")


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(cgroups, "_enable", made.enable)
    return made


@pytest.fixture
def group(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.subtree_control").write_text("")
    return tmp_path


def enabled(group: Path) -> set[str]:
    return set((group / "cgroup.subtree_control").read_text().split())


def test_all_controllers_are_handed_on(kernel: Kernel, group: Path) -> None:
    delegate(group, ALL)
    assert enabled(group) == ALL


@pytest.mark.parametrize("controller", sorted(NEEDED))
def test_a_needed_controller_that_stays_behind_is_an_error_with_the_kernels_answer(
    kernel: Kernel, group: Path, controller: str
) -> None:
    kernel.refused = {controller: errno.EBUSY}
    with pytest.raises(ClusterError, match=f"lacking: {controller}\n") as caught:
        delegate(group, ALL)
    assert f"+{controller}: Device or resource busy" in caught.value.message
    assert "cgroup.procs" in caught.value.action


def test_a_controller_that_nobody_needs_may_stay_behind(kernel: Kernel, group: Path) -> None:
    kernel.refused = {"rdma": errno.EINVAL}
    delegate(group, ALL)
    assert enabled(group) == ALL - {"rdma"}


def test_what_is_refused_but_there_already_is_enough(kernel: Kernel, group: Path) -> None:
    (group / "cgroup.subtree_control").write_text(" ".join(NEEDED))
    kernel.refused = dict.fromkeys(NEEDED, errno.EPERM)
    delegate(group, NEEDED)


def test_beside_v1_nothing_is_expected_of_v2(kernel: Kernel, group: Path) -> None:
    delegate(group, frozenset())
    assert enabled(group) == set()


@pytest.fixture
def mounted(
    tmp_path: Path, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> Collection[Hierarchy]:
    """One v2 hierarchy in a folder; a new group has the files that the kernel gives it."""
    found = [Hierarchy(tmp_path, 2, NEEDED)]
    (tmp_path / "cgroup.subtree_control").write_text("")
    monkeypatch.setattr(cgroups, "hierarchies", lambda: found)
    mkdir = Path.mkdir

    def made(path: Path, *, exist_ok: bool = False) -> None:
        mkdir(path, exist_ok=exist_ok)
        (path / "cgroup.subtree_control").touch()

    monkeypatch.setattr(Path, "mkdir", made)
    rmdir = Path.rmdir

    def removed(path: Path) -> None:
        (path / "cgroup.subtree_control").unlink()
        rmdir(path)

    monkeypatch.setattr(Path, "rmdir", removed)
    return found


def test_a_clusters_group_hands_controllers_on_to_pods(
    mounted: Collection[Hierarchy], tmp_path: Path
) -> None:
    Cgroup("x").create()
    assert enabled(tmp_path / "x") == NEEDED
    assert (tmp_path / "x/daemons").is_dir()


def test_what_is_tried_out_is_gone_afterwards(
    mounted: Collection[Hierarchy], tmp_path: Path
) -> None:
    try_out(mounted)
    assert [path.name for path in tmp_path.iterdir()] == ["cgroup.subtree_control"]


def test_what_does_not_work_is_gone_afterwards_too(
    mounted: Collection[Hierarchy], kernel: Kernel, tmp_path: Path
) -> None:
    kernel.refused = {"memory": errno.EBUSY}
    with pytest.raises(ClusterError, match="lacking: memory"):
        try_out(mounted)
    assert [path.name for path in tmp_path.iterdir()] == ["cgroup.subtree_control"]


def test_a_hierarchy_that_may_not_be_written_is_named(
    mounted: Collection[Hierarchy], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refused(path: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(Path, "mkdir", refused)
    with pytest.raises(ClusterError, match=rf"made in {tmp_path}: .*Read-only file system"):
        try_out(mounted)
