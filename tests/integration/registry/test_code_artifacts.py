"""A work tree pushed as a code artifact: what is sent, what is not sent again, what is found."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests.local_registry import Registry
from trainseal.provenance.bundles import MEDIA_TYPE
from trainseal.registry.client import RegistryClient
from trainseal.registry.code import CODE_TYPE, CodeEvidence, code_evidence, push_code
from trainseal.registry.descriptors import sha256_digest
from trainseal.registry.errors import MalformedContent, TooLarge
from trainseal.registry.references import Reference
from trainseal.registry.tree_files import TreeFilesError, list_files

TREE_DIGEST = sha256_digest(b"the tree's root digest")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """12 MiB in 24 files: several layers."""
    folder = tmp_path / "tree"
    (folder / "package").mkdir(parents=True)
    for number in range(24):
        (folder / "package" / f"part{number}.py").write_bytes(bytes([number]) * 512 * 1024)
    (folder / "train.sh").write_text("exec python -m package\n")
    (folder / "train.sh").chmod(0o755)
    return folder


async def push(
    client: RegistryClient,
    tree: Path,
    where: Reference,
    bundle: bytes | None = b'{"bundle": 1}',
    progress: list[tuple[int, int]] | None = None,
) -> Reference:
    async def bundle_for(_pushed: CodeEvidence) -> bytes | None:
        return bundle

    seen = [] if progress is None else progress
    return await push_code(
        client,
        tree,
        list_files(tree),
        where,
        tree_digest=TREE_DIGEST,
        bundle_for=bundle_for,
        progress=lambda done, total: seen.append((done, total)),
    )


def on_disk(tree: Path) -> dict[str, tuple[int, bytes]]:
    return {
        str(file.relative_to(tree)): (file.stat().st_mode & 0o777, file.read_bytes())
        for file in tree.rglob("*")
        if file.is_file()
    }


async def unpacked(client: RegistryClient, evidence: CodeEvidence) -> dict[str, tuple[int, bytes]]:
    files = {}
    for layer in evidence.layers:
        raw = await client.blob(evidence.reference, layer, 2**26)
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            for member in tar:
                content = tar.extractfile(member)
                assert content is not None
                files[member.name] = (member.mode, content.read())
    return files


async def test_a_pushed_tree_is_read_back_file_by_file_with_its_bundle(
    client: RegistryClient, registry: Registry, tree: Path
) -> None:
    reference = await push(client, tree, registry.repository().tagged("main"))
    evidence = await code_evidence(client, reference)
    assert reference.digest == evidence.manifest.digest
    assert reference.tag is None
    assert evidence.tree_digest == TREE_DIGEST
    assert evidence.bundles == ((sha256_digest(b'{"bundle": 1}'), b'{"bundle": 1}'),)
    assert len(evidence.layers) > 1
    files = await unpacked(client, evidence)
    assert files == on_disk(tree)
    tagged = await client.resolve(reference.tagged("main"))
    assert tagged.digest == reference.digest


async def test_only_the_layer_of_a_changed_file_is_sent_again(
    client: RegistryClient, registry: Registry, tree: Path
) -> None:
    where = registry.repository()
    first = await code_evidence(client, await push(client, tree, where))
    (tree / "train.sh").write_text("exec python -m packagE\n")
    second = await code_evidence(client, await push(client, tree, where))
    assert len({*second.layers} - {*first.layers}) == 1


async def test_the_same_tree_pushed_again_is_the_same_artifact_and_progress_still_ends(
    client: RegistryClient, registry: Registry, tree: Path
) -> None:
    where = registry.repository()
    progress: list[tuple[int, int]] = []
    first = await push(client, tree, where)
    assert await push(client, tree, where, progress=progress) == first
    done, total = progress[-1]
    assert done == total == (await code_evidence(client, first)).size


async def test_a_second_signer_finds_the_first_bundle_and_may_attach_none(
    client: RegistryClient, registry: Registry, tree: Path
) -> None:
    where = registry.repository()
    await push(client, tree, where)
    asked: list[CodeEvidence] = []

    async def bundle_for(pushed: CodeEvidence) -> bytes | None:
        asked.append(pushed)
        return None

    await push_code(
        client, tree, list_files(tree), where, tree_digest=TREE_DIGEST, bundle_for=bundle_for
    )
    assert [content for _, content in asked[0].bundles] == [b'{"bundle": 1}']


async def test_an_artifact_of_another_kind_is_no_code(
    client: RegistryClient, registry: Registry, tree: Path
) -> None:
    where = registry.repository()
    reference = await push(client, tree, where)
    subject = await client.resolve(reference)
    attached = await client.attach(where, subject, "application/x", b"{}", "application/x")
    with pytest.raises(MalformedContent, match=CODE_TYPE):
        await code_evidence(client, where.at(attached.digest))


async def test_seventeen_bundles_are_an_error_and_sixteen_are_not(
    client: RegistryClient, registry: Registry, tree: Path
) -> None:
    where = registry.repository()
    reference = await push(client, tree, where, bundle=None)
    subject = await client.resolve(reference)
    for number in range(16):
        await client.attach(where, subject, MEDIA_TYPE, b"%d" % number, MEDIA_TYPE)
    assert len((await code_evidence(client, reference)).bundles) == 16
    await client.attach(where, subject, MEDIA_TYPE, b"16", MEDIA_TYPE)
    with pytest.raises(TooLarge, match="17 signatures"):
        await code_evidence(client, reference)


async def test_a_file_that_changes_while_it_is_packed_stops_the_push(
    client: RegistryClient, registry: Registry, tree: Path
) -> None:
    files = list_files(tree)
    (tree / "train.sh").write_text("longer than it was when it was listed\n")

    async def bundle_for(_pushed: CodeEvidence) -> bytes | None:
        pytest.fail("nothing may be signed")

    with pytest.raises(TreeFilesError, match=r"'train\.sh'.*while it was packed"):
        await push_code(
            client,
            tree,
            files,
            registry.repository(),
            tree_digest=TREE_DIGEST,
            bundle_for=bundle_for,
        )
