"""``trainseal policy``: what helps to write a ProvenancePolicy."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainseal.cli.completion import job_names
from trainseal.cli.options import (
    ContextOption,
    KubeconfigOption,
    Output,
    OutputOption,
    PlaceOption,
    ReleaseNamespaceOption,
)

policy = typer.Typer(name="policy", no_args_is_help=True, help="Help to write a ProvenancePolicy.")


@policy.callback()
def _policy() -> None:
    """Keeps ``learn-additions`` a word of its own, though it is alone."""


@policy.command()
def learn_additions(
    jobs: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[JOB]...",
            help="TrainingJobs. Absent: all of the namespace.",
            autocompletion=job_names,
        ),
    ] = None,
    namespace: PlaceOption = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "-f",
            "--file",
            metavar="FILE",
            help="A dump of SealedRuns and pods, instead of a cluster; several may be given.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
    release_namespace: ReleaseNamespaceOption = "trainseal-system",
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Propose what a policy may let the platform add, from pods of sealed runs.

    Under `Audit` a service mesh or a Vault injector changes pods, and they run with a warning. This
    prints YAML for `spec.pods.additions`, and changes nothing: what all pods of a role have beside
    what was signed, containers by their images' digests. What some pods have and others have not,
    what loads code, and what no policy may allow is listed with the reason. Who may change
    policies decides, and stands for it.

    Exit codes: 0 with the proposal all pods are what their seals say; 1 some are not, with the
    reason; 2 there are no pods, or they could not be read.

        trainseal policy learn-additions -n research > additions.yaml
        trainseal policy learn-additions char-lm -n research -o json | jq '.left'
        kubectl get sealedruns,pods -n research -o yaml > dump.yaml
        trainseal policy learn-additions -f dump.yaml
    """
    import asyncio
    import json

    from trainseal.cli import additionslearning, additionssource, additionsview
    from trainseal.cli.clusters import default_namespace
    from trainseal.cli.failures import DONE, REFUTED
    from trainseal.cluster.api import connect

    async def look() -> list[additionslearning.RolePods]:
        if file:
            return additionssource.from_files(file, [namespace] if namespace else [], jobs or [])
        place = namespace or default_namespace(kubeconfig, context)
        async with connect(kubeconfig, context) as kube:
            return await additionssource.from_cluster(kube, release_namespace, place, jobs or [])

    proposal = additionslearning.propose(asyncio.run(look()))
    verified = not file
    if output is Output.JSON:
        found = additionsview.as_json(proposal, verified=verified)
        text = json.dumps(found, indent=2, ensure_ascii=False)
    else:
        text = "\n".join(additionsview.as_yaml(proposal, verified=verified))
    print(text)  # noqa: T201
    raise typer.Exit(REFUTED if proposal.left else DONE)
