"""in-toto statements: what a DSSE envelope says about which artifacts.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md. Version 0.1 is read too:
policies of older tools still write it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import rfc8785

from trainseal.provenance import strictjson
from trainseal.provenance.canonical import KIND, SignedKind
from trainseal.provenance.strictjson import JSONValue

STATEMENT_V1 = "https://in-toto.io/Statement/v1"
STATEMENT_V01 = "https://in-toto.io/Statement/v0.1"

JOB_PREDICATE = "https://trainseal.dev/attestation/trainingjob/v1alpha1"
TEMPLATE_PREDICATE = "https://trainseal.dev/attestation/trainingtemplate/v1alpha1"
_PREDICATES: Mapping[SignedKind, str] = {
    "TrainingJob": JOB_PREDICATE,
    "TrainingTemplate": TEMPLATE_PREDICATE,
}
COSIGN_SIGN_PREDICATE = "https://sigstore.dev/cosign/sign/v1"
"""What cosign 3 writes for ``cosign sign``: the image's digest is the statement's subject."""

MAX_SUBJECTS = 1024
MAX_DIGESTS = 32
MAX_NAME = 4096
_HEX = re.compile(r"[0-9a-f]{2,256}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


class StatementError(ValueError):
    """This is no in-toto statement; the text says where it departs from one."""


@dataclass(frozen=True, slots=True)
class Subject:
    """One artifact: its name (free text) and its digests, algorithm to lower-case hex."""

    name: str
    digests: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement, read. ``payload`` is the text that was signed, byte for byte."""

    predicate_type: str
    subjects: tuple[Subject, ...]
    predicate: Mapping[str, JSONValue] = field(repr=False)
    payload: bytes = field(repr=False)


def parse_statement(payload: bytes, *, max_bytes: int = 8 * 1024 * 1024) -> Statement:
    """The statement in ``payload`` (JSON). Raises StatementError."""
    try:
        document = strictjson.parse(payload, max_bytes=max_bytes)
    except strictjson.JSONError as error:
        raise StatementError(f"statement: {error}") from None
    if not isinstance(document, dict):
        raise StatementError("statement: expected a JSON object")
    kind = document.get("_type")
    if kind not in (STATEMENT_V1, STATEMENT_V01):
        raise StatementError(f"_type: found {kind!r:.100}, expected {STATEMENT_V1!r}")
    predicate_type = document.get("predicateType")
    if not isinstance(predicate_type, str) or not 0 < len(predicate_type) <= MAX_NAME:
        raise StatementError(f"predicateType: found {predicate_type!r:.100}, expected a URI")
    predicate = document.get("predicate")
    if predicate is None:
        predicate = {}
    if not isinstance(predicate, dict):
        raise StatementError(f"predicate: found {type(predicate).__name__}, expected an object")
    return Statement(predicate_type, _subjects(document.get("subject")), predicate, payload)


def _subjects(value: JSONValue) -> tuple[Subject, ...]:
    if not isinstance(value, list) or not 0 < len(value) <= MAX_SUBJECTS:
        raise StatementError(f"subject: expected a list of 1 to {MAX_SUBJECTS} subjects")
    return tuple(_subject(item, f"subject[{index}]") for index, item in enumerate(value))


def _subject(value: JSONValue, where: str) -> Subject:
    if not isinstance(value, dict):
        raise StatementError(f"{where}: expected an object")
    name = value.get("name")
    if name is None:
        name = ""  # version 1 has it optional
    if not isinstance(name, str) or len(name) > MAX_NAME:
        raise StatementError(f"{where}.name: expected at most {MAX_NAME} characters of text")
    digests = value.get("digest")
    if not isinstance(digests, dict) or not 0 < len(digests) <= MAX_DIGESTS:
        raise StatementError(f"{where}.digest: expected 1 to {MAX_DIGESTS} digests")
    checked: dict[str, str] = {}
    for algorithm, digest in digests.items():
        # Two spellings of one digest would make equality mean less than it says.
        if not isinstance(digest, str) or not _HEX.fullmatch(digest):
            raise StatementError(
                f"{where}.digest[{algorithm[:40]!r}]: found {digest!r:.100}, "
                "expected lower-case hex"
            )
        checked[algorithm] = digest
    return Subject(name, checked)


def subject_digests(statement: Statement, algorithm: str = "sha256") -> frozenset[str]:
    """The subjects' digests by one algorithm, as ``sha256:HEX``."""
    return frozenset(
        f"{algorithm}:{subject.digests[algorithm]}"
        for subject in statement.subjects
        if algorithm in subject.digests
    )


def job_subject(namespace: str, name: str, kind: SignedKind = KIND) -> str:
    """The subject name under which a training job, or a template, is signed."""
    return f"{kind.lower()}/{namespace}/{name}"


def job_statement(namespace: str, name: str, digest_hex: str, kind: SignedKind = KIND) -> bytes:
    """The statement that approves a training job, or a template, in canonical JSON (RFC 8785).

    ``digest_hex`` is its digest: 64 lower-case hex digits. Raises StatementError for another.
    """
    if not _SHA256.fullmatch(digest_hex):
        raise StatementError(f"found {digest_hex!r:.100}, expected a SHA-256 in lower-case hex")
    subject = job_subject(namespace, name, kind)
    return rfc8785.dumps(
        {
            "_type": STATEMENT_V1,
            "subject": [{"name": subject, "digest": {"sha256": digest_hex}}],
            "predicateType": _PREDICATES[kind],
            "predicate": {},
        }
    )


def is_job_statement(
    statement: Statement, namespace: str, name: str, digest_hex: str, kind: SignedKind = KIND
) -> bool:
    """Whether the statement approves exactly this: one subject, its name, its digest, our type.

    The predicate is not read: nothing a signer writes there may widen or narrow the approval.
    """
    return (
        statement.predicate_type == _PREDICATES[kind]
        and len(statement.subjects) == 1
        and statement.subjects[0].name == job_subject(namespace, name, kind)
        and statement.subjects[0].digests.get("sha256") == digest_hex
    )
