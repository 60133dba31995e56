"""``trainseal status``: what was verified, who signed, who asked, what runs."""

from __future__ import annotations

from typing import Annotated

import typer

from trainseal.cli.drift import JobArgument
from trainseal.cli.options import (
    ContextOption,
    KubeconfigOption,
    Output,
    OutputOption,
    PlaceOption,
    ReleaseNamespaceOption,
)


def status(
    job: JobArgument,
    namespace: PlaceOption = None,
    output: OutputOption = Output.TEXT,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Follow it until it ends; only for text.")
    ] = False,
    release_namespace: ReleaseNamespaceOption = "trainseal-system",
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Show what was verified of a job, by whom it was signed, who asked, what runs.

    What was verified, and under which policies, is taken from the run's seal. Its signature is
    verified where you may read the operator's public keyring, which lies where TrainSeal is
    installed; else the seal is shown as unverified.

    Exit codes: 0; 1 there is no such job, or the seal is not the operator's; 2 the cluster could
    not be read.

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

    async def work() -> int:
        async with connect(kubeconfig, context) as kube:
            if watch:
                return await statusview.watch(kube, place, job, release_namespace)
            found = await statusview.look(kube, place, job, release_namespace)
            if output is Output.JSON:
                statusview.print_json(found)
            else:
                statusview.print_text(found)
            return found.exit_code

    raise typer.Exit(asyncio.run(work()))
