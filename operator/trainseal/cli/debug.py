"""``trainseal debug``: looks into a run, by the hand of its nodes' agents."""

from __future__ import annotations

from typing import Annotated

import typer

from trainseal.cli.drift import JobArgument
from trainseal.cli.options import ContextOption, KubeconfigOption, Output, OutputOption, PlaceOption


def debug(
    job: JobArgument,
    stacks: Annotated[
        bool, typer.Option("--stacks", help="The Python stacks of all ranks, alike ones together.")
    ] = False,
    namespace: PlaceOption = None,
    rank: Annotated[
        str | None,
        typer.Option(metavar="RANK", help="Show this one alone; with several roles ROLE/INDEX."),
    ] = None,
    wait: Annotated[
        int, typer.Option(min=1, max=3600, metavar="SECONDS", help="How long to wait for answers.")
    ] = 30,
    output: OutputOption = Output.TEXT,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Look into a run without entering its pods.

    With `--stacks` the agent of each node reads what the Python processes of the run's pods are
    doing, from their memory: they are not stopped, and frozen pods are read as any. Ranks that
    stand at the same place are shown together, so that the odd one out is seen.

    Functions, files and lines are shown, no values. It takes the right to create StackRequests
    (the cluster's role `edit`, or `trainseal-debugger`), and who asked is on record. One request
    a minute is made of a run; who asks in the same minute gets the same answer.

    Exit codes: 0 there are stacks of every running rank; 1 it is not allowed; 2 somebody did not
    answer, or has none.

        trainseal debug char-lm --stacks
        trainseal debug char-lm --stacks --rank 7
        trainseal debug char-lm --stacks -o json | jq '.groups[] | select(.main) | .ranks'
    """
    import asyncio

    from trainseal.cli import stackview
    from trainseal.cli.clusters import default_namespace
    from trainseal.cli.stacks import RunStacks, ask
    from trainseal.cluster.api import connect

    if not stacks:
        raise typer.BadParameter("say what to look at", param_hint="--stacks")
    place = namespace or default_namespace(kubeconfig, context)

    async def work() -> RunStacks:
        async with connect(kubeconfig, context) as kube:
            return await ask(kube, place, job, rank, wait, stackview.progress)

    found = asyncio.run(work())
    if output is Output.JSON:
        stackview.print_json(found)
    else:
        stackview.print_text(found)
    raise typer.Exit(found.exit_code)
