"""``trainseal simulate``: what a policy would refuse of what exists."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainseal.cli.options import (
    CaFileOption,
    ContextOption,
    KubeconfigOption,
    Output,
    OutputOption,
    PlainHttpOption,
    ReleaseNamespaceOption,
)


def simulate(
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "-f",
            "--file",
            metavar="FILE",
            help="Manifests or `kubectl get -o yaml`, instead of a cluster; several may be given.",
            exists=True,
            dir_okay=False,
        ),
    ] = None,
    policy: Annotated[
        list[Path] | None,
        typer.Option(
            "--policy",
            metavar="FILE",
            help="ProvenancePolicies and TrustRoots, instead of the cluster's.",
        ),
    ] = None,
    namespace: Annotated[
        list[str] | None,
        typer.Option("-n", "--namespace", metavar="NS", help="Only these. Absent: all."),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Contact no registry: TrainingJobs are not judged."),
    ] = False,
    enforce: Annotated[
        bool,
        typer.Option("--enforce", help="As if every policy said `Enforce`."),
    ] = False,
    output: OutputOption = Output.TEXT,
    release_namespace: ReleaseNamespaceOption = "trainseal-system",
    plain_http: PlainHttpOption = None,
    ca_file: CaFileOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Say what would be refused of what exists, under the cluster's policies or others, and why.

    Pods, whatever makes pods, and TrainingJobs are judged as if they were made now, by the
    webhook's own code; nothing is changed. What belongs to a sealed run is counted and not judged
    again. With a dump no cluster is asked, and the chart's defaults hold.

    Exit codes: 0 nothing would be refused; 1 something would; 2 something could not be judged.

        trainseal simulate --enforce
        trainseal simulate --policy enforce-research.yaml -n research
        kubectl get pods,deploy,sts,ds,jobs,cronjobs,tj -A -o yaml > dump.yaml
        trainseal simulate -f dump.yaml --policy policy.yaml -o json | jq '.objects[] | .why'
    """
    import asyncio

    from trainseal.cli import simulation, simulationsource
    from trainseal.cli.registries import registry_client
    from trainseal.cluster.api import connect

    if file and not policy:
        raise typer.BadParameter("with a dump, name the policies' files", param_hint="--policy")

    async def work() -> simulation.Simulation:
        if file:
            world = simulationsource.from_files(file, policy or ())
        else:
            async with connect(kubeconfig, context) as kube:
                world = await simulationsource.from_cluster(
                    kube, release_namespace, policy or (), namespace or ()
                )
        if enforce:
            world = world.enforced()
        if offline:
            return await simulation.run(world, namespace or (), None)
        async with registry_client(plain_http, ca_file) as client:
            return await simulation.run(world, namespace or (), client)

    found = asyncio.run(work())
    if output is Output.JSON:
        simulation.print_json(found)
    else:
        simulation.print_text(found)
    raise typer.Exit(found.exit_code)
