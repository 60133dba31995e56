"""The statement at a run's end: which inputs, under which seal and watch, gave which outputs.

An in-toto statement v1 that the operator signs (DSSE). Its subjects are the run's outputs, by path
within the checkpoints mount and SHA-256: of each file the newest that a signed manifest lists, less
what was removed, and none that is tainted and not signed off. Those stand in the predicate: whoever
matches digests with subjects alone must not take them for good. Where there is no such file, the
seal is the subject, so that there is a statement on each run.

It is made from the seal, from what was believed of the findings, and from manifests whose own
signatures were verified; it repeats what a reader needs who has nothing else. What it says is of
the time when it was signed, and counted: the next one has the next number.

Laws: ``read(ring, namespace, name, signed(key, content, …)).predicate`` holds the content; a
payload that differs by one byte, or stands in another object, is not read.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.provenance.canonical import canonical_bytes
from trainseal.provenance.checkpointmanifests import barring
from trainseal.provenance.dsse import IN_TOTO_PAYLOAD_TYPE
from trainseal.provenance.keyrings import Keyring, UntrustedError, rfc3339, sign_as, verify_as
from trainseal.provenance.keys import PrivateKey, key_id
from trainseal.provenance.statements import (
    STATEMENT_V1,
    Statement,
    StatementError,
    parse_statement,
)

RUN_PREDICATE = "https://trainseal.dev/attestation/run/v1alpha1"
#: Bytes of a payload. Beyond, there is no statement: it would not be stored.
MAX_PAYLOAD_BYTES = 384 * 1024
#: Files that are named, and the bytes of their entries; the rest is counted.
MAX_FILES, MAX_FILES_BYTES = 512, 128 * 1024
MAX_MANIFESTS = 256
MAX_SIGNERS = 64
MAX_FINDINGS = 64

Json = Mapping[str, JsonValue]


class StatementTooLargeError(ValueError):
    """What would have to be said of a run does not fit."""


@dataclass(frozen=True, slots=True)
class Found:
    """Findings of one id: on how many things, how often; ``proved``: the pod was looked at."""

    id: str
    severity: str
    things: int
    times: int
    proved: bool


@dataclass(frozen=True, slots=True)
class Manifest:
    """A Checkpoint object whose signature was verified, with the digest of what was signed."""

    obj: JsonObject
    statement: str


@dataclass(frozen=True, slots=True)
class Watched:
    """The watch record: of how many pods an agent told (None: no agents are installed), what was
    found, how much by severity (which never falls), what tainted checkpoints.
    """

    pods: int | None
    findings: Sequence[Found]
    counts: JsonObject
    taint: JsonObject


@dataclass(frozen=True, slots=True)
class Mount:
    """What pods of the run could read: a claim's directory, by role of the mount."""

    role: str
    claim: str
    path: str


@dataclass(frozen=True, slots=True)
class Outputs:
    """Subjects; the part of the predicate on outputs."""

    subjects: tuple[JsonObject, ...]
    said: JsonObject


def outputs_of(manifests: Sequence[Manifest], unsigned: int) -> Outputs:
    """What a run wrote, from its verified manifests in any order; ``unsigned`` ones are counted."""
    newest_first = sorted(manifests, key=_completed, reverse=True)
    #: A name is taken on a volume that pods share, or in the pod that alone had it.
    written: set[tuple[str, str]] = set()
    removed: set[tuple[str, str]] = set()
    subjects: list[JsonObject] = []
    tainted: list[JsonObject] = []
    room, unlisted = MAX_FILES_BYTES, 0
    for manifest in newest_first:
        spec, bad = json_object(manifest.obj.get("spec")), _barring(manifest)
        pod = str(json_object(spec.get("pod")).get("uid"))
        volume = "" if json_object(spec.get("volume")).get("claim") else pod
        for file in json_objects(spec.get("files")):
            path, digest = str(file.get("path")), file.get("digest")
            if (volume, path) in written or (pod, path) in removed:
                continue
            written.add((volume, path))
            if not isinstance(digest, str):
                unlisted += 1
                continue
            entry: JsonObject = {
                "name": path,
                "digest": {"sha256": digest.removeprefix("sha256:")},
            }
            size = len(canonical_bytes(entry)) + 1
            if size > room or len(subjects) + len(tainted) >= MAX_FILES:
                unlisted += 1
                continue
            room -= size
            (tainted if bad else subjects).append(entry)
        # What this pod wrote before under such a name was gone by then.
        removed |= {(pod, path) for path in _texts(spec.get("removed"))}
        more = spec.get("unlisted")
        unlisted += more if isinstance(more, int) else 0
    said: JsonObject = {
        "manifests": [_manifest(m) for m in newest_first[:MAX_MANIFESTS]],
        "manifestsUnlisted": max(0, len(newest_first) - MAX_MANIFESTS),
        "unsigned": unsigned,
        "files": len(subjects),
        "filesUnlisted": unlisted,
        "tainted": list(tainted),
    }
    return Outputs(tuple(subjects), said)


def content(seal: Json, mounts: Iterable[Mount], watched: Watched, outputs: Outputs) -> JsonObject:
    """What is to be said, without who signs it and when: ``subject`` and ``predicate``."""
    metadata, spec = json_object(seal.get("metadata")), json_object(seal.get("spec"))
    status = json_object(seal.get("status"))
    binding = json_object(status.get("binding"))
    namespace, name = str(metadata.get("namespace")), str(metadata.get("name"))
    digest = str(binding.get("sealDigest"))
    subjects = list(outputs.subjects) or [
        {
            "name": f"sealedrun/{namespace}/{name}",
            "digest": {"sha256": digest.removeprefix("sha256:")},
        }
    ]
    requester = json_object(spec.get("requester"))
    launch = json_object(spec.get("launch"))
    signers = list(_signers(spec))
    predicate: JsonObject = {
        "namespace": namespace,
        "name": name,
        "cluster": spec.get("cluster"),
        "sealDigest": digest,
        "job": spec.get("job"),
        "run": spec.get("run"),
        "requester": {f: requester[f] for f in ("username", "uid", "time") if f in requester},
        "policies": spec.get("policies"),
        "inputs": _inputs(spec, mounts),
        "signers": list(signers[:MAX_SIGNERS]),
        "signersUnlisted": max(0, len(signers) - MAX_SIGNERS),
        "began": binding.get("boundAt"),
        "ended": status.get("completionTime"),
        "outcome": status.get("phase"),
        "message": status.get("message") or "",
        "watch": _watch(watched),
        "outputs": outputs.said,
    }
    if epochs := status.get("epochs"):
        predicate["epochs"] = epochs
    if launch:
        predicate["template"] = {"name": launch.get("template"), "digest": launch.get("digest")}
    return {"subject": list(subjects), "predicate": predicate}


def sign(key: PrivateKey, said: Json, number: int, now: datetime) -> JsonObject:
    """The signed part of a status over this content. Raises StatementTooLargeError."""
    signed_at = rfc3339(now)
    predicate = {
        **json_object(said.get("predicate")),
        "number": number,
        "keyID": key_id(key.public),
        "signedAt": signed_at,
    }
    body = canonical_bytes(
        {
            "_type": STATEMENT_V1,
            "subject": said.get("subject"),
            "predicateType": RUN_PREDICATE,
            "predicate": predicate,
        }
    )
    if len(body) > MAX_PAYLOAD_BYTES:
        raise StatementTooLargeError(
            f"found {len(body)} bytes to say of the run, expected at most {MAX_PAYLOAD_BYTES}"
        )
    return {
        "payload": body.decode(),
        "keyID": key_id(key.public),
        "signedAt": signed_at,
        "signature": sign_as(key, IN_TOTO_PAYLOAD_TYPE, body),
    }


def read(keyring: Keyring, namespace: str, name: str, status: Json) -> Statement:
    """The statement on a run, which an object's status holds. Raises UntrustedError."""
    where = f"RunStatement {namespace}/{name}"
    text, key = status.get("payload"), str(status.get("keyID"))
    if not isinstance(text, str):
        raise UntrustedError(f"{where} is not signed")
    body, signed_at = text.encode("utf-8", "surrogatepass"), str(status.get("signedAt"))
    try:
        verify_as(keyring, key, signed_at, IN_TOTO_PAYLOAD_TYPE, body, str(status.get("signature")))
        statement = parse_statement(body)
    except (UntrustedError, StatementError) as error:
        raise UntrustedError(f"{where}: {error}") from None
    said = statement.predicate
    if statement.predicate_type != RUN_PREDICATE:
        raise UntrustedError(f"{where}: it is another statement: {statement.predicate_type[:100]}")
    if (said.get("namespace"), said.get("name")) != (namespace, name):
        raise UntrustedError(f"{where}: it is about another run")
    if (said.get("keyID"), said.get("signedAt")) != (key, signed_at):
        raise UntrustedError(f"{where}: it says another key or time than it was signed with")
    return statement


def number_of(statement: Statement) -> int:
    """Which of the run's statements it is."""
    number = statement.predicate.get("number")
    return number if isinstance(number, int) else 0


def says(statement: Statement, said: Json) -> bool:
    """Whether a statement that was read has this content."""
    own = ("number", "keyID", "signedAt")
    predicate = {k: v for k, v in statement.predicate.items() if k not in own}
    subjects = [{"name": s.name, "digest": dict(s.digests)} for s in statement.subjects]
    wanted = canonical_bytes({"s": said.get("subject"), "p": said.get("predicate")})
    return canonical_bytes({"s": list(subjects), "p": predicate}) == wanted


def is_output(statement: Statement) -> bool:
    """Whether its subjects are files; else the seal stands for them."""
    outputs = statement.predicate.get("outputs")
    return isinstance(outputs, dict) and bool(outputs.get("files"))


def envelope(status: Json) -> JsonObject:
    """The DSSE envelope of a statement, as other tools read it."""
    return {
        "payloadType": IN_TOTO_PAYLOAD_TYPE,
        "payload": base64.b64encode(str(status.get("payload")).encode()).decode(),
        "signatures": [{"keyid": status.get("keyID"), "sig": status.get("signature")}],
    }


def digest_of(body: bytes) -> str:
    """``sha256:…`` of what was signed."""
    return f"sha256:{hashlib.sha256(body).hexdigest()}"


def _inputs(spec: Json, mounts: Iterable[Mount]) -> JsonObject:
    found: JsonObject = {
        "images": [
            {"reference": i.get("reference"), "digest": i.get("digest")}
            for i in json_objects(spec.get("images"))
        ],
        "code": [
            {f: c.get(f) for f in ("name", "reference", "treeDigest")}
            for c in json_objects(spec.get("code"))
        ],
        "mounts": [{"role": m.role, "claim": m.claim, "path": m.path} for m in mounts],
        "earlier": spec.get("earlier") or [],
    }
    if resume := json_object(spec.get("resume")):
        found["resume"] = {f: v for f, v in resume.items() if f != "checkpoints"}
    if spec.get("configDigest"):
        found["configDigest"] = spec.get("configDigest")
    return found


def _signers(spec: Json) -> Iterator[JsonObject]:
    """Who signed, once each, with what of: people are told apart by identity."""
    by_person: dict[tuple[str, str], JsonObject] = {}
    for artifact in json_objects(spec.get("artifacts")):
        for signer in json_objects(artifact.get("signers")):
            key = (str(signer.get("person")), str(signer.get("identity")))
            kept = ("authority", "person", "identity", "issuer")
            entry = by_person.setdefault(
                key, {**{f: signer[f] for f in kept if signer.get(f)}, "signed": []}
            )
            signed, kind = entry["signed"], artifact.get("artifact")
            if isinstance(signed, list) and kind not in signed:
                signed.append(kind)
    yield from by_person.values()


def _watch(watched: Watched) -> JsonObject:
    found: JsonObject = {
        "agents": watched.pods is not None,
        "pods": watched.pods or 0,
        "counts": {f: watched.counts.get(f) or 0 for f in ("critical", "warning", "info")},
        "findings": [
            {
                "id": f.id,
                "severity": f.severity,
                "things": f.things,
                "times": f.times,
                "proved": f.proved,
            }
            for f in watched.findings[:MAX_FINDINGS]
        ],
        "findingsUnlisted": max(0, len(watched.findings) - MAX_FINDINGS),
    }
    if watched.taint:
        found["taint"] = {
            f: watched.taint[f] for f in ("finding", "severity", "since") if f in watched.taint
        }
    return found


def _manifest(manifest: Manifest) -> JsonObject:
    metadata, spec = (json_object(manifest.obj.get(f)) for f in ("metadata", "spec"))
    status = json_object(manifest.obj.get("status"))
    found: JsonObject = {
        "name": metadata.get("name"),
        "statement": manifest.statement,
        "completed": spec.get("completed"),
    }
    if tainted := json_object(status.get("tainted")):
        found["tainted"] = tainted.get("finding")
    if accepted := json_object(status.get("accepted")):
        found["accepted"] = accepted.get("user")
    return found


def _barring(manifest: Manifest) -> bool:
    return bool(barring(json_object(manifest.obj.get("status"))))


def _completed(manifest: Manifest) -> tuple[str, str]:
    metadata, spec = (json_object(manifest.obj.get(f)) for f in ("metadata", "spec"))
    return str(spec.get("completed")), str(metadata.get("name"))


def _texts(value: JsonValue) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []
