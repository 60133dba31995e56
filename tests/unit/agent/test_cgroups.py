"""Where pods' control groups are found, and that word of new ones arrives."""

from __future__ import annotations

from pathlib import Path

import pytest

from trainseal.agent.cgroups import (
    CgroupError,
    FolderWatch,
    container_id_of,
    containers_in,
    hierarchy,
    pod_parents,
    pod_uid_of,
    processes_in,
)

UID = "0aa3b1c2-1111-2222-3333-444455556666"
ID = "ab" * 32


@pytest.mark.parametrize(
    "folder",
    [
        f"pod{UID}",
        f"kubepods-besteffort-pod{UID.replace('-', '_')}.slice",
        f"kubepods-pod{UID.replace('-', '_')}.slice",
    ],
)
def test_a_pods_group_is_known_by_its_uid_under_both_drivers(folder: str) -> None:
    assert pod_uid_of(folder) == UID


@pytest.mark.parametrize("folder", ["podcast", f"x{UID}", f"pod{UID}-more", "kubepods.slice", ID])
def test_other_groups_are_no_pods(folder: str) -> None:
    assert pod_uid_of(folder) is None


@pytest.mark.parametrize("folder", [ID, f"cri-containerd-{ID}.scope", f"crio-{ID}.scope"])
def test_a_container_is_known_by_its_id(folder: str) -> None:
    assert container_id_of(folder) == ID


@pytest.mark.parametrize("folder", [ID[:-1], f"{ID}0", "init.scope", f"crio-conmon-{ID}.scope"])
def test_other_groups_are_no_containers(folder: str) -> None:
    assert container_id_of(folder) is None


@pytest.fixture(params=["kubepods", "some.root/kubepods.slice"])
def kubepods(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    folder: Path = tmp_path / request.param
    for quality in ("burstable", "kubepods-besteffort.slice"):
        (folder / quality).mkdir(parents=True)
    return folder


def test_the_kubelets_groups_are_found_wherever_its_root_is(tmp_path: Path, kubepods: Path) -> None:
    found = {f.relative_to(tmp_path).as_posix() for f in pod_parents(tmp_path)}
    base = kubepods.relative_to(tmp_path).as_posix()
    assert found == {base, f"{base}/burstable", f"{base}/kubepods-besteffort.slice"}


def test_containers_and_processes_of_a_group_that_is_gone_are_none(tmp_path: Path) -> None:
    assert containers_in(tmp_path / "gone") == {}
    assert processes_in(tmp_path / "gone") == []


def test_a_folder_without_control_groups_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(CgroupError, match="--cgroups"):
        hierarchy(tmp_path)


def test_new_folders_are_told_and_new_files_are_not(tmp_path: Path) -> None:
    watch = FolderWatch()
    try:
        watch.add(tmp_path)
        watch.add(tmp_path / "gone")  # passed over
        assert watch.read() == ([], False)
        (tmp_path / "file").touch()
        (tmp_path / ID).mkdir()
        assert watch.read() == ([tmp_path / ID], False)
        assert containers_in(tmp_path) == {ID: tmp_path / ID}
    finally:
        watch.close()
