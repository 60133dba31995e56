"""``trainseal checkpoints``: what runs wrote, signed and tainted; comparing it; signing it off."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainseal.cli.drift import JobArgument
from trainseal.cli.groups import default_command
from trainseal.cli.options import (
    ContextOption,
    KeyringOption,
    KubeconfigOption,
    Output,
    OutputOption,
    PlaceOption,
    ReleaseNamespaceOption,
)

LIST = "list"


checkpoints = typer.Typer(
    name="checkpoints",
    cls=default_command(LIST),
    help="Show the checkpoints that runs wrote, compare a folder with them, sign tainted ones off.",
    no_args_is_help=True,
)

SealOption = Annotated[
    str | None,
    typer.Option(metavar="SEAL", help="Of this run; absent: of all the job's runs."),
]


@checkpoints.command(LIST)
def list_(
    job: JobArgument,
    namespace: PlaceOption = None,
    output: OutputOption = Output.TEXT,
    seal: SealOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """List the checkpoints of a job's runs: files, digests, signed or not, tainted by what.

    The word `list` may be left out. A job that is deleted keeps its manifests. JSON has each
    manifest whole, with its DSSE envelope; `verify` reads it without a cluster.

    Exit codes: 0 all are signed and clean, or signed off; 1 some are tainted; 2 some are not
    signed, or they could not be read.

        trainseal checkpoints list char-lm
        trainseal checkpoints char-lm -n research -o json > manifests.json
    """
    import asyncio

    from trainseal.cli import checkpointview
    from trainseal.cli.clusters import default_namespace
    from trainseal.cluster.api import connect

    place = namespace or default_namespace(kubeconfig, context)

    async def work() -> checkpointview.RunCheckpoints:
        async with connect(kubeconfig, context) as kube:
            return await checkpointview.look(kube, place, job, seal)

    found = asyncio.run(work())
    if output is Output.JSON:
        checkpointview.print_json(found)
    else:
        checkpointview.print_text(found)
    raise typer.Exit(found.exit_code)


@checkpoints.command()
def verify(
    folder: Annotated[
        Path,
        typer.Argument(
            metavar="FOLDER",
            help="A copy of the checkpoints directory, or of a part of it.",
            exists=True,
            file_okay=False,
        ),
    ],
    job: Annotated[
        str | None,
        typer.Option("--job", metavar="JOB", help="The job whose runs wrote it; asks the cluster."),
    ] = None,
    manifests: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="What `trainseal checkpoints JOB -o json` printed, instead of a cluster.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    keyring: KeyringOption = None,
    below: Annotated[
        str, typer.Option(metavar="PATH", help="Where FOLDER lay in the checkpoints directory.")
    ] = "",
    seal: SealOption = None,
    namespace: PlaceOption = None,
    output: OutputOption = Output.TEXT,
    release_namespace: ReleaseNamespaceOption = "trainseal-system",
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Compare a folder with the signed manifests of a job's checkpoints.

    Every file must have the content that the last signed manifest of its name says, and none may
    be tainted, unless a person signed it off. Of a manifest with a file here, all files must be.
    Links are not followed.

    Exit codes: 0 it is what the job's runs wrote; 1 a file is changed, missing, tainted or has no
    manifest; 2 there are no manifests, or no keyring to verify them with.

        trainseal checkpoints verify ./step-500 --job char-lm --below step-500
        trainseal checkpoints verify ./ckpt --manifests manifests.json --keyring keyring.yaml
    """
    from trainseal.cli import checkpointverification as verification
    from trainseal.cli.clusters import default_namespace

    if (job is None) == (manifests is None):
        raise typer.BadParameter("give one of --job and --manifests", param_hint="--job")
    source = verification.Source(
        namespace=namespace or ("" if job is None else default_namespace(kubeconfig, context)),
        job=job,
        seal=seal,
        manifests=manifests,
        keyring=keyring,
        release_namespace=release_namespace,
        kubeconfig=kubeconfig,
        context=context,
    )
    found = verification.compare(folder, below.strip("/"), verification.read(source))
    if output is Output.JSON:
        verification.print_json(found)
    else:
        verification.print_text(found)
    raise typer.Exit(found.exit_code)


@checkpoints.command()
def accept(
    job: JobArgument,
    reason: Annotated[
        str,
        typer.Option("--reason", metavar="TEXT", help="Why a job may go on; kept as evidence."),
    ],
    seal: SealOption = None,
    namespace: PlaceOption = None,
    wait: Annotated[
        int, typer.Option(min=0, max=3600, metavar="SECONDS", help="How long to wait for it.")
    ] = 30,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Sign off the tainted checkpoints of a job's runs, so that a job may go on from them.

    Look at `trainseal checkpoints JOB` and `trainseal drift JOB` first: those that stand there now
    are signed off, by name, and none that comes later. It takes the right to create HoldReleases
    (`trainseal-responder`); who wrote them, or is named by a finding on the run, cannot.

    Exit codes: 0 they are signed off; 1 they are not, with the reason; 2 nobody answered in time.

        trainseal checkpoints accept char-lm --reason "compared with the run of 12 May, by Ann"
    """
    import asyncio

    from trainseal.cli import acceptance
    from trainseal.cli.clusters import default_namespace
    from trainseal.cluster.api import connect

    if not reason.strip():
        raise typer.BadParameter("say why a job may go on from them", param_hint="--reason")
    place = namespace or default_namespace(kubeconfig, context)

    async def work() -> None:
        async with connect(kubeconfig, context) as kube:
            await acceptance.accept(kube, place, job, seal, reason.strip(), wait)

    asyncio.run(work())
