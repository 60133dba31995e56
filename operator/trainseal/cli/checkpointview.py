"""The checkpoints of a job's runs: looked up, and listed."""

from __future__ import annotations

import json
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.text import Text

from trainseal.api.checkpoint import PLURAL, Checkpoint, CheckpointFile, CheckpointStatus
from trainseal.api.model import API_VERSION, InvalidObjectError, JsonObject, json_object
from trainseal.cli.clusters import no_run, runs_of
from trainseal.cli.failures import DONE, REFUTED, UNDETERMINED, Failure
from trainseal.cli.terminaltext import plain
from trainseal.cluster.api import Kube, KubeError, path_of
from trainseal.cluster.listing import listed
from trainseal.provenance.canonical import CanonicalError
from trainseal.provenance.checkpointmanifests import envelope, payload
from trainseal.provenance.keyrings import UntrustedError

#: Files of one manifest that are listed for people; JSON has all.
_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Item:
    """One manifest, as it stands in the cluster and as it was read."""

    obj: JsonObject
    checkpoint: Checkpoint

    @property
    def name(self) -> str:
        """Its name."""
        return self.checkpoint.metadata.name

    @property
    def status(self) -> CheckpointStatus:
        """What the controller made of it; nothing yet where it did not look."""
        return self.checkpoint.status or CheckpointStatus()

    @property
    def barring(self) -> bool:
        """Whether no job may go on from its files."""
        return self.status.tainted is not None and self.status.accepted is None


@dataclass(frozen=True, slots=True)
class RunCheckpoints:
    """Manifests by the time of their completion. ``unread`` says what cannot be shown."""

    namespace: str
    job: str
    items: tuple[Item, ...]
    unread: tuple[str, ...]

    @property
    def exit_code(self) -> int:
        """0 all signed and clean or accepted; 1 some tainted; 2 some not signed or not read."""
        if any(item.barring for item in self.items):
            return REFUTED
        signed = all(item.status.standing == "Signed" for item in self.items)
        return DONE if signed and not self.unread else UNDETERMINED


async def look(kube: Kube, namespace: str, job: str, seal: str | None = None) -> RunCheckpoints:
    """The checkpoints of a job's runs, or of the named one. Raises Failure."""
    try:
        runs = await runs_of(kube, namespace, job, seal)
        names = {json_object(run.get("metadata")).get("name") for run in runs}
        path = path_of(API_VERSION, PLURAL, namespace)
        objects = [
            item
            async for item in listed(kube, path)
            if json_object(item.get("spec")).get("sealedRun") in names
        ]
    except KubeError as error:
        raise Failure(
            f"the checkpoints could not be read: {error.message or error.reason}",
            expected="the rights to list sealedruns and checkpoints, which `view` has",
            remedy="ask for them, or look whether `kubectl version` gets an answer",
            code=UNDETERMINED,
        ) from None
    if not runs:
        raise no_run(namespace, job, seal)
    items, unread = parsed(objects)
    return RunCheckpoints(namespace, job, tuple(items), tuple(unread))


def parsed(objects: list[JsonObject]) -> tuple[list[Item], list[str]]:
    """Manifests in order of time, and words on those that cannot be read."""
    items: list[Item] = []
    unread: list[str] = []
    for obj in objects:
        try:
            items.append(Item(obj, Checkpoint.parse(obj)))
        except InvalidObjectError as error:
            unread.append(plain(str(error)))
    return sorted(items, key=lambda i: (i.checkpoint.spec.completed, i.name)), unread


def print_json(view: RunCheckpoints) -> None:
    """For programs, on stdout."""
    value: JsonObject = {
        "namespace": view.namespace,
        "job": view.job,
        "checkpoints": [_wire(item) for item in view.items],
        "notRead": list(view.unread),
    }
    print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201


def _wire(item: Item) -> JsonObject:
    metadata = json_object(item.obj.get("metadata"))
    kept = ("name", "namespace", "uid", "creationTimestamp")
    found: JsonObject = {
        "metadata": {k: metadata[k] for k in kept if k in metadata},
        "spec": item.obj.get("spec"),
        "status": item.obj.get("status") or {},
    }
    status = json_object(item.obj.get("status"))
    signature = json_object(status.get("signature"))
    if signature:
        key, at = str(signature.get("keyID")), str(signature.get("signedAt"))
        try:
            body = payload(item.obj, status, key=key, signed_at=at)
        except (UntrustedError, CanonicalError):
            return found
        found["envelope"] = envelope(item.obj, body)
    return found


def print_text(view: RunCheckpoints) -> None:
    """For people, on stdout."""
    Console(highlight=False, soft_wrap=True).print(render(view))


def render(view: RunCheckpoints) -> RenderableType:
    """The whole list."""
    parts: list[RenderableType] = []
    seal = None
    for item in view.items:
        if item.checkpoint.spec.sealed_run != seal:
            seal = item.checkpoint.spec.sealed_run
            parts.append(Text(f"{view.namespace}/{view.job} seal {seal}", "bold"))
        parts += _lines(item)
    if not view.items:
        parts.append(Text(f"{view.namespace}/{view.job}: no checkpoint has a manifest", "dim"))
    if any(item.barring for item in view.items):
        parts.append(
            Text(f"`trainseal checkpoints accept {view.job} --reason …` signs them off", "dim")
        )
    parts += [Text(f"not shown: {words}", "dim") for words in view.unread]
    return Group(*parts)


def _lines(item: Item) -> list[RenderableType]:
    spec, status = item.checkpoint.spec, item.status
    head = Text(f"  {spec.completed:%Y-%m-%dT%H:%M:%SZ}  ")
    head.append_text(_verdict(item))
    head.append(f"  {item.name}", "dim")
    lines: list[RenderableType] = [head]
    for file in spec.files[:_SHOWN]:
        digest = (file.digest or "not read")[: len("sha256:") + 16]
        text = Text(f"      {digest:<24}{file.size:>14}  {file.format or '':<12}{plain(file.path)}")
        if file.writer != "Trainer":
            by = f", {plain(file.user)}" if file.user else ""
            text.append(f"  ({file.writer.lower()}{by})", "yellow")
        lines.append(text)
        lines += _would_import(file)
    more = len(spec.files) - _SHOWN
    if more > 0:
        lines.append(Text(f"      and {more} more", "dim"))
    if spec.unlisted:
        lines.append(Text(f"      and {spec.unlisted} that are not listed: too many", "yellow"))
    if status.tainted is not None:
        lines.append(Text(f"      tainted by {plain(status.tainted.message)}", "red"))
    if status.accepted is not None:
        lines.append(
            Text(
                f"      signed off by {plain(status.accepted.user)}: "
                f"{plain(status.accepted.reason)}",
                "dim",
            )
        )
    if status.refused is not None and status.accepted is None:
        lines.append(Text(f"      not signed off: {plain(status.refused)}", "yellow"))
    if status.message is not None:
        lines.append(Text(f"      {plain(status.message)}", "yellow"))
    return lines


def _would_import(file: CheckpointFile) -> list[RenderableType]:
    """What loading it as a pickle would import, and what could not be told."""
    lines: list[RenderableType] = []
    if file.imports:
        more = f" and {file.more_imports} more" if file.more_imports else ""
        names = ", ".join(plain(name) for name in file.imports)
        lines.append(Text(f"          would import {names}{more}", "yellow"))
    if file.doubt:
        lines.append(Text(f"          not told: {plain(file.doubt)}", "yellow"))
    return lines


def _verdict(item: Item) -> Text:
    status = item.status
    if status.tainted is not None and status.accepted is None:
        return Text(f"tainted {status.tainted.finding}", "bold red")
    if status.standing is None:
        return Text("not signed yet", "yellow")
    if status.standing != "Signed":
        return Text(f"not signed ({status.standing})", "yellow")
    if status.tainted is not None:
        return Text(f"signed, tainted {status.tainted.finding}, signed off", "green")
    return Text("signed", "green")
