"""The demo is a check: what does not go as it shows makes it fail."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest

from tests.demo.__main__ import main
from tests.demo.actors import Actor, DemoError
from tests.demo.acts import Play
from tests.demo.show import Show
from tests.demo.world import World


@pytest.fixture
def somebody(tmp_path: Path) -> Actor:
    return Actor("somebody", tmp_path, os.environ, {}, Show())


def test_a_refusal_in_the_words_expected_passes(
    somebody: Actor, capsys: pytest.CaptureFixture[str]
) -> None:
    somebody.refused("echo 'Forbidden: code\n refuted' >&2; exit 1", "code refuted")
    assert "refuted" in capsys.readouterr().out


def test_a_refusal_that_is_accepted_fails(somebody: Actor) -> None:
    with pytest.raises(DemoError, match="was accepted"):
        somebody.refused("echo code refuted >&2", "code refuted")


def test_a_refusal_for_another_reason_fails(somebody: Actor) -> None:
    with pytest.raises(DemoError, match="for another reason"):
        somebody.refused("echo no route to host >&2; exit 1", "code refuted")


def test_a_command_that_fails_fails_the_demo(somebody: Actor) -> None:
    with pytest.raises(DemoError, match="ended with 3"):
        somebody.run("exit 3")
    somebody.run("exit 3", status=3)


def test_what_one_exports_the_commands_of_all_see(somebody: Actor) -> None:
    other = Actor("other", somebody.folder, os.environ, somebody.variables, somebody.show)
    other.export(IMAGE="registry.example/image")
    assert somebody.run("echo $IMAGE") == "registry.example/image\n"


def test_a_log_without_end_is_left_after_its_time(somebody: Actor) -> None:
    with pytest.raises(DemoError, match="had no end"):
        list(somebody.follow("echo line; exec sleep 60", seconds=0.3))


def test_each_line_of_a_log_is_given_on(somebody: Actor) -> None:
    assert list(somebody.follow("printf 'a\\nb\\n'", seconds=30)) == ["a", "b"]


@pytest.fixture
def closings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """How often the world was taken down; there is no cluster in it, and none is started."""
    found: list[str] = []
    monkeypatch.setenv("TRAINSEAL_STATE", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.delenv("TRAINSEAL_KUBECONFIG", raising=False)
    monkeypatch.setattr(World, "close", lambda self: found.append(self.name))
    monkeypatch.setattr(signal, "signal", lambda *_: None)  # pytest's own stay
    return found


def test_a_failed_demo_ends_with_1_and_is_taken_down(
    closings: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(self: Play) -> None:
        raise DemoError("`kubectl apply` was accepted")

    monkeypatch.setattr(Play, "everything", fail)
    assert main(["--name", "test"]) == 1
    assert closings == ["test"]
    assert "was accepted" in capsys.readouterr().out


def test_an_interrupted_demo_is_taken_down(
    closings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(self: Play) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Play, "everything", interrupt)
    assert main(["--name", "test"]) == 130
    assert closings == ["test"]


def test_a_demo_that_ends_well_ends_with_0(
    closings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Play, "everything", lambda _: None)
    assert main(["--name", "test"]) == 0
    assert closings == ["test"]


def test_a_demo_that_took_too_long_though_all_was_built_ends_with_1(
    closings: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Play, "everything", lambda _: None)
    monkeypatch.setattr(Show, "seconds", 301.0)
    assert main(["--name", "test"]) == 1
    assert "it took 5 min 1 s, expected 5 min" in capsys.readouterr().out
    assert closings == ["test"]


def test_a_demo_that_had_to_build_may_take_its_time(
    closings: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRAINSEAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(Show, "seconds", 301.0)

    def build(self: Play) -> None:
        (tmp_path / "cache" / "images" / "training-0123").mkdir(parents=True)

    monkeypatch.setattr(Play, "everything", build)
    assert main(["--name", "test"]) == 0
    assert closings == ["test"]
