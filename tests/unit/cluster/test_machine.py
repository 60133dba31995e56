"""What a machine lacks, in words: what was found, what is expected, what to do."""

import os
from pathlib import Path

import pytest

from tests.cluster import cgroups, machine
from tests.cluster.cgroups import NEEDED, Hierarchy
from tests.cluster.errors import ClusterError
from tests.images import ImageError, debian

V1 = [Hierarchy(Path("/cgroups") / name, 1, frozenset({name})) for name in (*NEEDED, "freezer")]
V2 = [Hierarchy(Path("/cgroups"), 2, NEEDED)]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH on which every program that is asked of the kernel succeeds."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in ("unshare", "modprobe"):
        (folder / name).write_text("#!/bin/sh\nexit 0\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.setattr(machine, "daemon_environment", lambda: {"PATH": f"{folder}:/usr/bin:/bin"})
    monkeypatch.setenv("TRAINSEAL_STATE", str(tmp_path / "state"))
    return folder


def refuse(programs: Path, only: str = "") -> None:
    """The kernel refuses what has `only` in its command."""
    (programs / "unshare").write_text(
        f"#!/bin/sh\ncase \"$*\" in *{only}*) echo 'Operation not supported' >&2; exit 2;; esac\n"
    )


def complete(error: ClusterError) -> bool:
    """Whether it says what was found, what is expected, and what to do."""
    return bool(error.found and error.expected and error.action)


def test_another_system_than_linux_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.platform", "darwin")
    with pytest.raises(ClusterError, match="this is darwin") as caught:
        machine.require_linux()
    assert complete(caught.value)


@pytest.mark.parametrize(("user", "refused"), [(0, False), (1000, True)])
def test_root_is_wanted(monkeypatch: pytest.MonkeyPatch, user: int, refused: bool) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    if not refused:
        machine.require_root()
        return
    with pytest.raises(ClusterError, match="not running as root") as caught:
        machine.require_root()
    assert complete(caught.value)


def test_a_debian_release_with_its_sources_is_good(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "codename", lambda: "bookworm")
    monkeypatch.setattr(debian, "sources", lambda release: [Path(release)])
    machine.require_release()


@pytest.mark.parametrize("lacking", ["codename", "sources"])
def test_what_the_images_will_not_find_is_said_now(
    monkeypatch: pytest.MonkeyPatch, lacking: str
) -> None:
    def missing(*_: str) -> None:
        raise ImageError("no such thing", expected="one", action="add it")

    monkeypatch.setattr(debian, "codename", lambda: "bookworm")
    monkeypatch.setattr(debian, "sources", lambda _: [])
    monkeypatch.setattr(debian, lacking, missing)
    with pytest.raises(ClusterError, match="no such thing\n  expected: one\n  to do:    add it"):
        machine.require_release()


def test_files_that_the_kernel_should_show_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "there").touch()
    files = {str(tmp_path / "there"): "a thing", str(tmp_path / "gone"): "a kernel with the rest"}
    monkeypatch.setattr(machine, "_FILES", files)
    with pytest.raises(ClusterError, match=r"gone: no such file\n  expected: a kernel with the"):
        machine.require_kernel()


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was tried out."""
    calls: list[object] = []
    monkeypatch.setattr(cgroups, "try_out", calls.append)
    return calls


@pytest.mark.parametrize("mounted", [V1, V2, [*V1, Hierarchy(Path("/u"), 2, frozenset())]])
def test_cgroups_of_either_version_are_tried_out(
    monkeypatch: pytest.MonkeyPatch, tried: list[object], mounted: list[Hierarchy]
) -> None:
    monkeypatch.setattr(cgroups, "hierarchies", lambda: mounted)
    machine.require_cgroups()
    assert tried == [mounted]


@pytest.mark.parametrize(
    ("mounted", "words"),
    [
        ([], "found: none; lacking: cpu, cpuset, memory, pids"),
        ([h for h in V1 if "memory" not in h.controllers], "lacking: memory"),
        ([Hierarchy(Path("/u"), 2, NEEDED - {"pids"})], "lacking: pids"),
        ([h for h in V1 if "freezer" not in h.controllers], "v1 freezer"),
    ],
)
def test_a_controller_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, tried: list[object], mounted: list[Hierarchy], words: str
) -> None:
    monkeypatch.setattr(cgroups, "hierarchies", lambda: mounted)
    with pytest.raises(ClusterError, match=words) as caught:
        machine.require_cgroups()
    assert complete(caught.value)
    assert tried == []


def test_what_the_kernel_takes_is_no_error(programs: Path) -> None:
    machine.require_overlayfs()
    machine.require_network()
    assert list((programs.parent / "state").iterdir()) == []


def test_a_folder_without_overlays_is_said_with_the_way_out(programs: Path) -> None:
    refuse(programs, "overlay")
    with pytest.raises(ClusterError, match="overlayfs cannot be mounted in") as caught:
        machine.require_overlayfs()
    assert "Operation not supported" in caught.value.detail
    assert "TRAINSEAL_STATE" in caught.value.action
    assert list((programs.parent / "state").iterdir()) == []


@pytest.mark.parametrize(
    ("refused", "words"),
    [
        ("veth", "an interface of type veth"),
        ("bridge", "an interface of type bridge"),
        ("nft", "nftables does not take"),
        ("sh", "iptables or ipset does not take"),
    ],
)
def test_each_part_of_a_network_that_the_kernel_refuses_is_named(
    programs: Path, refused: str, words: str
) -> None:
    refuse(programs, refused)
    with pytest.raises(ClusterError, match=words) as caught:
        machine.require_network()
    assert complete(caught.value)
    assert "Operation not supported" in caught.value.detail


def test_a_kubelet_of_somebody_else_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "kubelets", lambda **_: [4711])
    with pytest.raises(ClusterError, match=r"pid 4711") as caught:
        machine.require_no_kubelet()
    assert complete(caught.value)
