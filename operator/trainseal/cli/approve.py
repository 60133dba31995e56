"""``trainseal approve``: look at a job that waits for signatures, and sign it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainseal.cli.drift import JobArgument
from trainseal.cli.options import (
    ContextOption,
    KubeconfigOption,
    Output,
    OutputOption,
    PlaceOption,
    ReleaseNamespaceOption,
)

if TYPE_CHECKING:
    from trainseal.api.model import JsonObject
    from trainseal.provenance.keys import PrivateKey


def approve(
    job: JobArgument,
    key: Annotated[
        Path | None,
        typer.Option("--key", metavar="KEY", help="Sign with this key, as `trainseal sign job`."),
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", metavar="FILE", help="Add this bundle, which another tool made."),
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Sign without asking: you have looked at it.")
    ] = False,
    namespace: PlaceOption = None,
    wait: Annotated[
        float,
        typer.Option("--wait", metavar="SECONDS", help="How long to wait for what follows."),
    ] = 15.0,
    output: OutputOption = Output.TEXT,
    release_namespace: ReleaseNamespaceOption = "trainseal-system",
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Look at a job that waits for signatures; sign it where it is.

    Where a policy lets jobs wait (`spec.pending`), one can be created before all have signed. This
    shows what would run, whole, and what differs from the last approved run of its name; then it
    asks, signs with your key, and adds the bundle to the job's spec.signatures. Nothing is signed
    but what was shown. Who has signed already changes nothing by approving again.

    Without --key and --bundle nothing is signed; with -o json only if --yes is given. Who signs
    without a key looks first, then signs with another tool what `trainseal canonical` prints, and
    adds that with --bundle.

    Exit codes: 0 signed, or looked at; 1 refused, by you or by what was found; 2 the cluster could
    not be read, or nobody has looked at the signature in time.

        trainseal approve char-lm
        trainseal approve char-lm --key bob.key
        trainseal approve char-lm -n research --key bob.key --yes
        trainseal approve char-lm --key bob.key -o json | jq '.previous.changes[].path'
    """
    import asyncio
    import json
    import sys

    from trainseal.cli import approving
    from trainseal.cli.clusters import default_namespace
    from trainseal.cli.failures import REFUTED, UNDETERMINED, Failure
    from trainseal.cli.keyfile import read_key
    from trainseal.cli.sign import say
    from trainseal.cli.statusview import one_line
    from trainseal.cli.terminaltext import plain
    from trainseal.cluster.api import connect

    if key and bundle:
        raise typer.BadParameter("give --key or --bundle", param_hint="--bundle")
    as_json = output is Output.JSON
    place = namespace or default_namespace(kubeconfig, context)

    async def look() -> approving.Proposal:
        async with connect(kubeconfig, context) as kube:
            return await approving.proposal(kube, place, job, release_namespace)

    found = asyncio.run(look())
    if not as_json:
        approving.print_text(found)
    elif not yes or not (key or bundle):
        print(json.dumps(approving.value(found, added=None, job=None), indent=2))  # noqa: T201
        return
    if not (key or bundle):
        say(["nothing was signed: --key KEY or --bundle FILE signs what is shown"])
        return
    if not yes:
        if not sys.stdin.isatty():
            raise Failure(
                "nobody can be asked: standard input is no terminal",
                expected="an answer",
                remedy="nothing was signed; give --yes to sign without being asked",
            )
        if not typer.confirm("\nSign it?", default=False):
            raise Failure("not signed", remedy="nothing was changed", code=REFUTED)
    if bundle:
        given, by = approving.bundle_in(bundle, found.signed), str(bundle)
        signature: PrivateKey | JsonObject = given
    else:
        private = read_key(key or Path())
        signature, by = private, private.public.id

    async def sign() -> None:
        async with connect(kubeconfig, context) as kube:
            added = await approving.approve(kube, found, signature)
            try:
                async with asyncio.timeout(wait):
                    after = await approving.outcome(kube, found)
            except TimeoutError:
                raise Failure(
                    f"signed with {by}; the controller has not looked at it within {wait:g} s",
                    remedy=f"`trainseal status {job} -n {place}` shows what follows",
                    code=UNDETERMINED,
                ) from None
            if as_json:
                print(json.dumps(approving.value(found, added=added, job=after), indent=2))  # noqa: T201
                return
            words = "signed with" if added else "signed already with"
            print(f"{words} {by}\n{plain(one_line(after))}")  # noqa: T201

    asyncio.run(sign())
