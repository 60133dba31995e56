"""``trainseal canonical``, ``digest``, ``sign job|template|code``: what is signed, and signing."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainseal.cli.options import (
    CaFileOption,
    JobFileOption,
    KeyOption,
    NamespaceOption,
    PlainHttpOption,
    SignedFileOption,
    TemplateFileOption,
)

if TYPE_CHECKING:
    from trainseal.cli.jobfiles import JobFile

SIGNING = "Signing and verifying"

sign = typer.Typer(
    name="sign", help="Sign a job, a template, or the code they run.", no_args_is_help=True
)


def canonical(file: JobFileOption, namespace: NamespaceOption = None) -> None:
    """Print the bytes of a job, or of a template, that its approvers sign.

    RFC 8785 canonical JSON of the job less signatures, suspend and scheduling (of the template less
    signatures and revoked), without a line break at its end. Any tool that signs bytes can sign
    them:

        trainseal canonical -f job.yaml > job.canonical
        cosign sign-blob --key cosign.key --bundle job.bundle job.canonical

    The bundle then goes into spec.signatures, as `- bundle: {…}`.
    """
    from trainseal.cli.jobfiles import canonical as canonical_of
    from trainseal.cli.jobfiles import read_job
    from trainseal.provenance.canonical import KIND, TEMPLATE_KIND

    job = read_job(file, namespace, kinds=(KIND, TEMPLATE_KIND))
    sys.stdout.buffer.write(canonical_of(job.job, job.job.value, namespace))
    sys.stdout.buffer.flush()


def digest(file: JobFileOption, namespace: NamespaceOption = None) -> None:
    """Print the digest of a job, or of a template: SHA-256 of its canonical bytes.

    It is the same for the file and for what the API server stores of it.

        trainseal digest -f job.yaml
        kubectl get tj char-lm -o json | trainseal digest -f -
        trainseal digest -f template.yaml
    """
    from trainseal.cli.jobfiles import canonical as canonical_of
    from trainseal.cli.jobfiles import read_job
    from trainseal.provenance.canonical import KIND, TEMPLATE_KIND, digest_of_bytes

    job = read_job(file, namespace, kinds=(KIND, TEMPLATE_KIND))
    print(digest_of_bytes(canonical_of(job.job, job.job.value, namespace)))  # noqa: T201


@sign.command("job")
def sign_job(
    file: JobFileOption,
    key: KeyOption,
    output: SignedFileOption = None,
    namespace: NamespaceOption = None,
    plain_http: PlainHttpOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """Sign a job: add a Sigstore bundle to its spec.signatures.

    Images and code that stand by a tag get their digest first. Layout and comments of the file
    stay. A second approver signs the same file with another key; who has signed already changes
    nothing by signing again. Signatures over an earlier state of the job are dropped.

        trainseal sign job -f job.yaml --key alice.key
        trainseal sign job -f job.yaml --key bob.key -o signed.yaml
    """
    from trainseal.cli.jobfiles import read_job

    _sign(read_job(file, namespace), key, output, plain_http, ca_file)


@sign.command("template")
def sign_template(
    file: TemplateFileOption,
    key: KeyOption,
    output: SignedFileOption = None,
    namespace: NamespaceOption = None,
    plain_http: PlainHttpOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """Sign a template: add a Sigstore bundle to its spec.signatures.

    What is signed is the job and all that it leaves open: the bounds, who may start runs and until
    when. As with a job, images and code get their digest first, and a second approver signs the
    same file with another key.

        trainseal sign template -f pretrain.yaml --key alice.key
    """
    from trainseal.cli.jobfiles import read_job
    from trainseal.provenance.canonical import TEMPLATE_KIND

    job = read_job(file, namespace, kinds=(TEMPLATE_KIND,))
    _sign(job, key, output, plain_http, ca_file)


def _sign(
    job: JobFile, key: Path, output: str | None, plain_http: list[str] | None, ca_file: Path | None
) -> None:
    from trainseal.cli import jobsigning
    from trainseal.cli.jobfiles import STDIN
    from trainseal.cli.keyfile import read_key
    from trainseal.cli.registries import registry_client

    target = output or job.file

    async def resolve() -> dict[str, str]:
        if not jobsigning.unresolved(job, {}):
            return {}
        async with registry_client(plain_http, ca_file) as client:
            return await jobsigning.resolve_references(job, client)

    prepared = jobsigning.prepare(job, asyncio.run(resolve()))
    say(prepared.describe())
    private = read_key(key)
    signed = jobsigning.sign_job(prepared, private, anew=target in (STDIN, output))
    say(signed.describe(private.public.id))
    if signed.text != job.text or target in (STDIN, output):
        jobsigning.write_text(signed.text, target)


@sign.command("code")
def sign_code(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="The tree of code.")],
    key: KeyOption,
    push: Annotated[
        str,
        typer.Option("--push", metavar="REF", help="Repository to push to, with a tag or without."),
    ],
    plain_http: PlainHttpOption = None,
    ca_file: CaFileOption = None,
) -> None:
    """Sign a tree of code and push it; print its reference by digest.

    Every file is listed with its digest in a manifest (OpenSSF Model Signing), which is signed and
    attached to the artifact. What .trainsealignore names is left out, and so are .git, .venv,
    __pycache__ and *.pyc. Parts that the registry has are not sent again. For a spec.code entry:

        trainseal sign code ./src --key alice.key --push registry.example/research/char-lm-code
    """
    from rich.console import Console

    from trainseal.cli import codesigning
    from trainseal.cli.keyfile import read_key
    from trainseal.cli.registries import registry_client
    from trainseal.registry.references import Reference

    reference = Reference.parse(push)
    private = read_key(key)

    async def work() -> codesigning.SignedCode:
        async with registry_client(plain_http, ca_file) as client:
            return await codesigning.sign_code(
                client, directory, reference, private, Console(stderr=True)
            )

    signed = asyncio.run(work())
    say(signed.describe(private.public.id))
    print(signed.reference)  # noqa: T201


def say(lines: list[str]) -> None:
    """Lines for the signer, on stderr: stdout is for data."""
    for line in lines:
        print(line, file=sys.stderr)  # noqa: T201
