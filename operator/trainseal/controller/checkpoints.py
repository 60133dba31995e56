"""Signs the manifests of a run's checkpoints, taints them, and lets a person sign them off.

Called with each look at a run (``drift``), after its findings were believed. Level-triggered: what
an object's status should be follows from the object, the run's taint and the releases; where it is
so already, nothing is asked and nothing written. An agent's word counts as its reports do: its pod
belongs to the seal and runs on its node (``belief``). What was signed once stays so: pods go.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

from prometheus_client import Counter

from trainseal.api.checkpoint import PLURAL, Checkpoint, CheckpointStatus
from trainseal.api.driftreport import PodIdentity
from trainseal.api.findings import FindingId
from trainseal.api.holdrelease import HoldRelease
from trainseal.api.model import (
    API_VERSION,
    InvalidObjectError,
    JsonObject,
    json_object,
    json_objects,
    metadata_name,
)
from trainseal.api.sealedrun import RunTaint, SealedRun
from trainseal.cluster.api import NotFoundError, path_of
from trainseal.controller.belief import PodFact, of_agent
from trainseal.controller.checkpointretention import KEEP, Manifest, surplus
from trainseal.controller.objects import put_status
from trainseal.controller.ownreport import Seen
from trainseal.controller.resumption import read_claim
from trainseal.controller.taints import ruling, taint_of
from trainseal.controller.world import World
from trainseal.engines.podtemplate import sealed_checkpoints
from trainseal.provenance import outputbundles
from trainseal.provenance.checkpointmanifests import barring, sign, verify
from trainseal.provenance.keyrings import UntrustedError, rfc3339
from trainseal.provenance.manifests import ManifestError

_log = logging.getLogger(__name__)
_JUDGED = Counter(
    "trainseal_checkpoints_total", "Manifests of checkpoints by what became of them.", ["standing"]
)
_REMOVED = Counter(
    "trainseal_checkpoints_removed_total", "Manifests removed: their files are no longer there."
)
Key = tuple[str, str]
#: What ``_wanted`` decides; the rest of a status was decided when it was first judged.
_VERDICT = ("tainted", "accepted", "refused")


@dataclass(frozen=True, slots=True)
class RunFacts:
    """A run whose binding was verified; ``bound`` are the UIDs of its Jobs."""

    key: Key
    seal: JsonObject
    sealed: SealedRun
    bound: Sequence[str]
    taint: RunTaint | None
    releases: Sequence[HoldRelease]
    find: Callable[[str, PodIdentity], Awaitable[PodFact | None]]


@dataclass(slots=True)
class _Judged:
    """What is to be written. ``astray``: a finding of our own comes of it."""

    status: JsonObject
    astray: Seen | None = None
    signed: bool = False


@dataclass(slots=True)
class Outcome:
    """What one look at a run's checkpoints gave. ``accepted``: some were signed off just now."""

    astray: list[Seen] = field(default_factory=list)
    accepted: bool = False


def shape(obj: JsonObject) -> JsonObject:
    """What is kept of a Checkpoint in memory: no digests."""
    metadata, spec = json_object(obj.get("metadata")), json_object(obj.get("spec"))
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    files = json_objects(spec.get("files"))
    needed = ("path", "size", "changed", "writer", "user")
    return {
        "metadata": {k: metadata[k] for k in kept if k in metadata},
        "spec": {**spec, "files": [{k: f[k] for k in needed if k in f} for f in files]},
        "status": obj.get("status") or {},
    }


class Checkpoints:
    """Reconciles the Checkpoints of runs."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def reconcile(self, run: RunFacts, objects: Sequence[JsonObject]) -> Outcome:
        """Those of one run, as ``shape`` keeps them. Raises KubeError."""
        outcome = Outcome()
        manifests: list[Manifest] = []
        for obj in objects:
            try:
                checkpoint = Checkpoint.parse(obj)
            except InvalidObjectError as error:
                _log.warning("Checkpoint %s/%s: %s", run.key[0], metadata_name(obj), error)
                continue
            manifests += _manifest(checkpoint)
            if self._stands(run, obj, checkpoint):
                continue
            await self._settle(run, checkpoint, outcome)
        await self._prune(run, manifests)
        self._world.volumes.judged(run.key)
        return outcome

    def _stands(self, run: RunFacts, obj: JsonObject, checkpoint: Checkpoint) -> bool:
        """Whether its status is as it should be."""
        status = json_object(obj.get("status"))
        standing = status.get("standing")
        if standing is None or (standing == "Signed" and not status.get("signature")):
            return False
        wanted = _verdict(run, checkpoint, dropped=standing == "Dropped")
        return all(status.get(part) == wanted.get(part) for part in _VERDICT)

    async def _settle(self, run: RunFacts, checkpoint: Checkpoint, outcome: Outcome) -> None:
        path = path_of(API_VERSION, PLURAL, run.key[0], checkpoint.metadata.name)
        try:
            full = await self._world.kube.get(path)
        except NotFoundError:
            return
        whole = Checkpoint.parse(full)
        judged = await self._judge(run, full, whole)
        before = json_object(full.get("status"))
        if judged.signed:
            judged.status["signature"] = sign(
                self._world.seal_key, full, judged.status, self._world.clock()
            )
            judged.status |= self._bundle(full, judged.status)
        await put_status(self._world.kube, path, full, judged.status)
        if before.get("standing") != judged.status.get("standing"):
            _JUDGED.labels(str(judged.status.get("standing"))).inc()
        if judged.astray is not None:
            outcome.astray.append(judged.astray)
        outcome.accepted |= bool(judged.status.get("accepted")) and not before.get("accepted")

    def _bundle(self, full: JsonObject, status: JsonObject) -> JsonObject:
        """What ``model_signing`` reads. It knows of no taint: what is tainted has none."""
        key = self._world.output_key
        if key is None or barring(status):
            return {}
        try:
            tree = outputbundles.tree_of(
                metadata_name(full), outputbundles.files_of_checkpoint(full)
            )
            return {"bundle": outputbundles.sign(key, tree)}
        except ManifestError as error:
            _log.warning("Checkpoint %s: no bundle: %s", metadata_name(full), error)
            return {}

    async def _judge(self, run: RunFacts, full: JsonObject, whole: Checkpoint) -> _Judged:
        spec = whole.spec
        kept = self._signed_before(full, whole)
        if kept is not None:
            return _Judged({**kept, **_verdict(run, whole)}, signed=True)
        wrong = _contradiction(run, whole)
        judgement = of_agent(
            spec.node, spec.pod.name, run.bound, await run.find(run.key[0], spec.pod)
        )
        if wrong or judgement.standing == "Dropped":
            why = wrong or judgement.why
            return _Judged(
                {"standing": "Dropped", "message": why[:1024]}, astray=_astray(whole, why)
            )
        status: JsonObject = {"attested": await self._attested(run, whole)}
        if judgement.standing == "Unproved":
            status |= {"standing": "Unproved", "message": judgement.why[:1024]}
        elif not any(file.digest for file in spec.files):
            words = "no file of it was read before its volume was taken off the node"
            status |= {"standing": "Unread", "message": words}
        else:
            status["standing"] = "Signed"
        return _Judged({**status, **_verdict(run, whole)}, signed=status["standing"] == "Signed")

    def _signed_before(self, full: JsonObject, whole: Checkpoint) -> JsonObject | None:
        """What our own signature says that it is; None where it carries none."""
        status = whole.status or CheckpointStatus()
        if status.signature is None or status.attested is None:
            return None
        try:
            verify(self._world.seal_keyring(), full)
        except UntrustedError as error:
            _log.warning("%s; it is judged anew", error)
            return None
        raw = json_object(full.get("status"))
        return {part: raw[part] for part in ("standing", "attested") if part in raw}

    async def _attested(self, run: RunFacts, whole: Checkpoint) -> JsonObject:
        binding = json_object(json_object(run.seal.get("status")).get("binding"))
        job, volume = run.sealed.spec.job, whole.spec.volume
        created = whole.metadata.creation_timestamp
        found: JsonObject = {
            "cluster": self._world.cluster,
            "sealDigest": binding.get("sealDigest"),
            "job": job.name,
            "jobDigest": job.digest,
            "created": rfc3339(created) if created else None,
        }
        if volume.claim is not None:
            claim = await read_claim(self._world.kube, run.key[0], volume.claim)
            found["claimUID"] = json_object((claim or {}).get("metadata")).get("uid")
            found["persistentVolume"] = json_object((claim or {}).get("spec")).get("volumeName")
        return {name: value for name, value in found.items() if value is not None}

    async def _prune(self, run: RunFacts, manifests: Sequence[Manifest]) -> None:
        for manifest in surplus(manifests, self._world.clock(), KEEP):
            path = path_of(API_VERSION, PLURAL, run.key[0], manifest.name)
            await self._world.kube.delete(path, uid=manifest.uid)
            _REMOVED.inc()


def _verdict(run: RunFacts, checkpoint: Checkpoint, *, dropped: bool = False) -> JsonObject:
    """Taint and sign-off, as they stand in the status."""
    created = checkpoint.metadata.creation_timestamp
    taint = None if dropped else taint_of(checkpoint.spec, created, run.taint)
    if taint is None:
        return {}
    found = ruling(checkpoint.metadata.name, checkpoint.spec.files, run.taint, run.releases)
    verdict: JsonObject = {"tainted": taint.wire()}
    if found.accepted is not None:
        verdict["accepted"] = found.accepted.wire()
    if found.refused is not None:
        verdict["refused"] = found.refused
    return verdict


def _contradiction(run: RunFacts, checkpoint: Checkpoint) -> str:
    """What the seal says otherwise of the mount; empty where it says the same."""
    said = checkpoint.spec.volume
    sealed = {sealed_checkpoints(role.template) for role in run.sealed.spec.roles}
    if (said.claim or "", said.path or "") in sealed:
        return ""
    return (
        f"it claims that the checkpoints lie in {said.path or 'the top'} of "
        f"{said.claim or 'a directory of the pod'}, and the seal has another place"
    )


def _manifest(checkpoint: Checkpoint) -> list[Manifest]:
    created, spec, status = (
        checkpoint.metadata.creation_timestamp,
        checkpoint.spec,
        checkpoint.status,
    )
    if created is None or status is None or status.standing is None:
        return []
    return [
        Manifest(
            name=checkpoint.metadata.name,
            uid=checkpoint.metadata.uid,
            pod=spec.pod.uid,
            created=created,
            files=frozenset(f.path for f in spec.files),
            removed=frozenset(spec.removed or ()),
            tainted=status.tainted is not None,
            shared=spec.volume.claim is not None,
        )
    ]


def _astray(checkpoint: Checkpoint, why: str) -> Seen:
    spec = checkpoint.spec
    return Seen(
        id=FindingId.WATCH_MISREPORTED,
        subject=checkpoint.metadata.uid,
        message=f"Checkpoint {checkpoint.metadata.name} was dropped: {why}",
        occasion=why,
        evidence={"report": checkpoint.metadata.name, "node": spec.node, "pod": spec.pod.name},
    )
