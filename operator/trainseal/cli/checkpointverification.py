"""A folder beside the signed manifests of checkpoints: is it what the runs wrote?"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml
from rich.console import Console
from rich.text import Text

from trainseal.api.checkpoint import CheckpointFile
from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.cli.checkpointview import Item, look, parsed
from trainseal.cli.failures import DONE, REFUTED, UNDETERMINED, Failure
from trainseal.cli.terminaltext import plain
from trainseal.cluster.api import KubeError, NotFoundError, connect, path_of
from trainseal.cluster.keys import Purpose, read_keyring
from trainseal.cluster.settings import KEYRING_CONFIG_MAP
from trainseal.provenance.checkpointmanifests import verify
from trainseal.provenance.keyrings import Keyring, UntrustedError

#: Bytes of a file of manifests, and of a keyring.
_MOST_MANIFESTS, _MOST_KEYRING = 512 * 1024 * 1024, 3 * 1024 * 1024
Verdict = Literal["signed", "accepted", "tainted", "changed", "unread", "unsigned", "missing"]
_GOOD = frozenset({"signed", "accepted"})


@dataclass(frozen=True, slots=True)
class Source:
    """Where manifests and keys come from: a cluster, or files."""

    namespace: str
    job: str | None
    seal: str | None
    manifests: Path | None
    keyring: Path | None
    release_namespace: str
    kubeconfig: str | None
    context: str | None


@dataclass(frozen=True, slots=True)
class Manifests:
    """Those that verify, the oldest first; ``untrusted`` says why others do not."""

    items: tuple[Item, ...]
    untrusted: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Compared:
    """One file of the folder, or of a manifest that the folder has a part of."""

    path: str
    verdict: Verdict
    words: str
    manifest: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a whole folder amounts to."""

    files: tuple[Compared, ...]
    untrusted: tuple[str, ...]
    links: tuple[str, ...] = field(default=())

    @property
    def exit_code(self) -> int:
        """0 all files are as signed; 1 one is not; 2 there is nothing to say that of."""
        if any(file.verdict not in _GOOD for file in self.files):
            return REFUTED
        return DONE if self.files else UNDETERMINED


def read(source: Source) -> Manifests:
    """The manifests that the operator signed. Raises Failure."""
    if source.manifests is not None:
        items = _of_file(source.manifests, source.seal)
        ring = _ring_of_file(source.keyring) if source.keyring else _ring_of_cluster(source)
    else:
        items, ring = asyncio.run(_of_cluster(source))
    good: list[Item] = []
    untrusted: list[str] = []
    for item in items:
        try:
            verify(ring, item.obj)
        except UntrustedError as error:
            untrusted.append(str(error))
        else:
            good.append(item)
    if not good:
        raise Failure(
            f"{len(items)} manifests, none that the operator's keys signed"
            + (f": {untrusted[0]}" if untrusted else ""),
            expected="the manifests of the job's checkpoints, signed",
            remedy="is it the right job, and the keyring of its cluster? A run's last checkpoints "
            "are signed a few seconds after its end",
            code=UNDETERMINED,
        )
    return Manifests(tuple(good), tuple(untrusted))


def compare(folder: Path, below: str, manifests: Manifests) -> Comparison:
    """The folder, which lay at ``below`` in the checkpoints directory, file by file."""
    signed = _newest(manifests.items)
    here: dict[str, Path] = {}
    links: list[str] = []
    for path, file in _walk(folder):
        name = f"{below}/{path}" if below else path
        if file is None:
            links.append(name)
        else:
            here[name] = file
    compared = [_judge(name, file, signed.get(name)) for name, file in sorted(here.items())]
    compared += _missing(here, signed)
    return Comparison(tuple(compared), manifests.untrusted, tuple(links))


def _newest(items: Sequence[Item]) -> dict[str, tuple[Item, CheckpointFile]]:
    found: dict[str, tuple[Item, CheckpointFile]] = {}
    for item in items:
        found |= {file.path: (item, file) for file in item.checkpoint.spec.files}
    return found


def _judge(name: str, file: Path, signed: tuple[Item, CheckpointFile] | None) -> Compared:
    if signed is None:
        return Compared(name, "unsigned", "no signed manifest lists it")
    item, entry = signed
    if entry.digest is None:
        words = "its volume was taken off the node before it was read"
        return Compared(name, "unread", words, item.name)
    found = f"sha256:{_digest(file)}"
    if found != entry.digest:
        return Compared(name, "changed", f"found {found}, signed {entry.digest}", item.name)
    status = item.status
    if status.tainted is None:
        return Compared(name, "signed", "", item.name)
    words = f"{status.tainted.finding}: {status.tainted.message}"
    if status.accepted is None:
        return Compared(name, "tainted", words, item.name)
    return Compared(name, "accepted", f"{words}; by {status.accepted.user}", item.name)


def _missing(
    here: Mapping[str, Path], signed: Mapping[str, tuple[Item, CheckpointFile]]
) -> Iterator[Compared]:
    """Files of manifests that the folder has a part of: half a checkpoint is none."""
    touched = {signed[name][0].name for name in here if name in signed}
    for name, (item, _) in sorted(signed.items()):
        if item.name in touched and name not in here:
            words = "other files of the same checkpoint are here"
            yield Compared(name, "missing", words, item.name)


def _walk(folder: Path) -> Iterator[tuple[str, Path | None]]:
    """Paths within; None for what is neither a plain file nor a directory."""
    for top, directories, names in os.walk(folder):
        directories.sort()
        for name in sorted([*names, *(d for d in directories if Path(top, d).is_symlink())]):
            path = Path(top, name)
            plain_file = stat.S_ISREG(path.lstat().st_mode)
            yield path.relative_to(folder).as_posix(), path if plain_file else None


def _digest(file: Path) -> str:
    descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


async def _of_cluster(source: Source) -> tuple[Sequence[Item], Keyring]:
    async with connect(source.kubeconfig, source.context) as kube:
        found = await look(kube, source.namespace, str(source.job), source.seal)
        if source.keyring is not None:
            return found.items, _ring_of_file(source.keyring)
        path = path_of("v1", "configmaps", source.release_namespace, KEYRING_CONFIG_MAP)
        try:
            return found.items, read_keyring(await kube.get(path), "seal")
        except (KubeError, UntrustedError) as error:
            raise _no_keyring(source.release_namespace, error) from None


def _ring_of_cluster(source: Source) -> Keyring:
    async def get() -> JsonObject:
        async with connect(source.kubeconfig, source.context) as kube:
            path = path_of("v1", "configmaps", source.release_namespace, KEYRING_CONFIG_MAP)
            return await kube.get(path)

    try:
        return read_keyring(asyncio.run(get()), "seal")
    except (KubeError, UntrustedError) as error:
        raise _no_keyring(source.release_namespace, error) from None


def _no_keyring(namespace: str, error: Exception) -> Failure:
    gone = isinstance(error, NotFoundError)
    found = "there is none" if gone else str(error)
    return Failure(
        f"ConfigMap {namespace}/{KEYRING_CONFIG_MAP}: {found}",
        expected="the operator's public keys",
        remedy=f"ask the platform team for `kubectl get cm {KEYRING_CONFIG_MAP} -n {namespace} "
        "-o yaml`, and give it with --keyring FILE",
        code=UNDETERMINED,
    )


def _of_file(path: Path, seal: str | None) -> Sequence[Item]:
    try:
        value = json.loads(_bounded(path, _MOST_MANIFESTS))
    except ValueError as error:
        raise Failure(
            f"{path}: not JSON: {error}",
            expected="what `trainseal checkpoints JOB -o json` prints",
            remedy="print it again",
        ) from None
    objects = json_objects(json_object(value).get("checkpoints"))
    items, _ = parsed(
        [o for o in objects if seal in (None, json_object(o.get("spec")).get("sealedRun"))]
    )
    return items


def _ring_of_file(path: Path) -> Keyring:
    return ring_of_file(path, "seal")


def ring_of_file(path: Path, purpose: Purpose) -> Keyring:
    """The keys of one purpose in a file with the ConfigMap. Raises Failure."""
    try:
        return read_keyring(json_object(yaml.safe_load(_bounded(path, _MOST_KEYRING))), purpose)
    except (yaml.YAMLError, UntrustedError) as error:
        raise Failure(
            f"{path}: {error}",
            expected=f"ConfigMap {KEYRING_CONFIG_MAP} as YAML or JSON",
            remedy=f"`kubectl get cm {KEYRING_CONFIG_MAP} -n trainseal-system -o yaml`",
        ) from None


def _bounded(path: Path, most: int) -> bytes:
    with path.open("rb") as file:
        data = file.read(most + 1)
    if len(data) > most:
        raise Failure(f"{path}: more than {most} bytes", expected="less")
    return data


def print_json(found: Comparison) -> None:
    """For programs, on stdout."""
    value: JsonObject = {
        "files": [
            {"path": f.path, "verdict": f.verdict, "message": f.words, "manifest": f.manifest}
            for f in found.files
        ],
        "links": list(found.links),
        "untrusted": list(found.untrusted),
    }
    print(json.dumps(value, indent=2, ensure_ascii=False))  # noqa: T201


def print_text(found: Comparison) -> None:
    """For people, on stdout."""
    console = Console(highlight=False, soft_wrap=True)
    for file in found.files:
        good = file.verdict in _GOOD
        text = Text(f"{file.verdict:<9}", "green" if good else "bold red")
        text.append(plain(file.path))
        if file.words:
            text.append(f": {plain(file.words)}", "dim" if good else "")
        console.print(text)
    for link in found.links:
        console.print(Text(f"{'link':<9}{plain(link)}: not looked at", "dim"))
    for words in found.untrusted:
        console.print(Text(f"not used: {plain(words)}", "yellow"))
    bad = sum(file.verdict not in _GOOD for file in found.files)
    if not found.files:
        console.print(Text("the folder holds no file", "yellow"))
    elif bad:
        console.print(Text(f"{bad} of {len(found.files)} files are not as signed", "bold red"))
    else:
        console.print(Text(f"all {len(found.files)} files are as signed", "bold green"))
