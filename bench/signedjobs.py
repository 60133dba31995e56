"""Signed TrainingJobs with signed artifacts in a registry on loopback, as many as asked for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench.rig import Rig, until
from bench.sealed import NAMESPACE, Object, encode
from tests.local_registry import Registry, registry_with_referrers
from tests.small_image import push_image
from tests.stage.jobs import SHORT_CODE, short_job
from tests.stage.people import Person, with_cosign_key, with_openssl_key
from tests.stage.policies import policy
from tests.stage.signing import push_tree, sign_image, signed, write_tree
from trainseal.api.model import API_VERSION
from trainseal.cluster.api import path_of
from trainseal.provenance.bundles import MEDIA_TYPE
from trainseal.provenance.tickets import TICKET_ANNOTATION
from trainseal.registry.client import RegistryClient
from trainseal.registry.images import image_evidence
from trainseal.registry.references import Reference
from trainseal.registry.transport import Options

COLLECTION = path_of(API_VERSION, "trainingjobs", NAMESPACE)


@dataclass(frozen=True, slots=True)
class Artifacts:
    """An image and a code artifact, both signed."""

    image: str
    code: str


@dataclass(frozen=True, slots=True)
class Workshop:
    """Where jobs are made: people, a policy that names them, a registry."""

    registry: Registry
    alice: Person
    bundle: bytes
    client: RegistryClient
    tree: Path

    async def artifacts(self, name: str) -> Artifacts:
        """The image and the tree in repositories of their own: references that nobody has seen.

        cosign signed the image once; its bundle is attached to each copy, as `cosign copy` does.
        """
        where = Reference(self.registry.address, f"{NAMESPACE}/{name}/image")
        image, _ = await push_image(self.client, where)
        await self.client.attach(where, image, MEDIA_TYPE, self.bundle, MEDIA_TYPE)
        code = await asyncio.to_thread(
            push_tree, self.registry.address, self.tree, f"{NAMESPACE}/{name}/code", self.alice
        )
        return Artifacts(str(where.at(image.digest)), code)

    def unsigned(self, name: str, artifacts: Artifacts) -> Object:
        """A TrainingJob that nobody signed."""
        return short_job(name, NAMESPACE, artifacts.image, artifacts.code)

    def job(self, name: str, artifacts: Artifacts) -> Object:
        """A TrainingJob signed by alice."""
        return signed(self.unsigned(name, artifacts), self.alice)


@asynccontextmanager
async def workshop(ground: Rig) -> AsyncIterator[Workshop]:
    """Makes keys, policy and the first signature, and runs the registry until the block ends."""
    folder = ground.folder / "registry"
    folder.mkdir()
    program = ground.cluster.tools["registry"]
    registry = ground.stack.enter_context(registry_with_referrers(program, folder))
    alice = with_openssl_key(ground.folder, "alice")
    platform = with_cosign_key(ground.cluster, ground.folder, "platform")
    rules = policy(
        "bench",
        NAMESPACE,
        signers=[alice],
        image_signers=[platform],
        registries=[registry.address],
    )
    await ground.kube.create(path_of(API_VERSION, "provenancepolicies"), rules)
    async with RegistryClient(Options(plain_http=frozenset({registry.address}))) as client:
        where = registry.repository()
        image, _ = await push_image(client, where)
        reference = where.at(image.digest)
        sign_image(ground.cluster, str(reference), platform)
        (bundle,) = (await image_evidence(client, reference)).bundles
        tree = write_tree(ground.folder / "tree", SHORT_CODE)
        yield Workshop(registry, alice, bundle, client, tree)


async def until_asked(ground: Rig, shop: Workshop, artifacts: Artifacts) -> None:
    """Returns once both webhooks are asked and know the policy; leaves no job behind."""
    tried = f"{COLLECTION}?dryRun=All"
    good = encode(shop.job("probe", artifacts))
    unsigned = encode(shop.unsigned("probe", artifacts))

    async def are_asked() -> bool:
        status, answer = await ground.client.post(tried, good, {})
        _, refusal = await ground.client.post(tried, unsigned, {})
        return status == 201 and TICKET_ANNOTATION.encode() in answer and b"no signature" in refusal

    await until(are_asked, "the webhooks are asked, and know the policy")
