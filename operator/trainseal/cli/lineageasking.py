"""What lineage is asked of: the object that was named, the keys, the walk; and the bundle."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from trainseal.api.model import JsonObject, json_object, metadata_name
from trainseal.cli.checkpointverification import ring_of_file
from trainseal.cli.clusters import runs_of
from trainseal.cli.failures import REFUTED, UNDETERMINED, Failure
from trainseal.cli.lineagesource import Archive, Cluster, First, Looked, Source
from trainseal.cli.lineagewalk import Lineage, Trust, trace
from trainseal.cluster.api import Kube, KubeError, connect, path_of
from trainseal.cluster.keys import read_keyring
from trainseal.cluster.settings import KEYRING_CONFIG_MAP
from trainseal.provenance import outputbundles, runstatements
from trainseal.provenance.keyrings import Keyring, UntrustedError
from trainseal.provenance.manifests import ManifestError


@dataclass(frozen=True, slots=True)
class Asked:
    """What the command line gives."""

    namespace: str
    name: str
    archive: Path | None
    offline: bool
    keyring: Path | None
    depth: int
    release_namespace: str
    kubeconfig: str | None
    context: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The walk, and the keys that bundles are verified by."""

    lineage: Lineage
    output_ring: Keyring


def ask(asked: Asked) -> Answer:
    """Raises Failure."""
    return asyncio.run(_ask(asked))


async def _ask(asked: Asked) -> Answer:
    archive = Archive.open(asked.archive) if asked.archive is not None else None
    given = None
    if asked.keyring is not None:
        given = (ring_of_file(asked.keyring, "seal"), ring_of_file(asked.keyring, "output"))
    if asked.offline and archive is not None and given is not None:
        return await _answer(asked, archive, None, given, "")
    async with connect(asked.kubeconfig, asked.context) as kube:
        live = Cluster(kube)
        source = First((live, archive) if archive is not None else (live,))
        rings = given or await _rings(kube, asked.release_namespace)
        return await _answer(asked, source, kube, rings, await _cluster(kube))


async def _answer(
    asked: Asked,
    source: Source,
    kube: Kube | None,
    rings: tuple[Keyring, Keyring],
    cluster: str,
) -> Answer:
    checkpoint, run = await _root(asked, source, kube)
    trust = Trust(rings[0], cluster)
    found = await trace(source, trust, checkpoint=checkpoint, run=run, depth=asked.depth)
    return Answer(found, rings[1])


async def _root(
    asked: Asked, source: Source, kube: Kube | None
) -> tuple[tuple[str, Looked] | None, tuple[str, str]]:
    """The checkpoint that was named, if it is one, and the run."""
    namespace, name = asked.namespace, asked.name
    checkpoint = await source.find("Checkpoint", namespace, name)
    if checkpoint.obj is not None:
        run = str(json_object(checkpoint.obj.get("spec")).get("sealedRun"))
        return (name, checkpoint), (namespace, run)
    seal = await source.find("SealedRun", namespace, name)
    if seal.obj is not None:
        return None, (namespace, name)
    try:
        runs = await runs_of(kube, namespace, name) if kube is not None else []
    except KubeError:
        runs = []
    if runs:
        return None, (namespace, metadata_name(runs[-1]))
    raise Failure(
        f"no Checkpoint, SealedRun or sealed TrainingJob {name} in namespace {namespace}: "
        f"{checkpoint.why}",
        expected="a name that `trainseal checkpoints JOB` or `kubectl get sealedruns` shows",
        remedy="is it gone? The archive has a copy: --archive FOLDER, with the name of the "
        "checkpoint or of the seal",
        code=UNDETERMINED,
    )


async def _rings(kube: Kube, namespace: str) -> tuple[Keyring, Keyring]:
    try:
        found = await kube.get(path_of("v1", "configmaps", namespace, KEYRING_CONFIG_MAP))
        return read_keyring(found, "seal"), read_keyring(found, "output")
    except (KubeError, UntrustedError) as error:
        raise Failure(
            f"ConfigMap {namespace}/{KEYRING_CONFIG_MAP}: {error}",
            expected="the operator's public keys",
            remedy=f"ask the platform team for `kubectl get cm {KEYRING_CONFIG_MAP} -n {namespace} "
            "-o yaml`, and give it with --keyring FILE",
            code=UNDETERMINED,
        ) from None


async def _cluster(kube: Kube) -> str:
    """The cluster's UID; empty where the reader may not see it: then the first seal says it."""
    try:
        found = await kube.get(path_of("v1", "namespaces", None, "kube-system"))
    except KubeError:
        return ""
    return str(json_object(found.get("metadata")).get("uid") or "")


def write_bundle(answer: Answer, file: Path, public_key: Path | None) -> None:
    """Of the checkpoint, or of the run's outputs. Raises Failure where there is none."""
    tree, signed, signed_at = _signed_tree(answer.lineage)
    if not signed:
        raise Failure(
            "these files have no bundle",
            expected="a checkpoint that is signed and not tainted, or a run with such outputs",
            remedy="what was signed by a release without bundles, and names that model_signing has "
            "no place for, have none: compare with `trainseal checkpoints verify`",
            code=UNDETERMINED,
        )
    try:
        document = outputbundles.bundle(answer.output_ring, tree, signed, signed_at)
    except UntrustedError as error:
        raise Failure(
            f"the bundle: {error}",
            expected="a signature by the operator's key for outputs",
            remedy="find out who changed the object, and who the keyring",
            code=REFUTED,
        ) from None
    file.write_text(json.dumps(document, separators=(",", ":")))
    if public_key is not None:
        public_key.write_text(answer.output_ring[str(signed.get("keyID"))].public_key.pem)
    where = f"the directory {tree.folder} of the checkpoints" if tree.folder else "the checkpoints"
    words = f"{file}: {len(tree.manifest.entries)} files, to be verified in a copy of {where}"
    print(words, file=sys.stderr)  # noqa: T201


def _signed_tree(lineage: Lineage) -> tuple[outputbundles.Tree, JsonObject, str]:
    proof, run = lineage.checkpoint, lineage.runs[0]
    try:
        if proof is not None:
            if proof.verdict != "verified" or proof.tainted:
                raise _no_good(proof.tainted or proof.words, proof.verdict)
            status = json_object(proof.obj.get("status"))
            name = metadata_name(proof.obj)
            tree = outputbundles.tree_of(name, outputbundles.files_of_checkpoint(proof.obj))
            signed_at = str(json_object(status.get("signature")).get("signedAt"))
            return tree, json_object(status.get("bundle")), signed_at
        if run.statement is None or run.stated.verdict != "verified":
            raise _no_good(run.stated.words, run.stated.verdict)
        if not runstatements.is_output(run.statement):
            raise _no_good("the run has no outputs that are signed and not tainted", "undetermined")
        status = json_object(run.stated.obj.get("status"))
        files = outputbundles.files_of_statement(run.statement)
        tree = outputbundles.tree_of(run.key[1], files)
        return tree, json_object(status.get("outputs")), str(status.get("signedAt"))
    except ManifestError as error:
        raise _no_good(str(error), "undetermined") from None


def _no_good(words: str, verdict: str) -> Failure:
    return Failure(
        f"no bundle is written: {words}",
        expected="what is signed, and neither tainted nor changed",
        remedy="trainseal lineage without --bundle says more",
        code=UNDETERMINED if verdict == "undetermined" else REFUTED,
    )
