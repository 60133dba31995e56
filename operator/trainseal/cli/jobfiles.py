"""A manifest with one TrainingJob or TrainingTemplate, read as kubectl reads it; errors name file,
line and field.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from trainseal.api.model import FieldProblem, InvalidObjectError, JsonObject
from trainseal.api.trainingjob import SubmittedJob, TrainingJob
from trainseal.api.trainingtemplate import TrainingTemplate
from trainseal.cli.failures import Failure
from trainseal.provenance.canonical import (
    KIND,
    TEMPLATE_KIND,
    CanonicalError,
    SignedKind,
    canonical_form,
)
from trainseal.provenance.document import Document, format_path
from trainseal.provenance.launches import template_ref
from trainseal.provenance.limits import MAX_BYTES
from trainseal.provenance.templates import template_faults
from trainseal.provenance.yamlreader import read_documents

STDIN = "-"
_PATH_PART = re.compile(r"\[([^]]+)\]|([^.\[]+)")


@dataclass(frozen=True, slots=True)
class JobFile:
    """A manifest, and which of its documents is the job. ``namespace`` is the command's."""

    file: str
    text: str
    documents: tuple[Document, ...]
    index: int
    namespace: str | None

    @property
    def job(self) -> Document:
        """The TrainingJob's document."""
        return self.documents[self.index]

    @property
    def kind(self) -> SignedKind:
        """Which of the two it is."""
        return kind_of(self.job.value)

    @property
    def manifest(self) -> JsonObject:
        """The job with its namespace, as the API server gets it."""
        return in_namespace(self.job.value, self.namespace)


def read_text(file: str) -> bytes:
    """A file's bytes, or standard input's; one more than a manifest may have at most."""
    if file == STDIN:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    with Path(file).open("rb") as opened:
        return opened.read(MAX_BYTES + 1)


def read_job(
    file: str,
    namespace: str | None,
    default: Callable[[], str] | None = None,
    kinds: Sequence[SignedKind] = (KIND,),
) -> JobFile:
    """The one object of these kinds in a file; of its kind's form, with a canonical form.

    ``default`` is asked for the namespace where neither the command nor the manifest names one.
    Raises Failure.
    """
    found = read_manifest(file, namespace, kinds)
    metadata = found.manifest["metadata"]
    if default and isinstance(metadata, dict) and not metadata.get("namespace"):
        found = replace(found, namespace=default())
    canonical(found.job, found.job.value, found.namespace)
    _parse(found.job, found.manifest)
    return found


def read_manifest(
    file: str, namespace: str | None, kinds: Sequence[SignedKind] = (KIND,)
) -> JobFile:
    """The one object of these kinds in a file, with others beside it or not; its form is not looked
    at. Raises Failure, ManifestError.
    """
    content = read_text(file)
    source = "standard input" if file == STDIN else file
    documents = read_documents(content, source)
    jobs = [at for at, document in enumerate(documents) if document.value.get("kind") in kinds]
    if len(jobs) != 1:
        found = ", ".join(str(d.value.get("kind")) for d in documents[:8]) or "nothing"
        wanted = " or ".join(kinds)
        raise Failure(
            f"{source}: {len(jobs)} of kind {wanted} ({found})",
            expected=f"one {wanted}",
            remedy="give each a file of its own",
        )
    return JobFile(file, content.decode(), tuple(documents), jobs[0], namespace)


def kind_of(value: Mapping[str, object]) -> SignedKind:
    """The kind of an object that people sign."""
    return TEMPLATE_KIND if value.get("kind") == TEMPLATE_KIND else KIND


def canonical(document: Document, value: Mapping[str, object], namespace: str | None) -> bytes:
    """The bytes to sign. ``value`` is the document's, or one made from it. Raises Failure."""
    try:
        return canonical_form(value, kind_of(value), namespace)
    except CanonicalError as error:
        remedy = error.remedy
        if error.path == ("metadata", "namespace") and error.found == "nothing":
            remedy = f"{remedy}; or give -n NS, here and to kubectl"
        raise Failure(
            f"{document.where(error.path)}: {format_path(error.path)}: found {error.found}",
            expected=error.expected,
            remedy=remedy,
        ) from None


def whole_job(document: Document, manifest: JsonObject) -> TrainingJob:
    """The typed model of a job that people sign. Raises Failure for one that names a template."""
    _parse(document, manifest)
    ref = template_ref(manifest)
    if ref is not None:
        raise Failure(
            f"{document.where(('spec', 'templateRef'))}: the job names template {ref.name}",
            expected="a whole job",
            remedy="nobody signs it: its template is signed; `kubectl create -f` starts it",
        )
    return TrainingJob.parse(manifest)


def _parse(document: Document, manifest: JsonObject) -> None:
    """Raises Failure with the place of every problem."""
    kind = kind_of(manifest)
    try:
        if kind == TEMPLATE_KIND:
            read = TrainingTemplate.parse(manifest)
            faults = [FieldProblem(f.place, f.found, f.wanted) for f in template_faults(read)]
            if faults:
                raise InvalidObjectError(kind, faults)
        else:
            (TrainingJob if template_ref(manifest) is None else SubmittedJob).parse(manifest)
    except InvalidObjectError as error:
        lines = [
            f"{document.where(tuple(path_parts(problem.path)))}: {problem}"
            for problem in error.problems
        ]
        raise Failure(
            "\n  ".join(lines[:20]),
            remedy=f"correct the manifest; `kubectl explain {kind.lower()}.spec` lists the fields",
        ) from None


def in_namespace(value: Mapping[str, object], namespace: str | None) -> JsonObject:
    """A copy of an object that names its namespace."""
    metadata = value.get("metadata")
    fields: JsonObject = dict(metadata) if isinstance(metadata, dict) else {}
    if namespace and not fields.get("namespace"):
        fields["namespace"] = namespace
    copy: JsonObject = {**value, "metadata": fields}  # type: ignore[dict-item]
    return copy


def path_parts(text: str) -> Iterator[str | int]:
    """``spec.roles[0].name`` or ``spec.replicas[worker]`` as path parts."""
    for index, name in _PATH_PART.findall(text):
        yield int(index) if index.isdecimal() else index or name
