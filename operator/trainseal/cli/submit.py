"""``trainseal submit``: the everyday loop in one go."""

from __future__ import annotations

import enum
from typing import Annotated

import typer

from trainseal.cli.options import (
    CaFileOption,
    ContextOption,
    JobFileOption,
    KeyOption,
    KubeconfigOption,
    PlainHttpOption,
)


class Wait(enum.StrEnum):
    """How long a submitted job is followed."""

    RUN = "run"
    END = "end"
    NONE = "none"


def submit(
    file: JobFileOption,
    key: KeyOption,
    code: Annotated[
        list[str] | None,
        typer.Option(
            "--code",
            metavar="[NAME=]DIR",
            help="Sign and push this directory, and write its digest into spec.code[NAME].",
        ),
    ] = None,
    push: Annotated[
        list[str] | None,
        typer.Option(
            "--push",
            metavar="[NAME=]REF",
            help="Repository to push to; absent: that of the reference in the job.",
        ),
    ] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Delete a run of that name that has ended.")
    ] = False,
    wait: Annotated[
        Wait, typer.Option(help="Follow until it runs, until it ends, or not at all.")
    ] = Wait.RUN,
    namespace: Annotated[
        str | None,
        typer.Option(
            "-n",
            "--namespace",
            metavar="NS",
            help="Where the manifest names none; absent: the context's.",
        ),
    ] = None,
    plain_http: PlainHttpOption = None,
    ca_file: CaFileOption = None,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Push the code, sign code and job, apply the job, and follow it until it runs.

    Of the code only what changed is sent. The job's file is changed as `trainseal sign job` does
    it. Other objects in the file are left to kubectl. Exit codes: 0; 1 the cluster refused, or the
    run failed; 2 a registry or the cluster could not be read; 64 wrong use. Interrupted, the job
    goes on.

        trainseal submit -f job.yaml --key alice.key --code ./src
        trainseal submit -f job.yaml --key alice.key --replace --wait end
    """
    import asyncio

    from trainseal.cli import submission
    from trainseal.cli.clusters import default_namespace
    from trainseal.cli.jobfiles import read_job
    from trainseal.cli.keyfile import read_key
    from trainseal.cli.registries import registry_client
    from trainseal.cluster.api import connect

    job = read_job(file, namespace, lambda: default_namespace(kubeconfig, context))
    trees = submission.trees(job, code or (), push or ())
    private = read_key(key)

    async def work() -> None:
        async with (
            registry_client(plain_http, ca_file) as client,
            connect(kubeconfig, context) as kube,
        ):
            loop = submission.Submission(job, private, client, kube)
            submitted = await loop.submit(trees, replace=replace)
            if wait is not Wait.NONE:
                await loop.follow(submitted, to_the_end=wait is Wait.END)

    asyncio.run(work())
