"""``trainseal template``: a template made of a job, and what changed since one was signed."""

from __future__ import annotations

from typing import Annotated

import typer

from trainseal.cli.options import (
    ContextOption,
    JobFileOption,
    KubeconfigOption,
    NamespaceOption,
    Output,
    OutputOption,
)

template = typer.Typer(
    name="template",
    no_args_is_help=True,
    help="Make a TrainingTemplate of a job; show what changed in one.",
)

_OPEN = "What runs may set"
_WHO = "Who may start runs"


@template.command()
def from_job(
    file: JobFileOption,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="The template's name. Absent: the job's."),
    ] = None,
    opened: Annotated[
        list[str] | None,
        typer.Option(
            "--open",
            metavar="PATH[=BOUNDS]",
            help="Leave a parameter open, by its path in spec.config.parameters: MIN..MAX or a,b,c"
            " for a number, a,b,c or name:LENGTH for a text, nothing for true or false.",
            rich_help_panel=_OPEN,
        ),
    ] = None,
    replicas: Annotated[
        list[str] | None,
        typer.Option(
            "--replicas",
            metavar="ROLE=MIN..MAX",
            help="Leave the size of a role open.",
            rich_help_panel=_OPEN,
        ),
    ] = None,
    code: Annotated[
        list[str] | None,
        typer.Option(
            "--code",
            metavar="NAME=AUTHORITY",
            help="Let a run name newer code for a mount, of the same repository and signed by this"
            " authority.",
            rich_help_panel=_OPEN,
        ),
    ] = None,
    user: Annotated[
        list[str] | None,
        typer.Option("--user", metavar="U", help="This user may.", rich_help_panel=_WHO),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option("--group", metavar="G", help="This group may.", rich_help_panel=_WHO),
    ] = None,
    authority: Annotated[
        list[str] | None,
        typer.Option(
            "--authority",
            metavar="A",
            help="Whom this authority names may; of kind kubernetes.",
            rich_help_panel=_WHO,
        ),
    ] = None,
    max_concurrent: Annotated[
        int | None,
        typer.Option(
            "--max-concurrent",
            min=1,
            metavar="N",
            help="Runs at a time. Absent: any number.",
            rich_help_panel=_WHO,
        ),
    ] = None,
    not_after: Annotated[
        str | None,
        typer.Option(
            "--not-after",
            metavar="TIME",
            help="No run starts later (2027-03-01T00:00:00Z). Absent: no end.",
            rich_help_panel=_WHO,
        ),
    ] = None,
    namespace: NamespaceOption = None,
) -> None:
    """Make an unsigned TrainingTemplate of a TrainingJob, and print it.

    The job stands in it as it is, less signatures, `suspend` and `scheduling`; what is named by an
    option is left open, within its bounds, for whoever starts runs. The type of a parameter is that
    of its value in the job: a whole number stays whole unless a bound is a fraction (0.0..1.0).

        trainseal template from-job -f job.yaml --name pretrain --open optim.lr=1e-5..1e-3 \\
            --open seed=0..65535 --open optim.name=adam,sgd --open tag=name:16 --open amp \\
            --replicas worker=1..8 --group research --not-after 2027-03-01T00:00:00Z > pretrain.yaml
        trainseal sign template -f pretrain.yaml --key alice.key
    """
    import sys

    from trainseal.cli.jobfiles import read_manifest
    from trainseal.cli.templatemaking import Opening, describe, template_from
    from trainseal.cli.terminaltext import plain
    from trainseal.cli.yamltext import written

    opening = Opening(
        name=name,
        opened=opened or (),
        replicas=replicas or (),
        code=code or (),
        users=user or (),
        groups=group or (),
        authorities=authority or (),
        max_concurrent=max_concurrent,
        not_after=not_after,
    )
    made = template_from(read_manifest(file, namespace), opening)
    for line in describe(made):
        print(plain(line), file=sys.stderr)  # noqa: T201
    sys.stdout.write(written(made))


@template.command()
def diff(
    files: Annotated[
        list[str] | None,
        typer.Argument(metavar="OLD NEW", help="Two manifests; - is standard input."),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(
            "-f",
            "--file",
            metavar="NEW",
            help="One manifest, to compare with what the cluster has; - is standard input.",
        ),
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            metavar="NAME",
            help="With -f: the cluster's template of this name. Absent: the one of the same name.",
        ),
    ] = None,
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TEXT,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Show an approver what changed since the template that was signed last.

    Field by field and by meaning: layout, order of keys, and spelling of numbers change nothing.
    First who may start runs and until when, then what runs may set and whether that is wider or
    narrower, then code and images, commands, environment, and all else. Whose signatures the older
    one carries is told as its bundles say it: nothing of that is verified here.

    Exit codes: 0 no difference; 1 there are some; 2 the cluster's template could not be read.

        trainseal template diff pretrain-v7.yaml pretrain-v8.yaml
        trainseal template diff -f pretrain-v8.yaml --against pretrain-v7 -n research
        trainseal template diff old.yaml new.yaml -o json | jq '.changes[] | .path, .effect'
    """
    import asyncio

    from trainseal.cli import templatediff
    from trainseal.cli.clusters import default_namespace
    from trainseal.cli.failures import DONE, REFUTED
    from trainseal.cli.jobfiles import read_job
    from trainseal.cluster.api import connect
    from trainseal.provenance.canonical import TEMPLATE_KIND

    kinds = (TEMPLATE_KIND,)
    if file is None:
        if against is not None or files is None or len(files) != 2:
            raise typer.BadParameter("give two files, or -f NEW", param_hint="OLD NEW")
        old = templatediff.from_file(files[0], namespace)
        new = templatediff.of_file(read_job(files[1], namespace, kinds=kinds))
    else:
        if files:
            raise typer.BadParameter("give two files, or -f NEW", param_hint="OLD NEW")
        new = templatediff.of_file(
            read_job(file, namespace, lambda: default_namespace(kubeconfig, context), kinds)
        )

        async def stored() -> templatediff.Side:
            async with connect(kubeconfig, context) as kube:
                return await templatediff.from_cluster(
                    kube, new.signed.namespace, against or new.signed.name
                )

        old = asyncio.run(stored())
    found = templatediff.compare(old, new)
    if output is Output.JSON:
        templatediff.print_json(found)
    else:
        templatediff.print_text(found)
    raise typer.Exit(REFUTED if found.changes else DONE)
