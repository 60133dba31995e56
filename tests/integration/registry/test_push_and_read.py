"""What is pushed to a real registry is read back as it was, and attached to what it belongs to."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from tests.local_registry import Registry
from trainseal.registry.client import RegistryClient
from trainseal.registry.descriptors import (
    EMPTY_JSON,
    OCI_MANIFEST,
    Descriptor,
    ImageManifest,
    empty_descriptor,
    parse_manifest,
    sha256_digest,
)
from trainseal.registry.errors import ContentMismatch, NotFound, TooLarge
from trainseal.registry.references import Reference
from trainseal.registry.referrers import fallback_tag, json_bytes
from trainseal.registry.transport import Options

NOTE = "application/vnd.example.note.v1"


async def push_artifact(client: RegistryClient, where: Reference, blob: bytes) -> Descriptor:
    """An artifact with one layer under the tag v1; its descriptor."""
    layer = Descriptor.of("application/octet-stream", blob)
    await client.push_blob(where, EMPTY_JSON)
    await client.push_blob(where, blob)
    raw = json_bytes(
        {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "artifactType": "application/vnd.example.v1",
            "config": empty_descriptor().document(),
            "layers": [layer.document()],
        }
    )
    return await client.push_manifest(where.tagged("v1"), raw, OCI_MANIFEST)


async def test_a_tag_resolves_to_what_was_pushed(
    client: RegistryClient, registry: Registry
) -> None:
    where = registry.repository()
    pushed = await push_artifact(client, where, b"weights")
    assert await client.resolve(where.tagged("v1")) == pushed
    manifest = await client.manifest(where.at(pushed.digest))
    parsed = parse_manifest(manifest, "it")
    assert isinstance(parsed, ImageManifest)
    assert await client.blob(where, parsed.layers[0], 100) == b"weights"


async def test_a_tag_digest_or_blob_that_is_not_there_is_said_to_be_absent(
    client: RegistryClient, registry: Registry
) -> None:
    where = registry.repository()
    await push_artifact(client, where, b"weights")
    missing = sha256_digest(b"never pushed")
    for absent in (where.tagged("v2"), where.at(missing), registry.repository().tagged("v1")):
        with pytest.raises(NotFound, match="no such thing"):
            await client.manifest(absent)
    with pytest.raises(NotFound):
        await client.blob(where, missing, 100)
    assert not await client.blob_exists(where, missing)


async def test_a_blob_is_pushed_once_and_progress_reaches_its_size(
    client: RegistryClient, registry: Registry
) -> None:
    where, blob = registry.repository(), bytes(range(256)) * 20_000
    seen: list[tuple[int, int]] = []
    assert await client.push_blob(where, blob, progress=lambda *at: seen.append(at))
    assert len(seen) > 1
    assert seen[-1] == (len(blob), len(blob))
    assert not await client.push_blob(where, blob, progress=lambda *at: seen.append(at))
    assert seen[-1] == (len(blob), len(blob))
    assert await client.blob_exists(where, sha256_digest(blob))


async def test_a_large_blob_streams_back_whole(client: RegistryClient, registry: Registry) -> None:
    where, blob = registry.repository(), bytes(range(256)) * 20_000
    await client.push_blob(where, blob)
    stream = client.blob_stream(where, Descriptor.of("application/octet-stream", blob))
    assert b"".join([chunk async for chunk in stream]) == blob


async def test_a_stream_may_be_left_early(client: RegistryClient, registry: Registry) -> None:
    where, blob = registry.repository(), bytes(range(256)) * 20_000
    await client.push_blob(where, blob)
    descriptor = Descriptor.of("application/octet-stream", blob)
    async with aclosing(client.blob_stream(where, descriptor)) as stream:
        assert await anext(stream)
    assert await client.blob_exists(where, descriptor.digest)


async def test_bytes_changed_in_the_registry_are_found_out(
    client: RegistryClient, registry: Registry
) -> None:
    where, blob = registry.repository(), b"import torch\n" * 1000
    await client.push_blob(where, blob)
    descriptor = Descriptor.of("application/octet-stream", blob)
    file = registry.blob_file(descriptor.digest)
    file.write_bytes(blob.replace(b"torch", b"t0rch"))
    with pytest.raises(ContentMismatch, match="other bytes"):
        await client.blob(where, descriptor, len(blob))
    with pytest.raises(ContentMismatch, match="other bytes"):
        async for _chunk in client.blob_stream(where, descriptor):
            pass
    file.write_bytes(blob)
    assert await client.blob(where, descriptor, len(blob)) == blob


async def test_a_blob_larger_than_allowed_is_not_read(
    client: RegistryClient, registry: Registry
) -> None:
    where, blob = registry.repository(), b"x" * 1000
    await client.push_blob(where, blob)
    with pytest.raises(TooLarge, match="at most 999 bytes"):
        await client.blob(where, sha256_digest(blob), 999)
    assert await client.blob(where, sha256_digest(blob), 1000) == blob


async def test_what_is_attached_is_listed_with_its_type_and_read_back(
    client: RegistryClient, registry: Registry
) -> None:
    where = registry.repository()
    subject = await push_artifact(client, where, b"weights")
    attached = await client.attach(where, subject, NOTE, b"a note", NOTE, {"by": "ada"})
    listed = await client.referrers(where.at(subject.digest), NOTE)
    assert [entry.digest for entry in listed] == [attached.digest]
    parsed = parse_manifest(await client.manifest(where.at(attached.digest)), "it")
    assert isinstance(parsed, ImageManifest)
    assert parsed.kind == NOTE
    assert parsed.subject == subject
    assert parsed.annotations == {"by": "ada"}
    assert await client.blob(where, parsed.layers[0], 100) == b"a note"


async def test_nothing_attached_is_an_empty_list(
    client: RegistryClient, registry: Registry
) -> None:
    where = registry.repository()
    subject = await push_artifact(client, where, b"weights")
    assert await client.referrers(where.at(subject.digest)) == []


async def test_many_attached_at_once_are_all_listed(
    client: RegistryClient, registry: Registry
) -> None:
    where = registry.repository()
    subject = await push_artifact(client, where, b"weights")
    attached = await asyncio.gather(
        *(client.attach(where, subject, NOTE, f"note {n}".encode(), NOTE) for n in range(12))
    )
    listed = await client.referrers(where.at(subject.digest), NOTE)
    assert {entry.digest for entry in listed} == {entry.digest for entry in attached}


async def test_attaching_the_same_again_adds_nothing(
    client: RegistryClient, registry: Registry
) -> None:
    where = registry.repository()
    subject = await push_artifact(client, where, b"weights")
    first = await client.attach(where, subject, NOTE, b"a note", NOTE)
    assert await client.attach(where, subject, NOTE, b"a note", NOTE) == first
    assert len(await client.referrers(where.at(subject.digest))) == 1


async def test_without_the_api_the_index_is_kept_under_the_tag(
    registry_without_referrers: Registry,
) -> None:
    where = registry_without_referrers.repository()
    options = Options(plain_http=frozenset({registry_without_referrers.address}))
    async with RegistryClient(options) as client:
        subject = await push_artifact(client, where, b"weights")
        tag = where.tagged(fallback_tag(subject.digest))
        with pytest.raises(NotFound):
            await client.manifest(tag)
        await client.attach(where, subject, NOTE, b"a note", NOTE)
        assert b"note.v1" in (await client.manifest(tag)).raw


async def test_what_lies_under_the_fallback_tag_is_found_where_the_api_knows_nothing(
    registry_with_referrers: Registry,
) -> None:
    where = registry_with_referrers.repository()
    options = Options(plain_http=frozenset({registry_with_referrers.address}))
    async with RegistryClient(options) as client:
        subject = await push_artifact(client, where, b"weights")
        other = await push_artifact(client, where, b"stands for a copied signature")
        index = {"schemaVersion": 2, "manifests": [other.document()]}
        tag = where.tagged(fallback_tag(subject.digest))
        await client.push_manifest(
            tag, json_bytes(index), "application/vnd.oci.image.index.v1+json"
        )
        listed = await client.referrers(where.at(subject.digest))
        assert [entry.digest for entry in listed] == [other.digest]


async def test_what_anybody_attaches_by_the_api_hides_nothing_under_the_fallback_tag(
    registry_with_referrers: Registry,
) -> None:
    where = registry_with_referrers.repository()
    options = Options(plain_http=frozenset({registry_with_referrers.address}))
    async with RegistryClient(options) as client:
        subject = await push_artifact(client, where, b"weights")
        copied = await push_artifact(client, where, b"stands for a copied signature")
        index = {"schemaVersion": 2, "manifests": [copied.document()]}
        tag = where.tagged(fallback_tag(subject.digest))
        await client.push_manifest(
            tag, json_bytes(index), "application/vnd.oci.image.index.v1+json"
        )
        attached = await client.attach(where, subject, NOTE, b"anybody's", NOTE)
        listed = await client.referrers(where.at(subject.digest))
        assert {entry.digest for entry in listed} == {copied.digest, attached.digest}
