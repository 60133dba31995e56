"""Signatures on jobs, code and images; in process where a test makes many of them."""

from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster import Target
from tests.stage.people import Person, signing_environment
from trainseal.provenance.bundles import encode_bundle, make_bundle_dsse
from trainseal.provenance.canonical import canonical_form, canonical_job, digest_of_bytes
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE
from trainseal.provenance.manifests import TreeManifest
from trainseal.provenance.statements import job_statement
from trainseal.registry.client import RegistryClient
from trainseal.registry.code import CodeEvidence, push_code
from trainseal.registry.references import Reference
from trainseal.registry.transport import Options
from trainseal.registry.tree_files import hash_files, list_files

Object = dict[str, Any]

#: cosign without a transparency log: there is none within reach.
OFFLINE = ("--use-signing-config=false", "--tlog-upload=false", "--yes")


def signed(job: Object, *people: Person) -> Object:
    """The job with one bundle more for each person, as `trainseal sign job` adds them."""
    found = copy.deepcopy(job)
    found["spec"]["signatures"] = [
        *(found["spec"].get("signatures") or ()),
        *({"bundle": job_bundle(job, person)} for person in people),
    ]
    return found


def job_bundle(job: Object, person: Person) -> Object:
    """A person's bundle over the job, or template."""
    namespace, name, kind = job["metadata"]["namespace"], job["metadata"]["name"], job["kind"]
    digest = digest_of_bytes(canonical_form(job, kind))
    statement = job_statement(namespace, name, digest.removeprefix("sha256:"), kind)
    return make_bundle_dsse(person.key, statement, IN_TOTO_PAYLOAD_TYPE)


def cosign_bundle(target: Target, job: Object, person: Person, folder: Path) -> Object:
    """What plain `cosign sign-blob` makes of the canonical job."""
    canonical = folder / "canonical.json"
    canonical.write_bytes(canonical_job(job))
    bundle = folder / "bundle.json"
    target.run(
        [
            *(str(target.tools["cosign"]), "sign-blob", "--key", str(person.key_file), *OFFLINE),
            *("--bundle", str(bundle), str(canonical)),
        ],
        extra=signing_environment(),
    )
    found: Object = json.loads(bundle.read_text())
    return found


def push_tree(
    registry: str,
    tree: Path,
    repository: str,
    signer: Person | None,
    manifest_of: Path | None = None,
    client: RegistryClient | None = None,
) -> str:
    """Pushes a tree as a code artifact and returns its reference by digest.

    ``registry`` as this machine calls it. Without ``signer`` nothing is attached; the manifest
    that is signed may be another tree's (``manifest_of``). ``client`` is for a registry that wants
    more than plain HTTP.
    """
    described = manifest_of or tree
    manifest = TreeManifest.of("code", hash_files(described, list_files(described)))

    async def bundle_for(_: CodeEvidence) -> bytes | None:
        if signer is None:
            return None
        payload = manifest.to_statement()
        return encode_bundle(make_bundle_dsse(signer.key, payload, IN_TOTO_PAYLOAD_TYPE))

    async def push() -> Reference:
        options = Options(plain_http=frozenset({registry}))
        async with client or RegistryClient(options) as opened:
            return await push_code(
                opened,
                tree,
                list_files(tree),
                Reference.parse(f"{registry}/{repository}"),
                tree_digest=manifest.root_digest,
                bundle_for=bundle_for,
            )

    return str(asyncio.run(push()))


def write_tree(folder: Path, files: Mapping[str, str]) -> Path:
    """A folder with these files."""
    folder.mkdir(parents=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    return folder


def sign_image(target: Target, reference: str, signer: Person, *flags: str) -> None:
    """`cosign sign` with a key; cosign 3 attaches the bundle as a referrer."""
    target.run(
        [
            *(str(target.tools["cosign"]), "sign", "--key", str(signer.key_file), *OFFLINE),
            *("--allow-http-registry", *flags, reference),
        ],
        extra=signing_environment(),
    )
