"""``trainseal``: one command, for people and for the processes in the cluster.

Each subcommand imports what it needs when it is called: the gate starts once for every pod.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from pathlib import Path
from typing import Annotated

import typer

from trainseal.cli import (
    approve,
    breakglass,
    checkpoints,
    completion,
    debug,
    doctor,
    drift,
    evidence,
    lineage,
    manpages,
    params,
    policies,
    sign,
    simulate,
    status,
    submit,
    templates,
    verify,
    wrap,
)
from trainseal.cli.failures import run

app = typer.Typer(
    name="trainseal",
    help="A training job runs only if what it runs carries the signatures a policy asks for.",
    no_args_is_help=True,
    rich_markup_mode="markdown",  # paragraphs flow, indented lines are examples
    pretty_exceptions_enable=False,
)

RUNNING = "Jobs in the cluster"
HELP = "This program"
PROCESSES = "Processes in the cluster"

app.command(rich_help_panel=RUNNING)(submit.submit)
app.command(rich_help_panel=RUNNING)(status.status)
app.command(rich_help_panel=sign.SIGNING)(approve.approve)
app.add_typer(drift.drift, rich_help_panel=RUNNING)
app.command(rich_help_panel=RUNNING)(drift.thaw)
app.command(rich_help_panel=RUNNING)(debug.debug)
app.command(rich_help_panel=sign.SIGNING)(sign.canonical)
app.command(rich_help_panel=sign.SIGNING)(sign.digest)
app.add_typer(breakglass.breakglass, rich_help_panel=RUNNING)
app.add_typer(evidence.evidence, rich_help_panel=RUNNING)
app.add_typer(checkpoints.checkpoints, rich_help_panel=RUNNING)
app.command(rich_help_panel=RUNNING)(lineage.lineage)
app.add_typer(sign.sign, rich_help_panel=sign.SIGNING)
app.add_typer(templates.template, rich_help_panel=sign.SIGNING)
app.command(rich_help_panel=sign.SIGNING)(verify.verify)
app.command(rich_help_panel=sign.SIGNING)(wrap.wrap)
app.command(rich_help_panel=RUNNING)(params.params)
app.command(rich_help_panel=RUNNING)(simulate.simulate)
app.add_typer(policies.policy, rich_help_panel=RUNNING)
app.command(rich_help_panel=RUNNING)(doctor.doctor)
app.command(rich_help_panel=HELP)(completion.completion)
app.command(rich_help_panel=HELP)(manpages.man)
app.command(rich_help_panel=HELP)(doctor.version)

Namespace = Annotated[str, typer.Option(help="Namespace that TrainSeal is installed in.")]
Config = Annotated[Path, typer.Option(help="Configuration file, from the chart's ConfigMap.")]
MetricsPort = Annotated[int, typer.Option(help="Port of /healthz, /readyz and /metrics.")]
Kubeconfig = Annotated[str | None, typer.Option(help="Absent: the pod's service account.")]
LogLevel = Annotated[str, typer.Option(help="debug, info, warning or error.")]


def _log(level: str) -> None:
    logging.basicConfig(
        level=level.upper(),
        stream=sys.stderr,
        format="%(asctime)s %(levelname)s %(name)s %(message)s",
    )


@app.command(rich_help_panel=PROCESSES)
def webhook(
    namespace: Namespace = "trainseal-system",
    config: Config = Path("/etc/trainseal/config.yaml"),
    tls_secret: Annotated[str, typer.Option(help="Secret with the serving certificate.")] = (
        "trainseal-webhook-tls"  # noqa: S107 - a name, no secret
    ),
    port: Annotated[int, typer.Option(help="Port of the webhook, TLS.")] = 8443,
    metrics_port: MetricsPort = 8080,
    kubeconfig: Kubeconfig = None,
    log_level: LogLevel = "info",
) -> None:
    """The admission webhook.

    The chart runs it; by hand:

        trainseal webhook --namespace trainseal-system --config config.yaml
    """
    from trainseal.admission.main import Options, serve

    _log(log_level)
    options = Options(
        namespace=namespace,
        config=config,
        tls_secret=tls_secret,
        port=port,
        metrics_port=metrics_port,
        kubeconfig=kubeconfig,
    )
    raise typer.Exit(asyncio.run(serve(options)))


@app.command(rich_help_panel=PROCESSES)
def controller(
    namespace: Namespace = "trainseal-system",
    config: Config = Path("/etc/trainseal/config.yaml"),
    metrics_port: MetricsPort = 8080,
    kubeconfig: Kubeconfig = None,
    log_level: LogLevel = "info",
) -> None:
    """The controller: seals, engines, status. One replica leads.

    The chart runs it; by hand:

        trainseal controller --config config.yaml --kubeconfig ~/.kube/config
    """
    from trainseal.controller.main import Options, serve

    _log(log_level)
    options = Options(
        namespace=namespace,
        config=config,
        metrics_port=metrics_port,
        kubeconfig=kubeconfig,
    )
    raise typer.Exit(asyncio.run(serve(options)))


@app.command(rich_help_panel=PROCESSES)
def archive(
    folder: Annotated[Path, typer.Option(help="Where records are kept: a volume.")] = Path(
        "/var/lib/trainseal"
    ),
    namespace: Namespace = "trainseal-system",
    metrics_port: MetricsPort = 8080,
    kubeconfig: Kubeconfig = None,
    log_level: LogLevel = "info",
) -> None:
    """The archive: records every seal, finding and access record on a volume.

    The chart runs it; by hand:

        trainseal archive --folder /var/lib/trainseal
    """
    from trainseal.archive.main import Options, serve

    _log(log_level)
    options = Options(
        namespace=namespace, folder=folder, metrics_port=metrics_port, kubeconfig=kubeconfig
    )
    raise typer.Exit(asyncio.run(serve(options)))


@app.command(rich_help_panel=PROCESSES)
def agent(
    node: Annotated[str, typer.Option(help="Name of the node.", envvar="NODE_NAME")],
    namespace: Namespace = "trainseal-system",
    cgroups: Annotated[Path, typer.Option(help="Where the node's control groups are mounted.")] = (
        Path("/sys/fs/cgroup")
    ),
    freeze: Annotated[bool, typer.Option(help="Whether pods may be frozen.")] = True,
    metrics_port: MetricsPort = 8080,
    kubeconfig: Kubeconfig = None,
    log_level: LogLevel = "info",
) -> None:
    """The node's agent: watches its sealed pods. Runs as root in the node's PID namespace.

    The chart runs it; by hand:

        trainseal agent --node gpu-7 --no-freeze
    """
    from trainseal.agent.main import Options, serve

    _log(log_level)
    options = Options(
        node=node,
        namespace=namespace,
        cgroups=cgroups,
        may_freeze=freeze,
        metrics_port=metrics_port,
        kubeconfig=kubeconfig,
    )
    raise typer.Exit(asyncio.run(serve(options)))


@app.command(rich_help_panel=PROCESSES)
def gate(
    plan: Annotated[str, typer.Option(help="What must be found, as JSON; part of the seal.")],
) -> None:
    """The first init container of each training pod.

    The controller writes it into the pods that it seals; by hand:

        trainseal gate --plan "$PLAN"
    """
    from trainseal.gate.main import run_text

    raise typer.Exit(run_text(plan))


def main() -> None:
    """The entry point, of the command and of kubectl's plugin."""
    plugin = Path(sys.argv[0]).name == "kubectl-trainseal"
    sys.exit(run(app, program="kubectl trainseal" if plugin else "trainseal"))


if __name__ == "__main__":
    main()
