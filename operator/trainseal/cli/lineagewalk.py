"""From a checkpoint, or a run, back to everything that went into it; each signature verified.

What a step rests on, and nothing else:

1. A Checkpoint: its manifest's signature. It names its run by the digest of the seal.
2. A seal: its binding's signature. It names inputs, signers, who asked, and the runs whose
   checkpoints lay where this one reads.
3. A statement: its signature, and that it names this seal. It names findings and outputs.

*Refuted*: it was read and is not what it claims to be. *Undetermined*: it could not be read, or is
not there (yet). The walk takes each run once, and no more than so many.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from pydantic import JsonValue

from trainseal.api.model import JsonObject, json_object, json_objects
from trainseal.cli.lineagesource import Looked, Source
from trainseal.provenance import runstatements
from trainseal.provenance.boundseals import has_ended
from trainseal.provenance.canonical import CanonicalError
from trainseal.provenance.checkpointmanifests import barring
from trainseal.provenance.checkpointmanifests import verify as verify_manifest
from trainseal.provenance.keyrings import Keyring, UntrustedError
from trainseal.provenance.seals import (
    SEAL_ANNOTATION,
    seal_digest,
    verify_binding,
    verify_seal,
)
from trainseal.provenance.statements import Statement

Verdict = Literal["verified", "refuted", "undetermined"]
Key = tuple[str, str]
#: Runs of one walk.
MOST_RUNS = 256


@dataclass(frozen=True, slots=True)
class Proof:
    """What became of one object. ``tainted`` is by which finding, empty where it bars nobody."""

    verdict: Verdict
    words: str = ""
    origin: str = ""
    obj: JsonObject = field(default_factory=dict, repr=False)
    tainted: str = ""


@dataclass(frozen=True, slots=True)
class Earlier:
    """A run that one could go on from, and its checkpoint that was the newest then."""

    key: Key
    checkpoints: int
    name: str
    proof: Proof
    resumed: bool = False


@dataclass(frozen=True, slots=True)
class RunNode:
    """A run. ``statement`` is what was read of it, where that verifies."""

    key: Key
    depth: int
    seal: Proof
    stated: Proof
    statement: Statement | None
    earlier: tuple[Earlier, ...] = ()
    cut: bool = False

    @property
    def spec(self) -> JsonObject:
        """The seal's; empty where it does not verify, so that nothing of it is shown."""
        return json_object(self.seal.obj.get("spec")) if self.seal.verdict == "verified" else {}


@dataclass(frozen=True, slots=True)
class Lineage:
    """All of it; ``checkpoint`` where one was asked for."""

    checkpoint: Proof | None
    runs: tuple[RunNode, ...]

    @property
    def verdict(self) -> Verdict:
        """The worst of what was looked at."""
        found = {p.verdict for p in self.proofs()}
        cut = any(run.cut for run in self.runs)
        if "refuted" in found:
            return "refuted"
        return "undetermined" if cut or "undetermined" in found else "verified"

    def proofs(self) -> list[Proof]:
        """Everything that was verified, or was not."""
        found = [self.checkpoint] if self.checkpoint else []
        for run in self.runs:
            found += [run.seal, run.stated, *(e.proof for e in run.earlier)]
        return found


@dataclass(frozen=True, slots=True)
class Trust:
    """The operator's keys, and the cluster whose seals count; empty: that of the first seal."""

    keyring: Keyring
    cluster: str


async def trace(
    source: Source, trust: Trust, *, checkpoint: tuple[str, Looked] | None, run: Key, depth: int
) -> Lineage:
    """Walks from a run, whose ``checkpoint`` (its name, and what was found) was asked for."""
    root = None
    if checkpoint is not None:
        root = proof_of_checkpoint(trust.keyring, (run[0], checkpoint[0]), checkpoint[1])
    nodes: list[RunNode] = []
    seen, waiting = {run}, deque([(run, 0)])
    while waiting:
        key, level = waiting.popleft()
        seal = await _seal(source, trust, key)
        if not trust.cluster and seal.verdict == "verified":
            cluster = json_object(seal.obj.get("spec")).get("cluster")
            trust = Trust(trust.keyring, str(cluster))
        stated, statement = await _statement(source, trust.keyring, key, seal)
        named = _named_by(seal, key) if seal.verdict == "verified" else []
        earlier = [await _earlier(source, trust.keyring, item) for item in named]
        further = [e.key for e in earlier if e.key not in seen]
        cut = bool(further) and (level >= depth or len(seen) >= MOST_RUNS)
        nodes.append(RunNode(key, level, seal, stated, statement, tuple(earlier), cut))
        if not cut:
            seen |= set(further)
            waiting.extend((item, level + 1) for item in dict.fromkeys(further))
    if root is not None and root.verdict == "verified":
        root = _of_run(root, nodes[0])
    return Lineage(root, _settled(nodes))


def proof_of_checkpoint(keyring: Keyring, key: Key, looked: Looked) -> Proof:
    """Whether a manifest of this name is the operator's."""
    if looked.obj is None:
        return Proof("undetermined", looked.why)
    metadata = json_object(looked.obj.get("metadata"))
    if (metadata.get("namespace"), metadata.get("name")) != key:
        return Proof("refuted", f"Checkpoint {'/'.join(key)} is another one", looked.origin)
    status = json_object(looked.obj.get("status"))
    if not status.get("signature"):
        standing = status.get("standing") or "not looked at yet"
        why = f"it is not signed: {standing}"
        return Proof("undetermined", why, looked.origin, looked.obj)
    try:
        verify_manifest(keyring, looked.obj)
    except (UntrustedError, CanonicalError) as error:
        return Proof("refuted", str(error), looked.origin, looked.obj)
    tainted = barring(status)
    return Proof(
        "verified",
        origin=looked.origin,
        obj=looked.obj,
        tainted=f"{tainted.get('finding')}: {tainted.get('message')}" if tainted else "",
    )


async def _seal(source: Source, trust: Trust, key: Key) -> Proof:
    looked = await source.find("SealedRun", *key)
    if looked.obj is None:
        return Proof("undetermined", looked.why)
    obj = looked.obj
    metadata, spec = json_object(obj.get("metadata")), json_object(obj.get("spec"))
    binding = json_object(obj.get("status")).get("binding")
    namespace, name = key
    try:
        if (metadata.get("namespace"), metadata.get("name")) != key:
            raise UntrustedError(f"SealedRun {namespace}/{name} is another one")
        if isinstance(binding, dict):
            verify_binding(
                trust.keyring,
                cluster=trust.cluster or str(spec.get("cluster")),
                namespace=namespace,
                name=name,
                spec=spec,
                binding=binding,
            )
        else:
            mark = str(json_object(metadata.get("annotations")).get(SEAL_ANNOTATION, ""))
            verify_seal(trust.keyring, mark, namespace=namespace, name=name, spec=spec)
    except (UntrustedError, CanonicalError) as error:
        return Proof("refuted", str(error), looked.origin, obj)
    return Proof("verified", origin=looked.origin, obj=obj)


async def _statement(
    source: Source, keyring: Keyring, key: Key, seal: Proof
) -> tuple[Proof, Statement | None]:
    looked = await source.find("RunStatement", *key)
    noted = json_object(seal.obj.get("status")).get("statement")
    status = json_object((looked.obj or {}).get("status"))
    if not status:
        return Proof("undetermined", _no_statement(seal, looked, noted)), None
    try:
        statement = runstatements.read(keyring, *key, status)
        if seal.obj and statement.predicate.get("sealDigest") != _digest(key, seal.obj):
            raise UntrustedError(f"RunStatement {'/'.join(key)}: it is about another seal")
    except (UntrustedError, CanonicalError) as error:
        return Proof("refuted", str(error), looked.origin, looked.obj or {}), None
    if (
        noted
        and noted != runstatements.digest_of(statement.payload)
        and looked.origin == seal.origin
    ):
        why = "the seal notes another one: it is being made anew, or an older one was put back"
        return Proof("undetermined", why, looked.origin, looked.obj or {}), statement
    return Proof("verified", origin=looked.origin, obj=looked.obj or {}), statement


def _no_statement(seal: Proof, looked: Looked, noted: JsonValue) -> str:
    if not seal.obj:
        return looked.why or "there is none"
    if not has_ended(seal.obj):
        return "the run is on: there is none before its end"
    if not json_object(seal.obj.get("status")).get("binding"):
        return "the run was never bound to its seal, so nothing of it ran"
    if noted:
        return f"one was made, and is gone: {looked.why}"
    return "none was made yet: it takes a minute or two after the run's end"


def _named_by(seal: Proof, key: Key) -> list[JsonObject]:
    """The run that the gate compared a checkpoint of, first; then those that lay there."""
    spec = json_object(seal.obj.get("spec"))
    resume, found = json_object(spec.get("resume")), json_objects(spec.get("earlier"))
    names = resume.get("checkpoints")
    if not isinstance(names, list) or not names:
        return found
    first: JsonObject = {
        "inNamespace": key[0],
        "sealedRun": resume.get("sealedRun"),
        "checkpoints": len(names),
        "newest": names[0],
        "resumed": True,
    }
    return [first, *found]


def _digest(key: Key, seal: Mapping[str, JsonValue]) -> str:
    return seal_digest(*key, json_object(seal.get("spec")))


async def _earlier(source: Source, keyring: Keyring, item: JsonObject) -> Earlier:
    key = (str(item.get("inNamespace")), str(item.get("sealedRun")))
    name, count = str(item.get("newest")), item.get("checkpoints")
    looked = await source.find("Checkpoint", key[0], name)
    proof = proof_of_checkpoint(keyring, (key[0], name), looked)
    spec = json_object(proof.obj.get("spec"))
    if proof.verdict == "verified" and spec.get("sealedRun") != key[1]:
        proof = Proof("refuted", "it is of another run", proof.origin, proof.obj)
    number = count if isinstance(count, int) else 0
    return Earlier(key, number, name, proof, resumed=bool(item.get("resumed")))


def _of_run(root: Proof, run: RunNode) -> Proof:
    """A manifest is of the seal that it attests, and of no other of that name."""
    attested = json_object(json_object(root.obj.get("status")).get("attested"))
    if run.seal.verdict != "verified":
        return root
    if attested.get("sealDigest") != _digest(run.key, run.seal.obj):
        return Proof("refuted", "it attests another seal", root.origin, root.obj)
    return root


def _settled(nodes: list[RunNode]) -> tuple[RunNode, ...]:
    """A manifest that was removed since is not missed where its run's statement names it."""
    by_key = {node.key: node for node in nodes}
    return tuple(
        replace(node, earlier=tuple(_named(e, by_key.get(e.key)) for e in node.earlier))
        for node in nodes
    )


def _named(earlier: Earlier, run: RunNode | None) -> Earlier:
    statement = run.statement if run else None
    if earlier.proof.obj or statement is None or run is None or run.stated.verdict != "verified":
        return earlier
    outputs = statement.predicate.get("outputs")
    manifests = json_objects(outputs.get("manifests") if isinstance(outputs, dict) else None)
    named = next((m for m in manifests if m.get("name") == earlier.name), None)
    if named is None:
        return earlier
    words = "removed since; the statement of its run names it"
    tainted = "" if named.get("accepted") else str(named.get("tainted") or "")
    proof = Proof("verified", words, tainted=tainted)
    return replace(earlier, proof=proof)
