"""Tree manifests: every file of a tree with its digest, in the OpenSSF Model Signing format.

The signed payload is an in-toto Statement v1 with predicateType
``https://model_signing/signature/v1.0`` (sigstore/model-transparency, ``model_signing/signing.py``,
class ``Payload``)::

    subject:   [{name, digest: {sha256: ROOT}}]          ROOT over the digests, in listed order
    predicate: {serialization: {method: files, hash_type: sha256, allow_symlinks, ignore_paths?},
                resources: [{name, algorithm: sha256, digest}]}

What we write, ``model_signing verify`` reads, and the other way round, with these limits: whole
files and SHA-256 only (shards and BLAKE are "not supported", never "wrong"), names as
``tree_paths`` allows them, and an ignore list hides nothing: it is read, but a file of the
observed tree that the manifest does not name is ``extra`` wherever it lies.

**The root digest covers the files' digests, not their names** (so the specification): two trees
with the same contents under other names can share one. Whoever pins a tree pins the bundle (or the
payload) as well, and compares names against the manifest.

Laws: ``parse_statement(m.to_statement()) == m``; ``compare(m, m.digests) == []``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from typing import NoReturn

from trainseal.provenance import statements
from trainseal.provenance.strictjson import JSONObject, JSONValue
from trainseal.provenance.tree_paths import (
    MAX_PATH_BYTES,
    TreePathError,
    check_paths,
    path_key,
    shown,
)

PREDICATE_TYPE = "https://model_signing/signature/v1.0"
_PREDICATE_TYPE_BEFORE_1_0 = "https://model_signing/Digests/v0.1"

#: What fits, in base64, into a bundle of ``bundles.MAX_MANIFEST_BUNDLE_BYTES``.
MAX_STATEMENT_BYTES = 6 * 1024 * 1024 - 64 * 1024
MAX_FILES = 65_536
MAX_NAME_CHARACTERS = 255
MAX_IGNORE_PATHS = 1024

_HEX = re.compile(r"[0-9a-f]{64}")
#: What model_signing calls the only file when the "tree" it signed was a single file.
_WHOLE = "."


class ManifestError(ValueError):
    """A payload is not a tree manifest, or not one that can be relied on."""


class UnsupportedManifestError(ManifestError):
    """A well-formed manifest of a kind that is not read here."""


@dataclass(frozen=True, slots=True)
class ManifestEntry:
    """One file: its path within the tree and the lower-case hex SHA-256 of its bytes."""

    path: str
    sha256: str


@dataclass(frozen=True, slots=True)
class TreeManifest:
    """A tree's files in their signed order.

    ``name`` is the tree's name and only informs. ``ignore_paths`` is what the signer says was left
    out; it is kept to be shown, and excuses nothing. Raises ManifestError for names or digests
    that no signed tree may have, and for a tree without files (it would vouch for nothing).
    """

    name: str
    entries: tuple[ManifestEntry, ...]
    ignore_paths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not self.entries:
            raise ManifestError("manifest lists no file; expected at least one; sign a tree")
        if len(self.entries) > MAX_FILES:
            raise ManifestError(
                f"manifest lists {len(self.entries)} files; expected at most {MAX_FILES};"
                " pack small files into archives or split the tree"
            )
        if len(self.name) > MAX_NAME_CHARACTERS or not self.name.isprintable():
            raise ManifestError(
                f"tree name {shown(self.name)}: expected at most {MAX_NAME_CHARACTERS} printable"
                " characters"
            )
        for ignored in self.ignore_paths:
            if len(ignored) > MAX_PATH_BYTES or not ignored.isprintable():
                raise ManifestError(
                    f"ignored path {shown(ignored)}: expected at most {MAX_PATH_BYTES} printable"
                    " characters"
                )
        for entry in self.entries:
            if not _HEX.fullmatch(entry.sha256):
                raise ManifestError(
                    f"{shown(entry.path)}: digest {shown(entry.sha256)}; expected 64 lower-case"
                    " hexadecimal digits"
                )
        try:
            check_paths(entry.path for entry in self.entries)
        except TreePathError as error:
            raise ManifestError(str(error)) from None

    @classmethod
    def of(cls, name: str, files: Mapping[str, str]) -> TreeManifest:
        """The manifest of ``files`` (path to hex SHA-256), ordered as model_signing orders them."""
        return cls(
            name=name,
            entries=tuple(ManifestEntry(p, files[p]) for p in sorted(files, key=path_key)),
        )

    @property
    def digests(self) -> dict[str, str]:
        """Path to hex SHA-256, in signed order."""
        return {entry.path: entry.sha256 for entry in self.entries}

    @property
    def root_digest(self) -> str:
        """``sha256:…`` over the files' raw digests in order; does not cover names (see above)."""
        hasher = sha256()
        for entry in self.entries:
            hasher.update(bytes.fromhex(entry.sha256))
        return f"sha256:{hasher.hexdigest()}"

    def to_statement(self) -> bytes:
        """The payload to sign, as UTF-8 JSON; the same manifest gives the same bytes.

        Raises ManifestError where it would be longer than ``MAX_STATEMENT_BYTES``.
        """
        serialization: dict[str, object] = {
            "method": "files",
            "hash_type": "sha256",
            "allow_symlinks": False,
        }
        if self.ignore_paths:
            serialization["ignore_paths"] = list(self.ignore_paths)
        statement = {
            "_type": statements.STATEMENT_V1,
            "subject": [
                {"name": self.name, "digest": {"sha256": self.root_digest.removeprefix("sha256:")}}
            ],
            "predicateType": PREDICATE_TYPE,
            "predicate": {
                "serialization": serialization,
                "resources": [
                    {"name": entry.path, "algorithm": "sha256", "digest": entry.sha256}
                    for entry in self.entries
                ],
            },
        }
        payload = json.dumps(statement, ensure_ascii=False, separators=(",", ":")).encode()
        if len(payload) > MAX_STATEMENT_BYTES:
            raise ManifestError(
                f"manifest of {len(payload)} bytes; expected at most {MAX_STATEMENT_BYTES};"
                " pack small files into archives or split the tree"
            )
        return payload


class DifferenceKind(StrEnum):
    """How a file differs from the manifest."""

    CHANGED = "changed"
    MISSING = "missing"
    EXTRA = "extra"


@dataclass(frozen=True, slots=True)
class Difference:
    """One file that is not as signed. ``signed`` and ``found`` are hex SHA-256, None if absent."""

    path: str
    kind: DifferenceKind
    signed: str | None = None
    found: str | None = None

    def __str__(self) -> str:
        name = shown(self.path)
        match self.kind:
            case DifferenceKind.CHANGED:
                return f"{name}: changed: found sha256:{self.found}, signed sha256:{self.signed}"
            case DifferenceKind.MISSING:
                return f"{name}: missing: the signed manifest lists it, the tree does not have it"
            case DifferenceKind.EXTRA:
                return f"{name}: extra: the tree has it, the signed manifest does not list it"


def compare(manifest: TreeManifest, observed: Mapping[str, str]) -> list[Difference]:
    """Every difference between the signed tree and ``observed`` (path to hex SHA-256), by path.

    Empty exactly when both have the same files with the same digests.
    """
    signed = manifest.digests
    differences = [
        Difference(path, DifferenceKind.CHANGED, signed[path], observed[path])
        for path in signed.keys() & observed.keys()
        if signed[path] != observed[path]
    ]
    differences += [
        Difference(path, DifferenceKind.MISSING, signed=signed[path])
        for path in signed.keys() - observed.keys()
    ]
    differences += [
        Difference(path, DifferenceKind.EXTRA, found=observed[path])
        for path in observed.keys() - signed.keys()
    ]
    return sorted(differences, key=lambda difference: path_key(difference.path))


def parse_statement(payload: bytes) -> TreeManifest:
    """Reads a DSSE payload as a tree manifest; the caller has verified its signature.

    Raises UnsupportedManifestError for manifests of another kind (shards, other hashes, the
    pre-1.0 predicate), ManifestError for anything malformed, oversized or inconsistent with its
    own root digest.
    """
    try:
        statement = statements.parse_statement(payload, max_bytes=MAX_STATEMENT_BYTES)
    except statements.StatementError as error:
        raise ManifestError(f"manifest is no in-toto statement: {error}") from None
    if statement.predicate_type == _PREDICATE_TYPE_BEFORE_1_0:
        raise UnsupportedManifestError(
            "manifest in model_signing's form before 1.0 is not supported (it has no root digest);"
            " sign the tree again with model_signing 1.0 or later, or trainseal sign code"
        )
    if statement.predicate_type != PREDICATE_TYPE:
        _wrong("predicateType", statement.predicate_type, PREDICATE_TYPE)
    if len(statement.subjects) != 1:
        _wrong("subject", f"{len(statement.subjects)} entries", "one")
    subject = statement.subjects[0]
    predicate = statement.predicate
    # First: names and digests mean what the serialization says they mean.
    ignore_paths = _serialization(_object(predicate.get("serialization"), "serialization"))
    manifest = TreeManifest(
        name=subject.name,
        entries=_entries(predicate.get("resources"), subject.name),
        ignore_paths=ignore_paths,
    )
    signed_root = f"sha256:{subject.digests.get('sha256', '(absent)')}"
    if manifest.root_digest != signed_root:
        raise ManifestError(
            f"manifest contradicts itself: its subject says {shown(signed_root)}, its files hash to"
            f" {manifest.root_digest}; it was changed or badly made; sign the tree again"
        )
    return manifest


def _wrong(field: str, found: object, expected: str) -> NoReturn:
    raise ManifestError(f"manifest {field}: found {shown(str(found))}, expected {expected}")


def _object(value: JSONValue, field: str) -> JSONObject:
    if not isinstance(value, dict):
        _wrong(field, type(value).__name__, "an object")
    return value


def _text(value: JSONValue, field: str) -> str:
    if not isinstance(value, str):
        _wrong(field, type(value).__name__, "a string")
    return value


def _serialization(serialization: Mapping[str, JSONValue]) -> tuple[str, ...]:
    """Checks the method; the paths that the signer left out."""
    for field, expected in (("method", "files"), ("hash_type", "sha256")):
        found = _text(serialization.get(field), f"serialization.{field}")
        if found != expected:
            raise UnsupportedManifestError(
                f"manifest with {field} {shown(found)!r} is not supported; expected"
                f" {expected!r}; sign the tree again by whole files with SHA-256"
            )
    # allow_symlinks says how the signer read the tree: the digests are those of the bytes behind
    # the links. Trees here never hold links, so either value means the same.
    if not isinstance(serialization.get("allow_symlinks"), bool):
        _wrong("serialization.allow_symlinks", serialization.get("allow_symlinks"), "true or false")
    ignored = serialization.get("ignore_paths", [])
    if not isinstance(ignored, list) or len(ignored) > MAX_IGNORE_PATHS:
        _wrong("serialization.ignore_paths", type(ignored).__name__, "a list of at most 1024 paths")
    return tuple(_text(path, "serialization.ignore_paths") for path in ignored)


def _entries(resources: JSONValue, tree_name: str) -> tuple[ManifestEntry, ...]:
    if not isinstance(resources, list):
        _wrong("resources", type(resources).__name__, "a list")
    entries = tuple(_entry(resource) for resource in resources)
    if len(entries) == 1 and entries[0].path == _WHOLE:
        # A signed single file is the tree of that one file, under the name it was signed with.
        return (ManifestEntry(tree_name, entries[0].sha256),)
    return entries


def _entry(value: JSONValue) -> ManifestEntry:
    resource = _object(value, "resources")
    name = _text(resource.get("name"), "resources.name")
    algorithm = _text(resource.get("algorithm"), "resources.algorithm")
    if algorithm != "sha256":
        raise UnsupportedManifestError(
            f"{shown(name)}: hash algorithm {shown(algorithm)!r} is not supported; expected"
            " 'sha256'; sign the tree again by whole files with SHA-256"
        )
    return ManifestEntry(name, _text(resource.get("digest"), "resources.digest"))
