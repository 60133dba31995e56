"""Who takes the demo's cluster down: the demo that started it, or the next one, or a person."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import ClusterError
from tests.cluster.cluster import Cluster, State
from tests.cluster.places import RunDir
from tests.cluster.toolchain import Tools
from tests.demo import world as demo
from tests.demo.actors import DemoError
from tests.demo.show import Show
from tests.demo.world import World

NAME = "trainseal-demo"


@pytest.fixture
def removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A machine without clusters; which of them the demo takes down."""
    names: list[str] = []
    monkeypatch.setenv("TRAINSEAL_STATE", str(tmp_path))
    monkeypatch.delenv("TRAINSEAL_KUBECONFIG", raising=False)
    monkeypatch.setattr(demo, "remove", names.append)
    monkeypatch.setattr(demo, "connect", started)
    return names


def started(name: str, *, temporary: bool) -> Cluster:
    """As `connect` does it: what is up is found; what is new says whether it is temporary."""
    state = State.load(RunDir.of(name))
    if state is None:
        state = State(name, True, None, 1, 2, 3, 0, "pins", temporary=temporary)
        state.save(RunDir.of(name))
    return Cluster(RunDir.of(name), state, Tools({}))


def opened(*, keep: bool = False, killed: bool = False) -> World:
    """A demo whose cluster is up."""
    made = World(Show(), NAME, keep=keep)
    # What comes after the start needs an API server, which is not there.
    with pytest.raises(ClusterError):
        made.open()
    if killed:
        made._alone.close()  # the kernel lets go of a dead process's lock
    return made


def test_a_demo_takes_down_what_it_started(removed: list[str]) -> None:
    opened().close()
    assert removed == [NAME]


def test_a_cluster_that_was_up_before_stays(removed: list[str]) -> None:
    started(NAME, temporary=False)
    opened().close()
    assert removed == []


def test_what_a_killed_demo_left_goes_with_the_next(removed: list[str]) -> None:
    opened(killed=True)
    opened().close()
    assert removed == [NAME]


def test_what_a_demo_was_told_to_keep_outlives_the_next(removed: list[str]) -> None:
    opened(keep=True, killed=True).keep()
    opened().close()
    assert removed == []


def test_what_a_killed_demo_left_can_be_kept_by_the_next(removed: list[str]) -> None:
    opened(killed=True)
    again = opened(keep=True)
    again.keep()
    again._alone.close()
    opened().close()
    assert removed == []


@pytest.mark.usefixtures("removed")
def test_two_demos_on_one_cluster_are_refused() -> None:
    first = opened()
    with pytest.raises(DemoError, match="under way"):
        World(Show(), NAME)
    World(Show(), "another-demo").close()
    first.close()
    World(Show(), NAME).close()


def test_a_cluster_of_the_users_is_never_taken_down(
    removed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRAINSEAL_KUBECONFIG", "/some/kubeconfig")
    made = World(Show(), NAME)
    assert not made.ours
    made.close()
    assert removed == []
