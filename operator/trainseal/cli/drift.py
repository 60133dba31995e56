"""``trainseal drift``, ``drift learn`` and ``thaw``: what was found on a run, what of it a policy
may except, and letting the run go on.
"""

from __future__ import annotations

from typing import Annotated

import typer

from trainseal.cli.completion import job_names
from trainseal.cli.groups import default_command
from trainseal.cli.options import ContextOption, KubeconfigOption, Output, OutputOption, PlaceOption

JobArgument = Annotated[
    str,
    typer.Argument(metavar="JOB", help="Name of the TrainingJob.", autocompletion=job_names),
]
SealOption = Annotated[
    str | None, typer.Option(metavar="SEAL", help="Of this run; absent: of the job's last one.")
]
drift = typer.Typer(
    name="drift",
    cls=default_command("show"),
    help="Show what the watch found on a job's run (`trainseal drift JOB`), and learn from it.",
)


@drift.command()
def show(
    job: Annotated[
        str | None,
        typer.Argument(metavar="JOB", help="Name of the TrainingJob.", autocompletion=job_names),
    ] = None,
    namespace: PlaceOption = None,
    output: OutputOption = Output.TEXT,
    seal: SealOption = None,
    kinds: Annotated[
        bool, typer.Option("--kinds", help="List the findings there are, and what they mean.")
    ] = False,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Show what the watch found on a job's run, in the order it happened.

    Each finding with its pod, its file and how that differs, the process and its parents, and the
    person behind it where known. A job that is deleted keeps its findings. The word `show` may
    be left out, but for a job that is called `learn` or `show`.

    Exit codes: 0 nothing was found, or nothing above `Info`; 1 something was; 2 the findings
    could not be read.

        trainseal drift char-lm
        trainseal drift char-lm -n research -o json | jq '.findings[].user'
        trainseal drift show char-lm --seal char-lm-4f2a9c01-7a0c1f2e
        trainseal drift --kinds
    """
    import asyncio

    from trainseal.cli import driftview
    from trainseal.cli.clusters import default_namespace
    from trainseal.cluster.api import connect

    if kinds:
        if job is not None:
            raise typer.BadParameter("it takes no JOB", param_hint="--kinds")
        driftview.print_kinds(as_json=output is Output.JSON)
        return
    if job is None:
        raise typer.BadParameter("name the job, or ask for --kinds", param_hint="JOB")
    place, name = namespace or default_namespace(kubeconfig, context), job

    async def work() -> driftview.RunFindings:
        async with connect(kubeconfig, context) as kube:
            return await driftview.look(kube, place, name, seal)

    found = asyncio.run(work())
    if output is Output.JSON:
        driftview.print_json(found)
    else:
        driftview.print_text(found)
    raise typer.Exit(found.exit_code)


@drift.command()
def learn(
    job: JobArgument,
    namespace: PlaceOption = None,
    also: Annotated[
        list[str] | None,
        typer.Option(
            metavar="ID", help="Propose exceptions for this finding too though it is `Critical`."
        ),
    ] = None,
    seal: SealOption = None,
    output: OutputOption = Output.TEXT,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Propose exceptions for a policy from what was found on an honest run.

    Prints YAML for `spec.drift.exceptions` of a ProvenancePolicy, and changes nothing: findings of
    one id and one program below one directory make one exception, with a reason to be completed.
    What a person's session did is never proposed, nor what is `Critical` unless asked for, nor a
    wildcard where signed code may lie. Who may change policies (cluster-wide RBAC) decides, and
    stands for it.

    Exit codes: 0 all findings are covered by what is proposed; 1 some are not, with the reason;
    2 the findings could not be read.

        trainseal drift learn char-lm > exceptions.yaml
        trainseal drift learn char-lm -n research --also map.foreign
        trainseal drift learn char-lm -o json | jq '.left'
    """
    import asyncio
    import json

    from trainseal.api.findings import FindingId
    from trainseal.cli import driftview, learning
    from trainseal.cli.clusters import default_namespace
    from trainseal.cli.failures import DONE, REFUTED, UNDETERMINED
    from trainseal.cluster.api import connect

    for id_ in also or ():
        if id_ not in {i.value for i in FindingId}:
            raise typer.BadParameter(
                f"{id_} is no finding; `trainseal drift --kinds` lists them", param_hint="--also"
            )
    place = namespace or default_namespace(kubeconfig, context)

    async def work() -> driftview.RunFindings:
        async with connect(kubeconfig, context) as kube:
            return await driftview.look(kube, place, job, seal)

    found = asyncio.run(work())
    proposal = learning.propose(found, also or ())
    if output is Output.JSON:
        text = json.dumps(learning.as_json(found, proposal), indent=2, ensure_ascii=False)
    else:
        text = "\n".join(learning.as_yaml(found, proposal))
    print(text)  # noqa: T201
    unread = UNDETERMINED if found.unread or found.dropped else DONE
    raise typer.Exit(REFUTED if proposal.left else unread)


def thaw(
    job: JobArgument,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why it may go on; kept as evidence.")
    ],
    namespace: PlaceOption = None,
    wait: Annotated[
        int, typer.Option(min=0, max=3600, metavar="SECONDS", help="How long to wait for it.")
    ] = 30,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Lift the hold that a finding put on a run.

    A frozen or quarantined run goes on where it stood; a suspended one is verified again and starts
    anew. Look at
    `trainseal drift` first: what is let go is what stands there now, and a finding that comes
    later holds the run again. It takes the right to create HoldReleases (`trainseal-responder`),
    and whom a finding names cannot lift its hold.

    Exit codes: 0 it goes on; 1 it does not, with the reason; 2 nobody answered in time.

        trainseal thaw char-lm --reason "our debugger, agreed with Ann"
    """
    import asyncio

    from trainseal.cli import thawing
    from trainseal.cli.clusters import default_namespace
    from trainseal.cluster.api import connect

    if not reason.strip():
        raise typer.BadParameter("say why the run may go on", param_hint="--reason")
    place = namespace or default_namespace(kubeconfig, context)

    async def work() -> None:
        async with connect(kubeconfig, context) as kube:
            await thawing.thaw(kube, place, job, reason.strip(), wait)

    asyncio.run(work())
