"""``trainseal sign code``: hash a tree, sign its manifest, push both as one artifact."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from trainseal.cli.failures import Failure
from trainseal.cli.wording import counted
from trainseal.provenance.authorities import KeyAuthority
from trainseal.provenance.bundles import (
    MAX_MANIFEST_BUNDLE_BYTES,
    BundleError,
    encode_bundle,
    make_bundle_dsse,
)
from trainseal.provenance.checks import check_statement
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE
from trainseal.provenance.judgement import read_bundle
from trainseal.provenance.keys import PrivateKey, model_signing_hint
from trainseal.provenance.manifests import ManifestError, TreeManifest, parse_statement
from trainseal.registry.client import RegistryClient
from trainseal.registry.code import CodeEvidence, push_code
from trainseal.registry.references import Reference
from trainseal.registry.tree_files import TreeFile, hash_files, list_files


@dataclass(frozen=True, slots=True)
class SignedCode:
    """A tree as pushed: its reference by digest. ``added``: whether a bundle was attached."""

    reference: Reference
    tree_digest: str
    files: int
    size: int
    added: bool
    signers: int

    def describe(self, key: str) -> list[str]:
        """For the signer, briefly."""
        did = f"signed with {key}" if self.added else f"already signed with {key}, nothing attached"
        return [
            f"code {self.files} files, {self.size:,} bytes, tree {self.tree_digest}",
            f"{did}; {counted(self.signers, 'signature')} in all",
        ]


async def sign_code(
    client: RegistryClient, directory: Path, push: Reference, key: PrivateKey, console: Console
) -> SignedCode:
    """Signs and pushes a tree. Raises RegistryError, TreeFilesError, ManifestError, Failure."""
    if push.digest is not None:
        raise Failure(
            f"--push {push} has a digest",
            expected="a repository, with a tag or without",
            remedy="leave the digest out: it is what comes out",
        )
    name, files = await asyncio.to_thread(_listed, directory)
    size = sum(file.size for file in files)
    with _bars(console) as bars:
        hashing = bars.add_task(f"hashing {len(files)} files", total=size)
        digests = await asyncio.to_thread(
            hash_files, directory, files, lambda count: bars.advance(hashing, count)
        )
        manifest = TreeManifest.of(name, digests)
        pushing = bars.add_task("pushing", total=None)
        added = False
        signers = 0

        async def bundle_for(pushed: CodeEvidence) -> bytes | None:
            nonlocal added, signers
            signers = len(pushed.bundles)
            if any(_is_ours(content, key, manifest) for _, content in pushed.bundles):
                return None
            added, signers = True, signers + 1
            statement = manifest.to_statement()
            hint = model_signing_hint(key.public)
            return encode_bundle(make_bundle_dsse(key, statement, IN_TOTO_PAYLOAD_TYPE, hint=hint))

        reference = await push_code(
            client,
            directory,
            files,
            push,
            tree_digest=manifest.root_digest,
            bundle_for=bundle_for,
            progress=lambda done, total: bars.update(pushing, completed=done, total=total),
        )
    return SignedCode(reference, manifest.root_digest, len(files), size, added, signers)


def _listed(directory: Path) -> tuple[str, list[TreeFile]]:
    if not directory.is_dir():
        raise Failure(f"{directory} is no directory", expected="the directory with the code")
    return directory.resolve().name, list_files(directory)


def _is_ours(content: bytes, key: PrivateKey, manifest: TreeManifest) -> bool:
    """Whether this bundle is our key's over the very same files."""
    piece = read_bundle(content, MAX_MANIFEST_BUNDLE_BYTES)
    if isinstance(piece, BundleError):
        return False
    _, statement = check_statement(piece, KeyAuthority("you", "you", key.public))
    if statement is None:
        return False
    try:
        return parse_statement(statement.payload).entries == manifest.entries
    except ManifestError:
        return False


@contextmanager
def _bars(console: Console) -> Iterator[Progress]:
    """Bars on a terminal; nothing in a log."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bars:
        yield bars
