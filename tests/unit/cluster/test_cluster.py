"""A start ends with a look at everything that was started."""

from pathlib import Path
from unittest.mock import MagicMock

import pytest

from tests.cluster import cluster
from tests.cluster.cluster import Cluster, State
from tests.cluster.errors import ClusterError
from tests.cluster.launch import Launcher
from tests.cluster.places import RunDir
from tests.cluster.toolchain import Tools

COMPONENTS = {"etcd", "kube-apiserver", "kube-controller-manager"}
OF_A_NODE = {"kube-scheduler", "containerd", "kubelet", "kube-proxy", "kube-router", "coredns"}
REGISTRIES = {"registry", "registry-plain"}


@pytest.fixture
def dead(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Components that end as soon as they are started; nothing is really started."""
    found: set[str] = set()
    for part in ("Network", "Cgroup", "Node", "ControlPlane", "Registries"):
        monkeypatch.setattr(cluster, part, MagicMock())
    monkeypatch.setattr(Launcher, "alive", lambda _, name: name not in found)
    return found


def start(folder: Path, *, api_only: bool) -> None:
    state = State("a", api_only, None if api_only else 7, 6443, 2379, 2380, 8, "pins")
    Cluster(RunDir(folder), state, Tools({}))._start()


@pytest.mark.parametrize("component", sorted(COMPONENTS | OF_A_NODE | REGISTRIES))
def test_a_component_that_ended_fails_the_start(
    tmp_path: Path, dead: set[str], component: str
) -> None:
    dead.add(component)
    with pytest.raises(ClusterError, match=f"{component} ended"):
        start(tmp_path, api_only=False)


@pytest.mark.parametrize("component", sorted(COMPONENTS))
def test_and_so_it_is_without_a_node(tmp_path: Path, dead: set[str], component: str) -> None:
    dead.add(component)
    with pytest.raises(ClusterError, match=f"{component} ended"):
        start(tmp_path, api_only=True)


@pytest.mark.parametrize("api_only", [False, True])
def test_where_all_of_them_run_the_start_succeeds(
    tmp_path: Path, dead: set[str], api_only: bool
) -> None:
    start(tmp_path, api_only=api_only)
