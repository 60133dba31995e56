"""``trainseal sign job``: tags become digests, a bundle is added, the file is replaced at once.

Rules:

1. What has no digest is resolved before anything is signed.
2. A bundle that names another digest is stale, and dropped with a word. A bundle that says nothing
   of what it signs, or that cannot be read, stays: it may be somebody's.
3. A key signs one job once.
4. What is written is read back, digest and signature included, before it takes the file's place.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from trainseal.api.model import JsonObject
from trainseal.cli.failures import Failure
from trainseal.cli.jobfiles import STDIN, JobFile, canonical, in_namespace, kind_of, whole_job
from trainseal.cli.layout import LayoutError, changed, edited, written_anew
from trainseal.cli.wording import counted
from trainseal.provenance.authorities import KeyAuthority
from trainseal.provenance.bundles import (
    MAX_BUNDLE_BYTES,
    BundleError,
    encode_bundle,
    make_bundle_dsse,
)
from trainseal.provenance.canonical import KIND, TEMPLATE_KIND, SignedKind
from trainseal.provenance.claims import is_over
from trainseal.provenance.document import FieldPath
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE
from trainseal.provenance.judgement import Piece, Signed, check_signed, read_bundle
from trainseal.provenance.keys import PrivateKey
from trainseal.provenance.statements import job_statement
from trainseal.provenance.verdicts import Outcome
from trainseal.provenance.yamlreader import read_documents
from trainseal.registry.client import RegistryClient
from trainseal.registry.references import Reference

MAX_SIGNATURES = 16


@dataclass(frozen=True, slots=True)
class ToSign:
    """A job or template with its references resolved: what the next signature will be over."""

    file: JobFile
    replacements: dict[FieldPath, str]
    wanted: JsonObject
    canonical: bytes
    namespace: str
    name: str
    kind: SignedKind

    @property
    def signed(self) -> Signed:
        """What a signature of it is over."""
        return Signed(self.kind, self.namespace, self.name, self.canonical)

    @property
    def digest(self) -> str:
        """The job digest."""
        return self.signed.digest

    def describe(self) -> list[str]:
        """For the signer, briefly."""
        what = "job" if self.kind == KIND else "template"
        lines = [f"{what} {self.namespace}/{self.name} {self.digest}"]
        for kind, found in (("image", _images(self.wanted)), ("code", _code(self.wanted))):
            lines += [f"  {kind} {reference}" for reference in dict.fromkeys(found.values())]
        return lines


@dataclass(frozen=True, slots=True)
class SignedJob:
    """A job as signed. ``text`` is the whole manifest; ``added`` is False where it was before.

    ``notes`` tell the signer what else was done.
    """

    text: str
    added: bool
    signatures: int
    notes: tuple[str, ...] = ()

    def describe(self, key: str) -> list[str]:
        """For the signer, briefly."""
        lines = [f"note: {note}" for note in self.notes]
        if not self.added:
            return [*lines, f"already signed with {key}: no signature added"]
        return [*lines, f"signed with {key}; {counted(self.signatures, 'signature')} in all"]


async def resolve_references(
    job: JobFile, client: RegistryClient, code: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Each image and code reference that has no digest, with its digest. Raises RegistryError.

    ``code`` names the code mounts that get another reference, and need none resolved.
    """
    found: dict[str, str] = {}
    for reference in unresolved(job, code or {}):
        digest = (await client.resolve(Reference.parse(reference))).digest
        found[reference] = f"{reference}@{digest}"
    return found


def unresolved(job: JobFile, code: Mapping[str, str]) -> list[str]:
    """The references without a digest, but for those of the code mounts named in ``code``."""
    given = _code_paths(job.job.value, code)
    found = {p: r for p, r in references(job.job.value).items() if p not in given}
    return [r for r in dict.fromkeys(found.values()) if "@" not in r]


def references(job: JsonObject) -> dict[FieldPath, str]:
    """Every image and code reference of a job, by the path of its field."""
    return {**_images(job), **_code(job)}


def prepare(
    job: JobFile, resolved: Mapping[str, str], code: Mapping[str, str] | None = None
) -> ToSign:
    """The job with ``resolved`` references put in, and those of code mounts. Raises Failure."""
    document = job.job
    present = references(document.value)
    replacements = {path: resolved[r] for path, r in present.items() if r in resolved}
    for path, reference in _code_paths(document.value, code or {}).items():
        replacements.pop(path, None)
        if present[path] != reference:
            replacements[path] = reference
    wanted = changed(document.value, replacements, present_signatures(document.value))
    kind = job.kind
    if kind == KIND:
        whole_job(document, job.manifest)
    data = canonical(document, wanted, job.namespace)
    namespace, name = _identity(wanted, job.namespace)
    return ToSign(job, replacements, wanted, data, namespace, name, kind)


def sign_job(prepared: ToSign, key: PrivateKey, *, anew: bool = False) -> SignedJob:
    """The manifest with this key's signature. ``anew`` allows a layout of ours where need be.

    Raises Failure: also where the text that came out does not hold the signature.
    """
    job, present = prepared.file, present_signatures(prepared.wanted)
    kept, notes = _current(present, prepared)
    added = not any(is_signed_by(entry, key, prepared.signed) for entry in kept)
    if added:
        if len(kept) >= MAX_SIGNATURES:
            raise Failure(
                f"{len(kept)} signatures already",
                expected=f"at most {MAX_SIGNATURES}",
                remedy="remove one from spec.signatures",
            )
        kept = [*kept, signature_of(prepared.signed, key)]
    text = job.text
    if kept != present or prepared.replacements:
        text = _text(prepared, kept, anew=anew)
        _check(text, prepared, key)
    return SignedJob(text, added, len(kept), tuple(notes))


def signature_of(signed: Signed, key: PrivateKey) -> JsonObject:
    """An entry of ``spec.signatures``: a Sigstore bundle with a statement about the digest."""
    hexadecimal = signed.digest.removeprefix("sha256:")
    statement = job_statement(signed.namespace, signed.name, hexadecimal, signed.kind)
    bundle = encode_bundle(make_bundle_dsse(key, statement, IN_TOTO_PAYLOAD_TYPE))
    return {"bundle": json.loads(bundle)}


def write_text(text: str, file: str) -> None:
    """Puts the text in the file's place in one step, or onto standard output."""
    if file == STDIN:
        sys.stdout.write(text)
        return
    path = Path(file).resolve()  # through a link: what it points to is replaced, not the link
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as out:
            out.write(text.encode())
            out.flush()
            os.fsync(out.fileno())
        Path(name).chmod(mode)
        if Path(name).read_bytes() != text.encode():
            raise Failure(f"{file}: the disk gave back other bytes than were written")
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def _text(prepared: ToSign, kept: list[JsonValue], *, anew: bool) -> str:
    job = prepared.file
    try:
        return edited(job.text, job.documents, job.index, prepared.replacements, kept)
    except LayoutError as error:
        if anew:
            return written_anew(job.documents, job.index, prepared.replacements, kept)
        raise Failure(
            f"{job.job.source}: the signature cannot be put into this text: {error}",
            expected="a spec in YAML's block style, or a JSON file",
            remedy="give -o FILE: the job is then written anew, in a layout of ours",
        ) from None


def _check(text: str, prepared: ToSign, key: PrivateKey) -> None:
    """Reads what is to be written as the cluster will, and looks for the signature in it."""
    job = prepared.file
    document = read_documents(text, job.job.source)[job.index]
    data = canonical(document, document.value, job.namespace)
    identity = _identity(document.value, job.namespace)
    again = ToSign(job, {}, document.value, data, *identity, prepared.kind)
    signed = any(
        is_signed_by(entry, key, again.signed) for entry in present_signatures(document.value)
    )
    if not signed or again.digest != prepared.digest:
        raise Failure(
            f"{job.job.source}: what was about to be written is not what was signed; nothing was"
            " written",
            remedy="please report this, with the file",
        )


def _identity(job: JsonObject, namespace: str | None) -> tuple[str, str]:
    metadata = in_namespace(job, namespace)["metadata"]
    found = metadata if isinstance(metadata, dict) else {}
    return str(found.get("namespace")), str(found.get("name"))


def _current(present: list[JsonValue], job: ToSign) -> tuple[list[JsonValue], list[str]]:
    """The entries that may be of this job as it is now, and words on the others."""
    kept: list[JsonValue] = []
    notes: list[str] = []
    stale = 0
    for index, entry in enumerate(present):
        piece = _bundle(entry)
        if isinstance(piece, BundleError):
            notes.append(f"spec.signatures[{index}] cannot be read, and stays as it is: {piece}")
            kept.append(entry)
        elif is_over(piece.content, job.signed) is False:
            stale += 1
        else:
            kept.append(entry)
    if stale:
        those = "1 signature was" if stale == 1 else f"{stale} signatures were"
        notes.append(f"{those} over the job as it was before, and dropped: its approvers sign anew")
    return kept, notes


def is_signed_by(entry: JsonValue, key: PrivateKey, signed: Signed) -> bool:
    """Whether an entry of ``spec.signatures`` is this key's, over what is signed."""
    check = check_signed([_bundle(entry)], signed)
    found = check(KeyAuthority("you", "you", key.public))
    return any(checked.outcome is Outcome.VERIFIED for checked in found)


def _bundle(entry: JsonValue) -> Piece:
    bundle = entry.get("bundle") if isinstance(entry, dict) else None
    return read_bundle(bundle if isinstance(bundle, dict) else {}, MAX_BUNDLE_BYTES)


def present_signatures(job: JsonObject) -> list[JsonValue]:
    """The entries of ``spec.signatures``."""
    spec = job.get("spec")
    signatures = spec.get("signatures") if isinstance(spec, dict) else None
    return list(signatures) if isinstance(signatures, list) else []


def _root(obj: JsonObject) -> tuple[str, ...]:
    """Where the job stands in an object that is signed."""
    return ("spec", "job") if kind_of(obj) == TEMPLATE_KIND else ("spec",)


def _images(job: JsonObject) -> dict[FieldPath, str]:
    return dict(_walk_images(job))


def _walk_images(job: JsonObject) -> Iterator[tuple[FieldPath, str]]:
    root = _root(job)
    for role, at in _entries(job, *root, "roles"):
        for kind in ("initContainers", "containers"):
            for container, place in _entries(role, "template", "spec", kind):
                image = container.get("image")
                if isinstance(image, str):
                    path = (*root, "roles", at, "template", "spec", kind, place, "image")
                    yield path, image


def _code(job: JsonObject) -> dict[FieldPath, str]:
    found: dict[FieldPath, str] = {}
    root = _root(job)
    for mount, at in _entries(job, *root, "code"):
        oci = mount.get("oci")
        reference = oci.get("reference") if isinstance(oci, dict) else None
        if isinstance(reference, str):
            found[*root, "code", at, "oci", "reference"] = reference
    return found


def _code_paths(job: JsonObject, code: Mapping[str, str]) -> dict[FieldPath, str]:
    """The new references of code mounts, by the paths of their fields."""
    root = _root(job)
    return {
        (*root, "code", at, "oci", "reference"): code[name]
        for mount, at in _entries(job, *root, "code")
        if isinstance(name := mount.get("name"), str) and name in code
    }


def _entries(value: JsonObject, *path: str) -> Iterator[tuple[JsonObject, int]]:
    """The objects of a list at a path, with their places."""
    at: JsonValue = value
    for part in path:
        at = at.get(part) if isinstance(at, dict) else None
    for index, entry in enumerate(at if isinstance(at, list) else ()):
        if isinstance(entry, dict):
            yield entry, index
