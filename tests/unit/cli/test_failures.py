"""Exit codes and words: one place, for every command."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
import typer
from typer.core import TyperGroup

from tests.unit.cli.conftest import Run
from trainseal.cli.failures import Failure, explain, run
from trainseal.cli.main import app, main
from trainseal.cluster.api import KubeError
from trainseal.cluster.settings import SettingsError
from trainseal.registry.errors import AccessDenied, NotFound, RegistryUnavailable


def failing(error: BaseException) -> typer.Typer:
    """A program whose one command fails so."""
    program = typer.Typer()

    @program.command()
    def fail() -> None:
        raise error

    return program


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (Failure("no", code=7), 7),
        (typer.Exit(2), 2),
        (KeyboardInterrupt(), 130),
        (typer.Abort(), 130),
        (FileNotFoundError(2, "No such file or directory", "job.yaml"), 64),
        (RegistryUnavailable("r/x", "no answer"), 2),
        (AccessDenied("r/x", "denied"), 2),
        (NotFound("r/x", "absent"), 1),
        (SettingsError("config.yaml: gpuResource: no such field"), 64),
        (KubeError(0, "Unreachable", "refused"), 2),
        (KubeError(401, "Unauthorized", "who"), 2),
        (KubeError(403, "Forbidden", "no"), 1),
    ],
)
def test_each_kind_of_failure_has_its_exit_code(
    error: BaseException, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(failing(error), []) == code
    assert "Traceback" not in capsys.readouterr().err


def test_a_defect_of_ours_is_not_dressed_up() -> None:
    assert explain(ZeroDivisionError()) is None
    with pytest.raises(ZeroDivisionError):
        run(failing(ZeroDivisionError()), [])


@pytest.mark.parametrize(
    "arguments", [["--bogus"], ["nonsense"], ["verify"], ["sign", "job"], ["status"], []]
)
def test_wrong_use_is_64(trainseal: Run, arguments: list[str]) -> None:
    assert trainseal(*arguments).code == 64


def test_a_denial_of_the_webhook_keeps_its_lines() -> None:
    error = KubeError(
        403, "Forbidden", 'admission webhook "w" denied the request: job is refused\n- image: no'
    )
    failure = explain(error)
    assert failure is not None
    assert "w" in failure.found
    assert failure.found.splitlines()[1:] == ["job is refused", "- image: no"]


def leaves(command: object, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    if isinstance(command, TyperGroup):
        for name, child in command.commands.items():
            yield from leaves(child, (*path, name))
    else:
        yield path, str(getattr(command, "help", ""))


PROCESSES = {("webhook",), ("controller",), ("agent",), ("archive",), ("gate",), ("version",)}


def test_every_command_for_people_shows_an_example(trainseal: Run) -> None:
    for path, words in leaves(typer.main.get_command(app)):
        assert trainseal(*path, "--help").code == 0
        if path not in (*PROCESSES, ()):
            assert f"\n    trainseal {' '.join(path)}" in words, path


@pytest.mark.parametrize("module", ["pydantic", "aiohttp", "kubernetes", "sigstore", "rich.live"])
def test_nothing_slow_is_imported_before_a_command_asks_for_it(
    module: str, loaded: Callable[[], set[str]]
) -> None:
    assert module not in loaded()


@pytest.fixture(scope="module")
def loaded() -> Callable[[], set[str]]:
    """Names of the modules that the command line loads before it knows which command."""
    program = "import sys, trainseal.cli.main; print('\\n'.join(sys.modules))"
    output = subprocess.check_output([sys.executable, "-c", program], text=True)
    return lambda: set(output.split())


@pytest.mark.parametrize(
    ("called", "shown"),
    [("/usr/bin/trainseal", "trainseal"), ("/usr/bin/kubectl-trainseal", "kubectl trainseal")],
)
def test_the_help_names_the_program_as_it_was_called(
    called: str, shown: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [called, "verify", "--help"])
    with pytest.raises(SystemExit):
        main()
    assert f"Usage: {shown} verify" in capsys.readouterr().out
