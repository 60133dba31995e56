"""Names and places of clusters."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.cluster import cli, cluster
from tests.cluster.cluster import Cluster, State, names_of_this_checkout
from tests.cluster.errors import ClusterError
from tests.cluster.places import CHECKOUT, RunDir, cache_dir, held_alone
from tests.cluster.toolchain import Tools


@pytest.mark.parametrize("name", ["a", "trainseal", "a-b", "0", "x" * 20])
def test_a_dns_label_is_a_name(name: str) -> None:
    assert RunDir.of(name).root.name == name


@pytest.mark.parametrize("name", ["", "A", "a_b", "-a", "a-", "../x", "a/b", "x" * 21, "a\n"])
def test_what_could_leave_the_folder_or_overflow_a_limit_is_refused(name: str) -> None:
    with pytest.raises(ClusterError, match="cannot be a cluster's name"):
        RunDir.of(name)


def test_the_cache_follows_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("TRAINSEAL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_dir() == tmp_path / "trainseal"
    monkeypatch.setenv("TRAINSEAL_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"


def test_a_saved_state_is_loaded_as_it_was(tmp_path: Path) -> None:
    run = RunDir(tmp_path / "a")
    state = State("a", False, 7, 6443, 2379, 2380, 8, "pins", "/checkout", True)
    state.save(run)
    assert State.load(run) == state


@pytest.mark.parametrize("text", ["", "{", '{"name": "a"}', "[]"])
def test_a_torn_state_is_no_state(tmp_path: Path, text: str) -> None:
    run = RunDir(tmp_path)
    run.state_file.write_text(text)
    assert State.load(run) is None


def test_a_state_of_before_there_were_checkouts_in_it_is_read(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    State("a", False, 7, 6443, 2379, 2380, 8, "pins").save(run)
    text = json.loads(run.state_file.read_text())
    del text["checkout"], text["temporary"]
    run.state_file.write_text(json.dumps(text))
    assert State.load(run) == State("a", False, 7, 6443, 2379, 2380, 8, "pins")


@pytest.fixture
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TRAINSEAL_STATE", str(tmp_path))
    return tmp_path


def made(name: str, checkout: str, *, temporary: bool = False) -> State:
    state = State(name, True, None, 1, 2, 3, 0, "pins", checkout, temporary)
    state.save(RunDir.of(name))
    return state


@pytest.mark.usefixtures("state_folder")
def test_of_all_clusters_those_of_this_checkout_are_found() -> None:
    made("ours", str(CHECKOUT))
    made("also-ours", str(CHECKOUT), temporary=True)
    made("another", "/somewhere/else")
    made("of-before", "")
    RunDir.of("torn").sub("logs")
    with RunDir.of("ours").lock():
        assert names_of_this_checkout() == ["also-ours", "ours"]


def removed_by(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    removed: list[str] = []

    def remove(name: str) -> bool:
        removed.append(name)
        return True

    monkeypatch.setattr(cli, "remove", remove)
    assert cli.main(["down", *arguments]) == 0
    return removed


def test_down_removes_one_cluster_or_the_checkouts_or_all(
    state_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made("ours", str(CHECKOUT))
    made("another", "/somewhere/else")
    monkeypatch.setattr(cluster, "namespaces", lambda _: [])
    (state_folder / ".check-1").mkdir()
    assert removed_by(["--name", "another"], monkeypatch) == ["another"]
    assert removed_by(["--checkout"], monkeypatch) == ["ours"]
    assert removed_by(["--all"], monkeypatch) == ["another", "ours"]


@pytest.mark.usefixtures("state_folder")
def test_a_temporary_cluster_that_is_kept_says_so_from_then_on() -> None:
    run = RunDir.of("demo")
    state = made("demo", str(CHECKOUT), temporary=True)
    Cluster(run, state, Tools({})).keep()
    assert State.load(run) == replace(state, temporary=False)


def test_a_lock_that_somebody_holds_is_not_held_alone(tmp_path: Path) -> None:
    with held_alone(tmp_path / "lock") as first:
        assert first
        with held_alone(tmp_path / "lock") as second:
            assert not second
    with held_alone(tmp_path / "lock") as again:
        assert again
