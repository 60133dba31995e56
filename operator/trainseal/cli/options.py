"""Options that several commands share: one spelling and one meaning each."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Annotated

import typer

_REGISTRY = "Registries"
_CLUSTER = "Cluster"


class Output(enum.StrEnum):
    """How data is printed."""

    TEXT = "text"
    JSON = "json"


JobFileOption = Annotated[
    str,
    typer.Option("-f", "--file", metavar="FILE", help="The job's manifest; - is standard input."),
]
TemplateFileOption = Annotated[
    str,
    typer.Option(
        "-f", "--file", metavar="FILE", help="The template's manifest; - is standard input."
    ),
]
NamespaceOption = Annotated[
    str | None,
    typer.Option(
        "-n",
        "--namespace",
        metavar="NS",
        help="Namespace, where the manifest names none, as with kubectl.",
    ),
]
PlaceOption = Annotated[
    str | None,
    typer.Option("-n", "--namespace", metavar="NS", help="Absent: the context's namespace."),
]
KeyOption = Annotated[
    Path,
    typer.Option(
        "--key",
        metavar="KEY",
        help="Private key: PEM (PKCS #8) or a key of cosign's. Its password, if it has one, is"
        " taken from TRAINSEAL_KEY_PASSWORD or COSIGN_PASSWORD, else asked for.",
    ),
]
SignedFileOption = Annotated[
    str | None,
    typer.Option("-o", "--output", metavar="FILE", help="Where to; absent: in place."),
]
OutputOption = Annotated[Output, typer.Option("-o", "--output", help="How to print.")]
PlainHttpOption = Annotated[
    list[str] | None,
    typer.Option(
        "--plain-http",
        metavar="HOST",
        envvar="TRAINSEAL_PLAIN_HTTP",
        show_envvar=False,
        help="Speak to this registry without TLS; several separated by commas.",
        rich_help_panel=_REGISTRY,
    ),
]
CaFileOption = Annotated[
    Path | None,
    typer.Option(
        "--ca-file",
        metavar="FILE",
        envvar="TRAINSEAL_CA_FILE",
        help="Certificate authorities (PEM) of registries, besides the system's.",
        rich_help_panel=_REGISTRY,
    ),
]
KubeconfigOption = Annotated[
    str | None,
    typer.Option(
        "--kubeconfig",
        metavar="FILE",
        help="As kubectl's; absent: KUBECONFIG or ~/.kube/config.",
        rich_help_panel=_CLUSTER,
    ),
]
ReleaseNamespaceOption = Annotated[
    str,
    typer.Option("--release-namespace", metavar="NS", help="Where TrainSeal is installed."),
]
ContextOption = Annotated[
    str | None,
    typer.Option(
        "--context", metavar="NAME", help="Context of the kubeconfig.", rich_help_panel=_CLUSTER
    ),
]
KeyringOption = Annotated[
    Path | None,
    typer.Option(
        "--keyring",
        metavar="FILE",
        help="ConfigMap trainseal-keyring as YAML or JSON. Absent: the cluster's.",
        exists=True,
        dir_okay=False,
    ),
]
