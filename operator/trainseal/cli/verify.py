"""``trainseal verify``: the webhook's verdict, without a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from trainseal.cli.options import (
    CaFileOption,
    JobFileOption,
    NamespaceOption,
    Output,
    OutputOption,
    PlainHttpOption,
)


def verify(
    file: JobFileOption,
    policy: Annotated[
        list[Path],
        typer.Option("--policy", metavar="FILE", help="ProvenancePolicies, and TrustRoots."),
    ],
    trust_root: Annotated[
        list[Path] | None,
        typer.Option("--trust-root", metavar="FILE", help="TrustRoots, in files of their own."),
    ] = None,
    template: Annotated[
        Path | None,
        typer.Option("--template", metavar="FILE", help="The template that the job names."),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option("--as", metavar="USER", help="Who will apply the job, where a rule asks."),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option("--as-group", metavar="GROUP", help="A group of theirs; may be repeated."),
    ] = None,
    namespace: NamespaceOption = None,
    output: OutputOption = Output.TEXT,
    plain_http: PlainHttpOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """Verify a job, or a template, as the cluster will, artifact by artifact, without a cluster.

    Exit codes: 0 verified; 1 refuted: the evidence was read and does not satisfy a policy;
    2 undetermined: it could not be read; 64 wrong use. Only a cluster knows how often a job ran
    and which cluster it is: validity.maxRuns and validity.cluster are not judged here.

        trainseal verify -f job.yaml --policy policy.yaml
        trainseal verify -f job.yaml --policy policy.yaml -o json | jq .outcome
        trainseal verify -f run.yaml --template template.yaml --as bob@example.org --policy p.yaml
        trainseal verify -f template.yaml --policy policy.yaml
    """
    import asyncio

    from trainseal.cli import verification
    from trainseal.cli.jobfiles import read_manifest
    from trainseal.cli.registries import registry_client
    from trainseal.provenance.canonical import KIND, TEMPLATE_KIND

    job = read_manifest(file, namespace, (KIND, TEMPLATE_KIND))
    facts = verification.facts(
        read_manifest(str(template), namespace, (TEMPLATE_KIND,)) if template else None,
        user,
        group or (),
    )
    policies = verification.read_policies([*policy, *(trust_root or ())])

    async def work() -> verification.Verification:
        async with registry_client(plain_http, ca_file) as client:
            return await verification.verify(job, policies, client, facts)

    found = asyncio.run(work())
    if output is Output.JSON:
        verification.print_json(found)
    else:
        verification.print_text(found)
    raise typer.Exit(verification.exit_code(found))
