"""Bundles by which ``model_signing verify key`` compares what a run wrote with what was signed.

OpenSSF Model Signing reads no Ed25519 key, which seals are signed with, and wants a statement of
its own form; so the operator has one more key (ECDSA P-256), for nothing else. Only the signature
is stored: the payload follows from the files that the Checkpoint or the statement names.

Names in a bundle are within the directory that all of its files share: that is what a person has a
copy of. Laws: ``make(*sign(key, n, f)…)`` is read by ``manifests.parse_statement``; where the files
differ, it does not verify.
"""

from __future__ import annotations

import base64
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.provenance.bundles import MEDIA_TYPE
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE
from trainseal.provenance.keyrings import Keyring, sign_as, verify_as
from trainseal.provenance.keys import PrivateKey, key_id, model_signing_hint
from trainseal.provenance.manifests import ManifestError, TreeManifest
from trainseal.provenance.statements import Statement

Json = Mapping[str, JsonValue]


@dataclass(frozen=True, slots=True)
class Tree:
    """Files as a bundle names them; ``folder`` is where they lie in the checkpoints mount."""

    folder: str
    manifest: TreeManifest


def tree_of(name: str, files: Mapping[str, str]) -> Tree:
    """By path in the checkpoints mount, each with its hex SHA-256. Raises ManifestError."""
    if not files:
        raise ManifestError("found no file that was read; expected at least one")
    # Names that no tree may have are refused as they are, before any of it is cut off.
    whole = TreeManifest.of(name[:255], files)
    folders = [posixpath.dirname(entry.path) for entry in whole.entries]
    folder = posixpath.commonpath(folders) if all(folders) else ""
    cut = len(folder) + 1 if folder else 0
    return Tree(folder, TreeManifest.of(name[:255], {p[cut:]: d for p, d in files.items()}))


def files_of_checkpoint(obj: Json) -> dict[str, str]:
    """What a Checkpoint object lists and has a digest of."""
    return {
        str(file.get("path")): str(file["digest"]).removeprefix("sha256:")
        for file in json_objects(json_object(obj.get("spec")).get("files"))
        if file.get("digest")
    }


def files_of_statement(statement: Statement) -> dict[str, str]:
    """The outputs of a run. Raises ManifestError where two pods wrote one name."""
    files: dict[str, str] = {}
    for subject in statement.subjects:
        digest = subject.digests.get("sha256", "")
        if files.setdefault(subject.name, digest) != digest:
            raise ManifestError(f"{subject.name}: written by several pods, each on its own volume")
    return files


def sign(key: PrivateKey, tree: Tree) -> JsonObject:
    """``{keyID, signature}`` over the tree. Raises ManifestError where it is too large."""
    body = tree.manifest.to_statement()
    return {
        "keyID": key_id(key.public),
        "signature": sign_as(key, IN_TOTO_PAYLOAD_TYPE, body),
    }


def bundle(keyring: Keyring, tree: Tree, signed: Json, signed_at: str) -> JsonObject:
    """The Sigstore bundle. Raises UntrustedError where a key of the ring did not sign this tree."""
    key, signature = str(signed.get("keyID")), str(signed.get("signature"))
    body = tree.manifest.to_statement()
    verify_as(keyring, key, signed_at, IN_TOTO_PAYLOAD_TYPE, body, signature)
    return {
        "mediaType": MEDIA_TYPE,
        "verificationMaterial": {
            "publicKey": {"hint": model_signing_hint(keyring[key].public_key)},
            "tlogEntries": [],
        },
        "dsseEnvelope": {
            "payload": base64.b64encode(body).decode(),
            "payloadType": IN_TOTO_PAYLOAD_TYPE,
            "signatures": [{"sig": signature}],
        },
    }
