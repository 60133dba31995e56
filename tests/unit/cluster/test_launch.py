"""A component that does not come up says why."""

from pathlib import Path

import pytest

from tests.cluster.errors import ClusterError
from tests.cluster.launch import Launcher
from tests.cluster.places import RunDir


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
