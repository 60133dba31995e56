"""Signatures that cosign really made are found, in each place where cosign puts them."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.local_registry import Registry
from tests.small_image import push_image
from trainseal.provenance.bundles import MEDIA_TYPE
from trainseal.registry.client import RegistryClient
from trainseal.registry.descriptors import (
    EMPTY_JSON,
    OCI_INDEX,
    sha256_digest,
)
from trainseal.registry.errors import MalformedContent, TooLarge
from trainseal.registry.images import image_evidence, resolve_image
from trainseal.registry.references import Reference
from trainseal.registry.referrers import fallback_tag, json_bytes
from trainseal.registry.transport import Options


class Signer:
    """cosign with a key of its own."""

    def __init__(self, cosign: Path, home: Path) -> None:
        self.cosign, self.home = cosign, home
        self.run("generate-key-pair")

    def run(self, *arguments: str) -> str:
        result = subprocess.run(
            [str(self.cosign), *arguments],
            cwd=self.home,
            env=os.environ | {"COSIGN_PASSWORD": "", "HOME": str(self.home)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stderr
        return result.stdout

    def sign(self, image: Reference, *flags: str) -> None:
        common = ["--key=cosign.key", "--use-signing-config=false", "--tlog-upload=false", "-y"]
        self.run("sign", *common, "--allow-http-registry", *flags, str(image))


@pytest.fixture
def signer(cosign: Path, tmp_path: Path) -> Signer:
    return Signer(cosign, tmp_path)


async def test_a_bundle_attached_by_cosign_3_is_found(
    client: RegistryClient, registry: Registry, signer: Signer
) -> None:
    where = registry.repository()
    image, _ = await push_image(client, where)
    signer.sign(where.at(image.digest))
    evidence = await image_evidence(client, where.at(image.digest))
    assert evidence.set_aside == ()
    assert evidence.simple_signings == ()
    (bundle,) = evidence.bundles
    document = json.loads(bundle)
    assert document["mediaType"] == MEDIA_TYPE
    assert image.digest.removeprefix("sha256:").encode() in base64.b64decode(
        document["dsseEnvelope"]["payload"]
    )


async def test_an_older_signature_under_the_sig_tag_is_found(
    client: RegistryClient, registry: Registry, signer: Signer
) -> None:
    where = registry.repository()
    image, _ = await push_image(client, where)
    signer.sign(where.at(image.digest), "--new-bundle-format=false")
    evidence = await image_evidence(client, where.at(image.digest))
    assert evidence.bundles == ()
    (signing,) = evidence.simple_signings
    payload, signature = signing
    assert json.loads(payload)["critical"]["image"]["docker-manifest-digest"] == image.digest
    assert base64.b64decode(signature, validate=True)


async def test_signatures_of_two_people_in_both_forms_are_all_found(
    client: RegistryClient, registry: Registry, signer: Signer
) -> None:
    where = registry.repository()
    image, _ = await push_image(client, where)
    for _person in range(2):
        signer.sign(where.at(image.digest))
        signer.sign(where.at(image.digest), "--new-bundle-format=false")
    evidence = await image_evidence(client, where.at(image.digest))
    assert len(evidence.bundles) == 2
    assert len(evidence.simple_signings) >= 1  # cosign replaces an equal key's older signature


async def test_an_unsigned_image_has_no_evidence(
    client: RegistryClient, registry: Registry
) -> None:
    where = registry.repository()
    image, _ = await push_image(client, where)
    evidence = await image_evidence(client, where.at(image.digest))
    assert evidence.bundles == ()
    assert evidence.simple_signings == ()
    assert evidence.set_aside == ()


async def test_damaged_pieces_are_set_aside_and_do_not_hide_the_good_one(
    client: RegistryClient, registry: Registry
) -> None:
    where = registry.repository()
    image, _ = await push_image(client, where)
    good, large, broken = b'{"good": 1}', b"x" * (256 * 1024 + 1), b'{"broken": 1}'
    for content in (good, large, broken):
        await client.attach(where, image, MEDIA_TYPE, content, MEDIA_TYPE)
    registry.blob_file(sha256_digest(broken)).write_bytes(b'{"broken": 2}')
    evidence = await image_evidence(client, where.at(image.digest))
    assert evidence.bundles == (good,)
    assert len(evidence.set_aside) == 2
    assert any("other bytes" in piece.words for piece in evidence.set_aside)
    assert any("at most 262144 bytes" in piece.words for piece in evidence.set_aside)


async def test_a_signature_copied_into_another_images_index_is_set_aside(
    registry_without_referrers: Registry,
) -> None:
    where = registry_without_referrers.repository()
    options = Options(plain_http=frozenset({where.registry}))
    async with RegistryClient(options) as client:
        signed, _ = await push_image(client, where, "amd64")
        unsigned, _ = await push_image(client, where, "arm64")
        await client.attach(where, signed, MEDIA_TYPE, b"{}", MEDIA_TYPE)
        index = await client.manifest(where.tagged(fallback_tag(signed.digest)))
        await client.push_manifest(
            where.tagged(fallback_tag(unsigned.digest)), index.raw, OCI_INDEX
        )
        evidence = await image_evidence(client, where.at(unsigned.digest))
        assert evidence.bundles == ()
        assert "attached to another artifact" in evidence.set_aside[0].words
        assert (await image_evidence(client, where.at(signed.digest))).bundles == (b"{}",)


async def test_a_large_attestation_of_another_kind_is_not_even_fetched(
    client: RegistryClient, registry: Registry
) -> None:
    where = registry.repository()
    image, _ = await push_image(client, where)
    sbom = {"dev.sigstore.bundle.predicateType": "https://spdx.dev/Document"}
    await client.attach(where, image, MEDIA_TYPE, b"x" * 300_000, MEDIA_TYPE, sbom)
    evidence = await image_evidence(client, where.at(image.digest))
    assert evidence.bundles == ()
    assert evidence.set_aside == ()


async def test_more_than_64_signatures_are_an_error_and_not_cut_off(
    client: RegistryClient, registry: Registry
) -> None:
    where = registry.repository()
    image, _ = await push_image(client, where)
    for number in range(65):
        await client.attach(where, image, MEDIA_TYPE, b'{"n": %d}' % number, MEDIA_TYPE)
    with pytest.raises(TooLarge, match="65 signatures"):
        await image_evidence(client, where.at(image.digest))


async def test_an_image_is_known_by_manifest_and_config(
    client: RegistryClient, registry: Registry
) -> None:
    where = registry.repository()
    image, config = await push_image(client, where)
    resolved = await resolve_image(client, where.tagged("amd64"))
    assert resolved.reference == where.at(image.digest)
    assert resolved.index_digest is None
    assert resolved.manifests == (("linux/amd64", image.digest, config),)


async def test_a_multi_platform_image_is_known_by_index_and_each_platform(
    client: RegistryClient, registry: Registry
) -> None:
    where = registry.repository()
    entries = []
    expected = []
    for architecture in ("amd64", "arm64"):
        image, config = await push_image(client, where, architecture)
        platform = {"os": "linux", "architecture": architecture}
        entries.append({**image.document(), "platform": platform})
        expected.append((f"linux/{architecture}", image.digest, config))
    await client.push_blob(where, EMPTY_JSON)
    unknown = {"os": "unknown", "architecture": "unknown"}
    entries.append({**entries[0], "platform": unknown})
    index = json_bytes({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": entries})
    pushed = await client.push_manifest(where.tagged("all"), index, OCI_INDEX)
    resolved = await resolve_image(client, where.tagged("all"))
    assert resolved.index_digest == resolved.digest == pushed.digest
    assert resolved.manifests == tuple(expected)


async def test_an_index_without_images_is_refused_with_words(
    client: RegistryClient, registry: Registry
) -> None:
    where = registry.repository()
    await push_image(client, where)
    index = json_bytes({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": []})
    await client.push_manifest(where.tagged("none"), index, OCI_INDEX)
    with pytest.raises(MalformedContent, match="without an image for any platform"):
        await resolve_image(client, where.tagged("none"))
