"""A manifest with one TrainingJob, read as kubectl reads it; errors name file, line and field."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from trainseal.api.model import InvalidObjectError, JsonObject
from trainseal.api.trainingjob import TrainingJob
from trainseal.cli.failures import Failure
from trainseal.provenance.canonical import KIND, CanonicalError, canonical_job
from trainseal.provenance.document import Document, format_path
from trainseal.provenance.limits import MAX_BYTES
from trainseal.provenance.yamlreader import read_documents

STDIN = "-"
_PATH_PART = re.compile(r"\[(\d+)\]|([^.\[]+)")


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
    def manifest(self) -> JsonObject:
        """The job with its namespace, as the API server gets it."""
        return in_namespace(self.job.value, self.namespace)


def read_text(file: str) -> bytes:
    """A file's bytes, or standard input's; one more than a manifest may have at most."""
    if file == STDIN:
        return sys.stdin.buffer.read(MAX_BYTES + 1)
    with Path(file).open("rb") as opened:
        return opened.read(MAX_BYTES + 1)


def read_job(file: str, namespace: str | None, default: Callable[[], str] | None = None) -> JobFile:
    """The one TrainingJob of a file; of its kind's form, with a canonical form. Raises Failure.

    ``default`` is asked for the namespace where neither the command nor the manifest names one.
    """
    found = read_manifest(file, namespace)
    metadata = found.manifest["metadata"]
    if default and isinstance(metadata, dict) and not metadata.get("namespace"):
        found = replace(found, namespace=default())
    canonical(found.job, found.job.value, found.namespace)
    parse_job(found.job, found.manifest)
    return found


def read_manifest(file: str, namespace: str | None) -> JobFile:
    """The one TrainingJob of a file, with other kinds beside it or not; its form is not looked at.

    Raises Failure, ManifestError.
    """
    content = read_text(file)
    source = "standard input" if file == STDIN else file
    documents = read_documents(content, source)
    jobs = [at for at, document in enumerate(documents) if document.value.get("kind") == KIND]
    if len(jobs) != 1:
        kinds = ", ".join(str(d.value.get("kind")) for d in documents[:8]) or "nothing"
        raise Failure(
            f"{source}: {len(jobs)} TrainingJobs ({kinds})",
            expected="one TrainingJob",
            remedy="give each job a file of its own",
        )
    return JobFile(file, content.decode(), tuple(documents), jobs[0], namespace)


def canonical(document: Document, value: Mapping[str, object], namespace: str | None) -> bytes:
    """The bytes to sign. ``value`` is the document's, or one made from it. Raises Failure."""
    try:
        return canonical_job(value, namespace)
    except CanonicalError as error:
        remedy = error.remedy
        if error.path == ("metadata", "namespace") and error.found == "nothing":
            remedy = f"{remedy}; or give -n NS, here and to kubectl"
        raise Failure(
            f"{document.where(error.path)}: {format_path(error.path)}: found {error.found}",
            expected=error.expected,
            remedy=remedy,
        ) from None


def parse_job(document: Document, manifest: JsonObject) -> TrainingJob:
    """The job's typed model. Raises Failure with the place of every problem."""
    try:
        return TrainingJob.parse(manifest)
    except InvalidObjectError as error:
        lines = [
            f"{document.where(tuple(_path(problem.path)))}: {problem}" for problem in error.problems
        ]
        raise Failure(
            "\n  ".join(lines[:20]),
            remedy="correct the manifest; `kubectl explain trainingjob.spec` lists the fields",
        ) from None


def in_namespace(value: Mapping[str, object], namespace: str | None) -> JsonObject:
    """A copy of an object that names its namespace."""
    metadata = value.get("metadata")
    fields: JsonObject = dict(metadata) if isinstance(metadata, dict) else {}
    if namespace and not fields.get("namespace"):
        fields["namespace"] = namespace
    copy: JsonObject = {**value, "metadata": fields}  # type: ignore[dict-item]
    return copy


def _path(text: str) -> Iterator[str | int]:
    """``spec.roles[0].name`` as path parts."""
    for index, name in _PATH_PART.findall(text):
        yield int(index) if index else name
