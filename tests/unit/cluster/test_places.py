"""Names and places of clusters."""

from pathlib import Path

import pytest

from tests.cluster.cluster import State
from tests.cluster.errors import ClusterError
from tests.cluster.places import RunDir, cache_dir


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
    state = State("a", False, 7, 6443, 2379, 2380, 8, "pins")
    state.save(run)
    assert State.load(run) == state


@pytest.mark.parametrize("text", ["", "{", '{"name": "a"}', "[]"])
def test_a_torn_state_is_no_state(tmp_path: Path, text: str) -> None:
    run = RunDir(tmp_path)
    run.state_file.write_text(text)
    assert State.load(run) is None
