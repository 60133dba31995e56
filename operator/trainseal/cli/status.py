"""``trainseal status``: what was verified, who signed, who asked, what runs."""

from __future__ import annotations

from typing import Annotated

import typer

from trainseal.cli.options import (
    ContextOption,
    KubeconfigOption,
    Output,
    OutputOption,
)


def status(
    job: Annotated[str, typer.Argument(metavar="JOB", help="Name of the TrainingJob.")],
    namespace: Annotated[
        str | None,
        typer.Option("-n", "--namespace", metavar="NS", help="Absent: the context's namespace."),
    ] = None,
    output: OutputOption = Output.TEXT,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Follow it until it ends; only for text.")
    ] = False,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Show what was verified of a job, by whom it was signed, who asked, what runs.

    What was verified, and under which policies, is taken from the run's seal.

        trainseal status char-lm
        trainseal status char-lm -n research --watch
        trainseal status char-lm -o json | jq .phase
    """
    import asyncio

    from trainseal.cli import statusview
    from trainseal.cli.clusters import default_namespace
    from trainseal.cluster.api import connect

    if watch and output is Output.JSON:
        raise typer.BadParameter("--watch is for text", param_hint="--watch")
    place = namespace or default_namespace(kubeconfig, context)

    async def work() -> None:
        async with connect(kubeconfig, context) as kube:
            if watch:
                await statusview.watch(kube, place, job)
                return
            found = await statusview.look(kube, place, job)
            if output is Output.JSON:
                statusview.print_json(found)
            else:
                statusview.print_text(found)

    asyncio.run(work())
