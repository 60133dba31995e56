"""``trainseal lineage``: from a checkpoint back to its inputs, signers and findings."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainseal.cli.options import (
    ContextOption,
    KeyringOption,
    KubeconfigOption,
    Output,
    OutputOption,
    PlaceOption,
    ReleaseNamespaceOption,
)


def lineage(
    what: Annotated[
        str,
        typer.Argument(
            metavar="CHECKPOINT",
            help="A Checkpoint, as NAME or NAMESPACE/NAME. Or a run, by its seal; or a TrainingJob,"
            " for its last run.",
        ),
    ],
    namespace: PlaceOption = None,
    output: OutputOption = Output.TEXT,
    archive: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="A copy of the archive's volume, for what is gone from the cluster.",
            exists=True,
            file_okay=False,
        ),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Ask no cluster: takes --archive and --keyring.")
    ] = False,
    keyring: KeyringOption = None,
    depth: Annotated[
        int,
        typer.Option(min=0, max=256, metavar="RUNS", help="How many runs back at most."),
    ] = 64,
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the bundle of its files there, for `model_signing verify`."
        ),
    ] = None,
    public_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the key there that the bundle is verified by."),
    ] = None,
    release_namespace: ReleaseNamespaceOption = "trainseal-system",
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Walk from a checkpoint to its run's inputs, signers and findings, and to the runs before it.

    Every signature on the way is verified: of manifests, of seals, of the statements that are made
    when runs end. What was read and is not what it claims to be is `refuted`; what could not be
    read, or is not there, is `undetermined`. Runs before it are those whose checkpoints lay in
    its directories when it was sealed: it could go on from them.

    Exit codes: 0 all is verified; 1 something is refuted, or the checkpoint is tainted and nobody
    signed it off; 2 something is undetermined.

        trainseal lineage char-lm-worker-0-x7kq2-0aa3b1c2-5d1f20c93ab7 -n research
        trainseal lineage research/char-lm -o json
        trainseal lineage research/char-lm --bundle output.sig --public-key operator.pub
        trainseal lineage research/char-lm-4f2a9c01-7a0c1f2e --archive copy
    """
    from trainseal.cli import lineageasking, lineageview
    from trainseal.cli.clusters import default_namespace

    space, _, name = what.rpartition("/")
    if offline and (archive is None or keyring is None):
        raise typer.BadParameter("takes --archive and --keyring", param_hint="--offline")
    if space and namespace not in (None, space):
        raise typer.BadParameter("names another namespace", param_hint="CHECKPOINT")
    if public_key is not None and bundle is None:
        raise typer.BadParameter("goes with --bundle", param_hint="--public-key")
    place = space or namespace or ("" if offline else default_namespace(kubeconfig, context))
    if not place:
        raise typer.BadParameter("give NAMESPACE/NAME, or -n", param_hint="CHECKPOINT")
    asked = lineageasking.Asked(
        namespace=place,
        name=name,
        archive=archive,
        offline=offline,
        keyring=keyring,
        depth=depth,
        release_namespace=release_namespace,
        kubeconfig=kubeconfig,
        context=context,
    )
    answer = lineageasking.ask(asked)
    if bundle is not None:
        lineageasking.write_bundle(answer, bundle, public_key)
    if output is Output.JSON:
        lineageview.print_json(answer.lineage)
    else:
        lineageview.print_text(answer.lineage)
    raise typer.Exit(lineageview.exit_code(answer.lineage))
