"""``trainseal break-glass``: letting one person into a run's pods for a while; and the review."""

from __future__ import annotations

import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated

import typer

from trainseal.cli.drift import JobArgument
from trainseal.cli.groups import default_command
from trainseal.cli.options import ContextOption, KubeconfigOption, Output, OutputOption, PlaceOption

OPEN = "open"
_LONGEST = timedelta(days=1)
_UNITS = {"s": 1, "m": 60, "h": 3600}


class WayOption(StrEnum):
    """The ways in, and to change a pod in place, as a BreakGlass names them."""

    EXEC = "Exec"
    ATTACH = "Attach"
    PORT_FORWARD = "PortForward"
    PROXY = "Proxy"
    EPHEMERAL_CONTAINER = "EphemeralContainer"
    RESIZE = "Resize"


breakglass = typer.Typer(
    name="break-glass",
    cls=default_command(OPEN),
    help="Let one person into a run's pods for a while, where the policy asks for that; list who "
    "was let in; review what they did.",
    no_args_is_help=True,
)


def _span(text: str) -> timedelta:
    """``30m``, ``2h``, ``90s``."""
    match = re.fullmatch(r"([1-9][0-9]{0,4})([smh])", text)
    span = timedelta(seconds=int(match[1]) * _UNITS[match[2]]) if match else timedelta()
    if not timedelta() < span <= _LONGEST:
        raise typer.BadParameter(
            f"found {text!r}, expected a time like 90s, 30m or 2h, at most 24h", param_hint="--for"
        )
    return span


@breakglass.command(OPEN)
def open_(
    job: JobArgument,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; kept as evidence.")],
    span: Annotated[
        str, typer.Option("--for", metavar="TIME", help="How long: 90s, 30m, 2h.")
    ] = "30m",
    user: Annotated[
        str | None,
        typer.Option("--user", metavar="USER", help="Who is let in. Absent: you yourself."),
    ] = None,
    way: Annotated[
        list[WayOption] | None,
        typer.Option(
            "--way", case_sensitive=False, help="Only this way in. Absent: all that need it."
        ),
    ] = None,
    namespace: PlaceOption = None,
    output: OutputOption = Output.TEXT,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Let one person into the pods of a job's run for a while.

    It counts where a policy's `access` says `BreakGlass`, and you answer for it: it takes the right
    to create BreakGlasses (`trainseal-approver`). For yourself it counts only where the policy's
    `access.breakGlass.selfApproval` names you. Each use is on record and a finding, and the run's
    checkpoints are tainted until somebody else has reviewed it. It cannot be taken back: keep
    it short. The word `open` may be left out, but for a job that is called `open`, `list` or
    `review`.

    Exit codes: 0 it is made; 1 you may not; 2 the cluster could not be asked.

        trainseal break-glass char-lm --user ann@example.org --reason "loss spikes, INC-1906"
        trainseal break-glass open char-lm --for 10m --way exec --reason "hangs on rank 3, on call"
    """
    import asyncio
    import json

    from trainseal.cli import glass
    from trainseal.cli.clusters import default_namespace
    from trainseal.cluster.api import connect

    if not reason.strip():
        raise typer.BadParameter("say why somebody is let in", param_hint="--reason")
    wanted = glass.Wanted(_span(span), user, tuple(w.value for w in way or ()), reason.strip())
    place = namespace or default_namespace(kubeconfig, context)

    async def work() -> glass.Made:
        async with connect(kubeconfig, context) as kube:
            return await glass.make(kube, place, job, wanted)

    made = asyncio.run(work())
    if output is Output.JSON:
        print(json.dumps(made.obj, indent=2, ensure_ascii=False))  # noqa: T201
    else:
        print(made.words())  # noqa: T201


@breakglass.command("list")
def list_(
    job: JobArgument,
    namespace: PlaceOption = None,
    output: OutputOption = Output.TEXT,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """List who was let into a job's runs, until when, by whom; and what waits for review.

    Exit codes: 0 nothing waits for review; 1 something does; 2 they could not be read.

        trainseal break-glass list char-lm
        trainseal break-glass list char-lm -o json | jq '.breakGlasses[] | select(.waits)'
    """
    import asyncio

    from trainseal.cli import glass
    from trainseal.cli.clusters import default_namespace
    from trainseal.cluster.api import connect

    place = namespace or default_namespace(kubeconfig, context)

    async def work() -> glass.Listed:
        async with connect(kubeconfig, context) as kube:
            return await glass.look(kube, place, job)

    found = asyncio.run(work())
    if output is Output.JSON:
        glass.print_json(found)
    else:
        glass.print_text(found)
    raise typer.Exit(found.exit_code)


@breakglass.command()
def review(
    job: JobArgument,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="What you found; kept as evidence.")
    ],
    name: Annotated[
        list[str] | None,
        typer.Option("--name", metavar="NAME", help="This one only. Absent: all that wait."),
    ] = None,
    namespace: PlaceOption = None,
    wait: Annotated[
        int, typer.Option(min=0, max=3600, metavar="SECONDS", help="How long to wait for it.")
    ] = 30,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Say that you looked at what was done by the BreakGlasses of a job's runs.

    What tainted the runs' checkpoints by them goes; what was found otherwise stays. Look at
    `trainseal drift JOB` and `kubectl get access` first. It takes the right to create HoldReleases
    (`trainseal-responder`), and who got in cannot review it. Used again, it waits for review again.

    Exit codes: 0 it is reviewed; 1 it is not, with the reason; 2 nobody answered in time.

        trainseal break-glass review char-lm --reason "read-only session, compared its files"
    """
    import asyncio

    from trainseal.cli import glass
    from trainseal.cli.clusters import default_namespace
    from trainseal.cluster.api import connect

    if not reason.strip():
        raise typer.BadParameter("say what you found", param_hint="--reason")
    place = namespace or default_namespace(kubeconfig, context)

    async def work() -> None:
        async with connect(kubeconfig, context) as kube:
            await glass.review(kube, place, job, name or (), reason.strip(), wait)

    asyncio.run(work())
