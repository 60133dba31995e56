"""``trainseal doctor`` and ``version``: whether a cluster is set up, and what this program is."""

from __future__ import annotations

import typer

from trainseal.cli.options import (
    ContextOption,
    KubeconfigOption,
    Output,
    OutputOption,
    ReleaseNamespaceOption,
)


def doctor(
    release_namespace: ReleaseNamespaceOption = "trainseal-system",
    output: OutputOption = Output.TEXT,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Look whether TrainSeal works in a cluster, and say what to do where it does not.

    Kinds, webhooks, floor and roles as the chart made them; certificates, and whether the API
    server reaches the webhook; processes and keys; policies and the namespaces that they name;
    the agents of nodes with sealed pods; accounts that the chart names, Pod Security Admission,
    DaemonSets that are refused for their GPUs, and namespaces that are going.

    Exit codes: 0 nothing is wrong; 1 something is; 2 the cluster did not answer. What you may not
    see is said, and counts as neither; so does what may be meant so, such as a policy in Audit.

        trainseal doctor
    """
    import asyncio

    from trainseal.cli import checkup, checkupreport
    from trainseal.cluster.api import connect

    async def work() -> list[checkupreport.Finding]:
        async with connect(kubeconfig, context) as kube:
            return await checkup.examine(kube, release_namespace)

    findings = asyncio.run(work())
    checkupreport.show(findings, as_json=output is Output.JSON)
    raise typer.Exit(checkupreport.exit_code(findings))


def version() -> None:
    """Print the version.

    Of this program, and not of what a cluster runs.

        trainseal version
    """
    from trainseal import __version__

    print(f"trainseal {__version__}")  # noqa: T201
