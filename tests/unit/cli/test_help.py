"""Help, manual and completion: every command shows how it is called, and is called like that."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.core import TyperCommand

from tests.unit.cli.commandlines import calls, problem
from tests.unit.cli.conftest import Run
from trainseal.cli import manpages
from trainseal.cli.completion import for_kubectl
from trainseal.cli.tree import commands

COMMANDS = dict(commands())


def examples(command: TyperCommand) -> str:
    """The indented lines of its help."""
    lines = (command.help or "").splitlines()
    return "\n".join(line for line in lines if line.startswith("    "))


@pytest.mark.parametrize("path", COMMANDS)
def test_every_command_has_an_example_of_itself_in_its_help(path: str) -> None:
    name = path.removeprefix("trainseal ").split()
    # `drift show` is also called without its name.
    short = name[:1] if name[1:] == ["show"] else name
    found = [c for c in calls(examples(COMMANDS[path])) if short == c[: len(short)]]
    assert found, f"{path}: no example"
    assert [(c, problem(c)) for c in found if problem(c)] == []


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("trainseal status char-lm --wat", "wat"),
        ("trainseal statsu char-lm", "no command statsu"),
        ("trainseal status", "job is missing"),
        ("trainseal status char-lm -o yaml", "yaml is none of text, json"),
        ("trainseal sign job -f", "argument"),
    ],
)
def test_a_call_that_the_command_would_refuse_is_found(line: str, words: str) -> None:
    (call,) = calls(line)
    assert words in problem(call)


def test_calls_are_found_wherever_they_stand_in_a_line() -> None:
    script = """\
    A=1 trainseal digest -f job.yaml | head -1   # trainseal not-this
    source <(trainseal completion bash); echo "$(trainseal version)" && kubectl trainseal doctor
    trainseal sign job -f job.yaml \\
        --key a.key > signed.yaml
    """
    assert sorted(c[0] for c in calls(script)) == [
        "completion", "digest", "doctor", "sign", "version",
    ]  # fmt: skip


# The manual -------------------------------------------------------------------------------------


def test_there_is_a_page_for_every_command_and_one_that_lists_them(
    trainseal: Run, tmp_path: Path
) -> None:
    assert trainseal("man", "here").out == f"{len(COMMANDS) + 1} pages in here\n"
    found = {path.name for path in (tmp_path / "here").iterdir()}
    assert found == {"trainseal.1"} | {f"{path.replace(' ', '-')}.1" for path in COMMANDS}
    listed = (tmp_path / "here" / "trainseal.1").read_text()
    assert r"\fBtrainseal-sign-job\fR(1)" in listed


def test_a_page_has_every_option_and_the_examples() -> None:
    page = manpages.pages()["trainseal-sign-code.1"]
    assert r"\fB\-\-push\fR \fIREF\fR" in page
    assert "Required." in page
    lines = page.partition(".SH EXAMPLES")[2].splitlines()
    (example,) = [line for line in lines if "./src" in line]
    assert example.startswith(r"trainseal sign code ./src \-\-key alice.key")


def test_no_line_of_a_page_is_an_order_to_the_formatter_that_nobody_gave() -> None:
    orders = {".TH", ".SH", ".PP", ".TP", ".IP", ".nf", ".fi", ".nh"}
    for name, page in manpages.pages().items():
        for line in page.splitlines():
            assert line[:1] not in (".", "'") or line.split()[0] in orders, (name, line)


@pytest.mark.skipif(shutil.which("groff") is None, reason="there is no groff")
def test_the_formatter_has_nothing_to_complain_of(tmp_path: Path) -> None:
    pages = [str(path) for path in manpages.write(tmp_path)]
    command = ["groff", "-man", "-Tutf8", "-ww", "-K", "utf8", *pages]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    complaints = [line for line in found.stderr.splitlines() if "cannot adjust" not in line]
    assert [c for c in complaints if "can't break" not in c] == []


# Completion -------------------------------------------------------------------------------------


@pytest.fixture
def kubectl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Path]:
    """Puts a kubectl onto the path that does this; returns where it writes its arguments."""
    called = tmp_path / "called"

    def put(does: str) -> Path:
        program = tmp_path / "kubectl"
        program.write_text(f'#!/bin/sh\necho "$@" >> {called}\n{does}\n')
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setenv("PATH", f"{tmp_path}:{Path(sys.executable).parent}:/usr/bin:/bin")
        return called

    return put


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_a_shell_is_taught_calls_us_back(shell: str, trainseal: Run) -> None:
    answer = trainseal("completion", shell)
    assert answer.code == 0
    assert "_TRAINSEAL_COMPLETE" in answer.out
    assert "trainseal" in answer.out.replace("_TRAINSEAL", "")
    assert trainseal("completion", "csh").code == 64


def test_bash_completes_commands_and_names_of_jobs(kubectl: Callable[[str], Path]) -> None:
    called = kubectl("echo trainingjob.trainseal.dev/char-lm; echo trainingjob.trainseal.dev/other")
    script = (
        "source <(trainseal completion bash); "
        "for words in 'trainseal statu' 'trainseal status -n research ch'; do "
        "COMP_WORDS=($words); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); "
        "_trainseal_completion trainseal; echo ${COMPREPLY[@]}; done"
    )
    said = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, check=True, env=os.environ
    )
    assert said.stdout.splitlines() == ["status", "char-lm"]
    assert called.read_text() == "get trainingjobs.trainseal.dev -o name --namespace research\n"


def test_kubectl_completes_the_plugin(
    kubectl: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("_TRAINSEAL_COMPLETE", "COMP_WORDS", "COMP_CWORD"):
        monkeypatch.setenv(name, "")
    kubectl("echo trainingjob.trainseal.dev/char-lm")
    assert for_kubectl(["status", "--wat"]).split() == ["--watch", ":4"]
    assert for_kubectl(["thaw", ""]).split() == ["char-lm", ":4"]
    # What may be left out is completed beside what may be said.
    assert set(for_kubectl(["drift", ""]).split()) == {"show", "learn", "char-lm", ":4"}
    assert for_kubectl(["drift", "char-lm", "--kin"]).split() == ["--kinds", ":4"]
    # A file is the shell's to complete.
    assert for_kubectl(["verify", "-f", "jo"]) == ":0"


@pytest.mark.parametrize("does", ["exit 1", "echo refused >&2; exit 2"])
def test_no_cluster_means_no_names_and_no_error_in_the_middle_of_a_line(
    does: str,
    kubectl: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name in ("_TRAINSEAL_COMPLETE", "COMP_WORDS", "COMP_CWORD"):
        monkeypatch.setenv(name, "")
    kubectl(does)
    assert for_kubectl(["thaw", "ch"]) == ":0"
    assert capfd.readouterr() == ("", "")
