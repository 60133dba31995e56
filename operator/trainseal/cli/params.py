"""``trainseal params``: Hydra's overrides as the parameters of a run."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

from trainseal.cli.options import NamespaceOption


class Form(enum.StrEnum):
    """What is printed."""

    YAML = "yaml"
    JSON = "json"
    JOB = "job"


def params(
    hydra: Annotated[
        Path,
        typer.Option(
            "--hydra",
            metavar="CONF",
            help="The config: a directory with config.yaml in it, or a file. Read, never run.",
            exists=True,
        ),
    ],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Hydra's overrides, after a `--`."),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(
            "--template", metavar="FILE", help="The signed template, by whose bounds to judge."
        ),
    ] = None,
    output: Annotated[
        Form,
        typer.Option(
            "-o", "--output", help="The parameters, or a whole TrainingJob of the template."
        ),
    ] = Form.YAML,
    namespace: NamespaceOption = None,
) -> None:
    """Turn Hydra's overrides into `spec.parameters` of a TrainingJob that names a template.

    Plain values alone: numbers, `true` and `false`, texts in quotes or without. What makes
    configuration into code, or composes it, is refused with the reason: `_target_`, `+key=`,
    `~key`, interpolations, config groups. Sweeps are too: one job each, in a loop. Each key must be
    in the config, with a value of the same type; with `--template`, each value within its bounds.

        trainseal params --hydra conf -- optim.lr=3e-4 seed=17
        trainseal params --hydra conf --template tmpl.yaml -o job -- seed=17 | kubectl create -f -
    """
    import json
    import sys

    from trainseal.api.model import JsonObject
    from trainseal.cli.failures import Failure
    from trainseal.cli.hydraconfig import read_config
    from trainseal.cli.jobfiles import read_job
    from trainseal.cli.launchfile import launched, notes
    from trainseal.cli.overrides import OverrideError, read_overrides
    from trainseal.cli.terminaltext import plain
    from trainseal.cli.yamltext import written
    from trainseal.provenance.canonical import TEMPLATE_KIND

    if output is Form.JOB and template is None:
        raise typer.BadParameter("a whole job takes --template FILE", param_hint="--output")
    try:
        found = read_overrides(overrides or ())
    except OverrideError as error:
        raise Failure(
            f"{plain(error.text[:80])}: found {error.found}",
            expected=error.expected,
            remedy=error.remedy,
        ) from None
    config = read_config(hydra)
    for override in found:
        config.check(override)
    parameters: JsonObject = {o.path: o.value for o in found}
    printed = parameters
    if template is not None:
        signed = read_job(template, namespace, kinds=(TEMPLATE_KIND,))
        job = launched(signed, {o.path: o.value for o in found})
        printed = job if output is Form.JOB else parameters
        for note in notes(signed):
            print(note, file=sys.stderr)  # noqa: T201
    text = json.dumps(printed, indent=2) + "\n" if output is Form.JSON else written(printed)
    sys.stdout.write(text)
