"""``trainseal evidence``: proves that the archive is whole, and reads what it kept."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from trainseal.cli.failures import REFUTED, UNDETERMINED, Failure
from trainseal.cli.options import (
    ContextOption,
    KubeconfigOption,
    Output,
    OutputOption,
    ReleaseNamespaceOption,
)

if TYPE_CHECKING:
    from trainseal.api.model import JsonObject
    from trainseal.provenance.evidence import Entry, Head

evidence = typer.Typer(
    name="evidence",
    help="Prove that the archive of seals, findings and access records is whole; read it.",
    no_args_is_help=True,
)

FolderArgument = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER",
        help="The archive's volume, or a copy of it.",
        exists=True,
        file_okay=False,
    ),
]


@evidence.command()
def verify(
    folder: FolderArgument,
    head: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBER@DIGEST",
            help="A head that was noted earlier: the archive must contain it. Absent: the one that "
            "the archive published in the cluster.",
        ),
    ] = None,
    offline: Annotated[
        bool,
        typer.Option("--offline", help="Ask no cluster: then a log cut short is not found."),
    ] = False,
    release_namespace: ReleaseNamespaceOption = "trainseal-system",
    output: OutputOption = Output.TEXT,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Prove that nothing in the archive was removed or changed.

    Reads every line and every object. Exit codes: 0 whole; 1 something was removed or changed,
    with its place; 2 there is no head to compare the log's end with.

        trainseal evidence verify /mnt/archive
        trainseal evidence verify copy-of-archive --head 1200@sha256:…
    """
    from trainseal.provenance.evidence import BrokenChainError, Head

    wanted = _wanted(head, offline, release_namespace, kubeconfig, context)
    objects, end, passed = set[str](), Head(), wanted == Head()
    try:
        for entry, end in _entries(folder):
            if entry.digest:
                objects.add(entry.digest)
            passed = passed or end == wanted
        _read_all(folder, objects)
    except BrokenChainError as error:
        raise Failure(
            f"{folder}: {error}",
            expected="what was recorded, unchanged",
            remedy="keep this copy as it is; find out who could write to the volume",
            code=REFUTED,
        ) from None
    if wanted and not passed:
        raise Failure(
            f"{folder}: the log ends at {end} and does not contain the head {wanted}",
            expected=f"a log of at least {wanted.number} records that passes through that head",
            remedy="is it a copy older than the head? Otherwise the log was cut short or replaced: "
            "keep it as it is, and find out who could write to the volume",
            code=REFUTED,
        )
    if output is Output.JSON:
        found = {"records": end.number, "objects": len(objects), "head": str(end)}
        print(json.dumps(found | {"comparedWith": str(wanted) if wanted else None}, indent=2))  # noqa: T201
    else:
        compared = f"and passes through the head {wanted}" if wanted else "(no head compared)"
        print(f"whole: {end.number} records, {len(objects)} objects; ends at {end} {compared}")  # noqa: T201


@evidence.command("list")
def list_(
    folder: FolderArgument,
    namespace: Annotated[
        str | None, typer.Option("-n", "--namespace", metavar="NS", help="Of this namespace.")
    ] = None,
    kind: Annotated[
        str | None,
        typer.Option(
            metavar="KIND",
            help="SealedRun, DriftReport, AccessRecord, HoldRelease, BreakGlass, EvidenceItem, "
            "Checkpoint, RunStatement or StackRequest.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Whose name starts with this text.")
    ] = None,
    output: OutputOption = Output.TEXT,
) -> None:
    """List what was recorded, also of what was deleted since.

    One line a version, the oldest first; `deleted` is when the object went.

        trainseal evidence list /mnt/archive -n research --name char-lm
        trainseal evidence list /mnt/archive -o json | jq 'select(.kind == "AccessRecord")'
    """
    chosen = (
        e
        for e, _ in _sound(folder)
        if (namespace is None or e.namespace == namespace)
        and (kind is None or e.kind.lower() == kind.lower())
        and (name is None or e.name.startswith(name))
    )
    if output is Output.JSON:
        for entry in chosen:
            print(entry.line().decode())  # noqa: T201
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column in ("RECORDED", "KIND", "NAMESPACE", "NAME", "DIGEST"):
        table.add_column(column, no_wrap=True)
    for e in chosen:
        table.add_row(e.time, e.kind, e.namespace, e.name, e.digest or "deleted")
    Console(width=None if sys.stdout.isatty() else 240).print(table)


@evidence.command()
def show(
    what: Annotated[
        list[str],
        typer.Argument(
            metavar="[FOLDER] WHAT",
            help="Name of an EvidenceItem in the cluster. With FOLDER, an archive's volume: a name "
            "or a digest from its list, sha256:… or its beginning.",
        ),
    ],
    namespace: Annotated[
        str | None,
        typer.Option(
            "-n",
            "--namespace",
            metavar="NS",
            help="Absent: the context's namespace; in an archive, any.",
        ),
    ] = None,
    extract: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="Write the bytes of the item's file there; - is standard output."
        ),
    ] = None,
    output: OutputOption = Output.TEXT,
    kubeconfig: KubeconfigOption = None,
    context: ContextOption = None,
) -> None:
    """Show what was kept for a finding, or any recorded object, after comparing it with its digest.

    Of an EvidenceItem: the file, the processes with their environment (secrets masked) and the
    files they had mapped. Other objects are printed as JSON. The bytes of a file are as they were:
    extract what may be a program to a place where nobody runs it.

    Exit codes: 0 it is as it was recorded; 1 it is not; 2 it could not be read; 64 no such digest.

        trainseal evidence show char-lm-worker-0-x7kq2-0aa3b1c2-0123456789abcdef -n research
        trainseal evidence show char-lm-… -n research --extract adam.py
        trainseal evidence show /mnt/archive sha256:4f2a
    """
    from trainseal.cli import evidenceview

    if len(what) > 2 or (len(what) == 1 and re.search("[/:]", what[0])):
        raise typer.BadParameter("give a name, or a folder and a name or digest", param_hint="WHAT")
    if len(what) == 2:
        obj = _recorded(Path(what[0]), what[1], namespace)
    else:
        obj = _live(what[0], namespace, kubeconfig, context)
    if extract is None and (output is Output.JSON or obj.get("kind") != "EvidenceItem"):
        print(json.dumps(obj, indent=2, ensure_ascii=False))  # noqa: T201
        return
    item = evidenceview.read(obj)
    if extract is None:
        evidenceview.print_text(item)
        return
    data = evidenceview.bytes_of(item)
    if str(extract) == "-":
        sys.stdout.buffer.write(data)
    else:
        extract.write_bytes(data)
    if item.spec.file is not None and item.spec.file.truncated:
        size = item.spec.file.size
        print(f"the first {len(data)} of {size} bytes: no more were kept", file=sys.stderr)  # noqa: T201


def _live(
    name: str, namespace: str | None, kubeconfig: str | None, context: str | None
) -> JsonObject:
    import asyncio

    from trainseal.cli import evidenceview
    from trainseal.cli.clusters import default_namespace
    from trainseal.cluster.api import connect

    place = namespace or default_namespace(kubeconfig, context)

    async def work() -> JsonObject:
        async with connect(kubeconfig, context) as kube:
            return await evidenceview.fetch(kube, place, name)

    return asyncio.run(work())


def _recorded(folder: Path, what: str, namespace: str | None) -> JsonObject:
    """By digest, or the EvidenceItem of that name."""
    from trainseal.archive.store import read_object
    from trainseal.provenance.evidence import BrokenChainError

    def is_it(entry: Entry) -> bool:
        if what.startswith("sha256:"):
            return str(entry.digest).startswith(what)
        mine = (entry.kind, entry.name) == ("EvidenceItem", what)
        return mine and namespace in (None, entry.namespace)

    # Of an object that was recorded again (as it was when it went, say) the last version counts.
    by_digest = what.startswith("sha256:")
    last = {
        e.digest if by_digest else e.uid: e.digest
        for e, _ in _sound(folder)
        if e.digest and is_it(e)
    }
    known = set(last.values())
    if len(known) != 1:
        named = "the beginning of" if by_digest else "the name of"
        raise Failure(
            f"{what} is {named} {len(known)} digests in {folder}",
            expected="exactly one",
            remedy="trainseal evidence list prints them",
        )
    try:
        body = read_object(folder, known.pop())
    except BrokenChainError as error:
        raise Failure(str(error), expected="what was recorded", code=REFUTED) from None
    found: JsonObject = json.loads(body)
    return found


def _entries(folder: Path) -> Iterator[tuple[Entry, Head]]:
    from trainseal.archive.store import lines
    from trainseal.provenance.evidence import walk

    if not (folder / "log").is_dir():
        raise Failure(
            f"{folder} holds no folder log",
            expected="the archive's volume, with the folders log and objects",
            remedy="name the folder that the volume is mounted at",
        )
    return walk(lines(folder))


def _sound(folder: Path) -> Iterator[tuple[Entry, Head]]:
    """Entries up to the first break, which is said."""
    from trainseal.provenance.evidence import BrokenChainError

    try:
        yield from _entries(folder)
    except BrokenChainError as error:
        raise Failure(
            f"{folder}: {error}",
            remedy="what is above was recorded before it; trainseal evidence verify says more",
            code=REFUTED,
        ) from None


def _read_all(folder: Path, digests: set[str]) -> None:
    from rich.console import Console
    from rich.progress import track

    from trainseal.archive.store import read_object

    quiet = Console(stderr=True)
    for digest in track(
        sorted(digests), "objects", console=quiet, transient=True, disable=not quiet.is_terminal
    ):
        read_object(folder, digest)


def _wanted(
    head: str | None,
    offline: bool,
    namespace: str,
    kubeconfig: str | None,
    context: str | None,
) -> Head | None:
    from trainseal.provenance.evidence import Head

    if head is not None:
        try:
            return Head.parse(head)
        except ValueError as error:
            raise Failure(f"--head: {error}") from None
    if offline:
        return None
    return _published(namespace, kubeconfig, context)


def _published(namespace: str, kubeconfig: str | None, context: str | None) -> Head:
    import asyncio

    from trainseal.archive.main import published
    from trainseal.cluster.api import NotFoundError, connect, path_of
    from trainseal.cluster.settings import EVIDENCE_HEAD_CONFIG_MAP

    async def read() -> Head | None:
        path = path_of("v1", "configmaps", namespace, EVIDENCE_HEAD_CONFIG_MAP)
        async with connect(kubeconfig, context) as kube:
            try:
                return published(await kube.get(path))
            except NotFoundError:
                return None

    found = asyncio.run(read())
    if found is None:
        raise Failure(
            f"ConfigMap {namespace}/{EVIDENCE_HEAD_CONFIG_MAP} says no head",
            expected="the archive's head, by which a log that was cut short is found",
            remedy="give a head that was noted earlier with --head, or --offline to do without",
            code=UNDETERMINED,
        )
    return found
