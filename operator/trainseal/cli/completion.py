"""``trainseal completion SHELL``, completion for kubectl's plugin, and names of what there is.

Names come from ``kubectl``, which the person has and which has their credentials: it answers in a
moment, where a client of ours would first have to be loaded. Whatever goes wrong, there are no
names: somebody is typing, and wants no error in the middle of their line.
"""

from __future__ import annotations

import contextlib
import enum
import io
import os
import shlex
import subprocess
import sys
from typing import Annotated

import typer

_SECONDS = 3.0
#: Of cobra (ShellCompDirective): what we name, and no files; or else what the shell would.
_NO_FILES, _AS_THE_SHELL = ":4", ":0"
_VARIABLE = "_TRAINSEAL_COMPLETE"


class Shell(enum.StrEnum):
    """Shells that are spoken to."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish.")],
) -> None:
    """Print what teaches your shell the commands, options and names of jobs.

    Names of jobs come from `kubectl`. For `kubectl trainseal` nothing is printed: kubectl finds
    `kubectl_complete-trainseal` beside this program, once its own completion is on.

        source <(trainseal completion bash)
        trainseal completion zsh > ~/.zfunc/_trainseal
        trainseal completion fish > ~/.config/fish/completions/trainseal.fish
    """
    # What `--show-completion` prints, which knows only the shell that it is called from.
    from typer._completion_shared import get_completion_script

    script = get_completion_script(prog_name="trainseal", complete_var=_VARIABLE, shell=shell.value)
    print(script)  # noqa: T201


def job_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """TrainingJobs of the namespace that the line names so far, or of the context's."""
    flags = [
        part
        for option in ("namespace", "context", "kubeconfig")
        if (value := ctx.params.get(option))
        for part in (f"--{option}", str(value))
    ]
    command = ["kubectl", "get", "trainingjobs.trainseal.dev", "-o", "name", *flags]
    try:
        found = subprocess.run(
            command, capture_output=True, text=True, timeout=_SECONDS, check=True
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    names = (line.rpartition("/")[2] for line in found.splitlines())
    return [name for name in names if name.startswith(incomplete)]


def for_kubectl(arguments: list[str]) -> str:
    """What kubectl reads of a plugin's completion: a candidate a line, then a directive.

    Source: kubernetes.io, *Extend kubectl with plugins*, kubectl_complete-<plugin>; the last
    argument is what is being typed.
    """
    from trainseal.cli.main import app

    words = ["trainseal", *arguments]
    os.environ |= {
        _VARIABLE: "complete_bash",
        "COMP_WORDS": shlex.join(words[:-1]) + f" {words[-1]}",
        "COMP_CWORD": str(len(words) - 1),
    }
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
        app(prog_name="trainseal")
    found = said.getvalue().split()
    return "\n".join([*found, _NO_FILES if found else _AS_THE_SHELL])


def kubectl_main() -> None:
    """The entry point of ``kubectl_complete-trainseal``."""
    print(for_kubectl(sys.argv[1:] or [""]))  # noqa: T201
