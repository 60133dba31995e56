"""A component that does not come up says why."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster import cleanup
from tests.cluster.errors import ClusterError
from tests.cluster.launch import Launcher
from tests.cluster.places import RunDir
from tests.cluster.processes import Process, kill_all


@pytest.fixture
def launcher(tmp_path: Path) -> Launcher:
    return Launcher(RunDir(tmp_path))


def test_a_component_that_ends_shows_its_last_lines(launcher: Launcher) -> None:
    launcher.start("etcd", ["sh", "-c", "echo bind: address already in use; exec sleep 0.1"])
    with pytest.raises(ClusterError, match="etcd ended") as caught:
        launcher.wait("etcd", "/health", lambda: False, timeout=10)
    assert "address already in use" in caught.value.message
    assert "expected: /health" in caught.value.message


def test_a_component_that_is_too_slow_shows_its_last_lines(launcher: Launcher) -> None:
    launcher.start("kubelet", ["sh", "-c", "echo waiting for cgroups; exec sleep 60"])
    try:
        with pytest.raises(ClusterError, match=r"not within 1 s: the node to be Ready") as caught:
            launcher.wait("kubelet", "the node to be Ready", lambda: False, timeout=1)
        assert "waiting for cgroups" in caught.value.message
    finally:
        launcher.stop("kubelet")
    assert launcher.components() == {}


def test_the_prefix_comes_before_every_command(tmp_path: Path) -> None:
    launcher = Launcher(RunDir(tmp_path), ["env", "GREETING=hello"])
    launcher.start("x", ["sh", "-c", "echo $GREETING; exec sleep 60"])
    try:
        launcher.wait("x", "output", lambda: "hello" in launcher.log("x").read_text(), timeout=10)
    finally:
        launcher.stop("x")


def test_stopping_what_does_not_run_does_nothing(launcher: Launcher) -> None:
    launcher.stop("never-started")


def test_a_component_that_died_unnoticed_is_named_with_its_last_lines(launcher: Launcher) -> None:
    launcher.start("kubelet", ["sleep", "60"])
    launcher.start("kube-proxy", ["sh", "-c", "echo no nftables here; exec sleep 60"])
    launcher.wait("kube-proxy", "output", lambda: "nft" in launcher.log("kube-proxy").read_text())
    try:
        launcher.require_alive(["kubelet", "kube-proxy"])
        proxy = Process.load(launcher.pidfile("kube-proxy"))
        assert proxy is not None
        assert kill_all([proxy]) == []
        with pytest.raises(ClusterError, match="kube-proxy ended after it was started") as caught:
            launcher.require_alive(["kubelet", "kube-proxy"])
        assert "no nftables here" in caught.value.message
    finally:
        launcher.stop("kubelet")


def test_a_component_that_was_never_started_is_not_alive(launcher: Launcher) -> None:
    with pytest.raises(ClusterError, match="kube-scheduler"):
        launcher.require_alive(["kube-scheduler"])


@pytest.fixture
def unrecorded(launcher: Launcher) -> Iterator[Process]:
    """What a start leaves that is killed before it writes down what it started."""
    launcher.start("etcd", ["sleep", "60"])
    process = Process.load(launcher.pidfile("etcd"))
    assert process is not None
    launcher.pidfile("etcd").unlink()
    yield process
    kill_all([process])


def test_a_process_that_nobody_wrote_down_is_removed_with_its_cluster(
    launcher: Launcher, unrecorded: Process
) -> None:
    cleanup.remove_processes(launcher.run)
    assert not unrecorded.alive


def test_a_process_of_another_cluster_is_left_alone(
    unrecorded: Process, launcher: Launcher
) -> None:
    cleanup.remove_processes(RunDir(launcher.run.root / "another"))
    cleanup.remove_processes(RunDir(launcher.run.root.parent))
    assert unrecorded.alive
