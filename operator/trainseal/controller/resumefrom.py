"""Which checkpoint of another run a job goes on from: chosen when the job is sealed.

No person signs for it: the controller signed each manifest while the run wrote it. Who asked for
that run may go on from it, and whom a policy of the namespace names (``checkpoints.mayResume``).
"""

from __future__ import annotations

from dataclasses import dataclass

from trainseal.api.gateplan import PlannedFile, PlannedResume
from trainseal.api.model import (
    API_VERSION,
    InvalidObjectError,
    JsonObject,
    Metadata,
    json_object,
    json_objects,
    metadata_name,
)
from trainseal.api.sealedrun import SealedResume, SealedRun
from trainseal.api.trainingjob import Resume, TrainingJob
from trainseal.cluster.api import NotFoundError, path_of
from trainseal.controller.resumption import read_claim
from trainseal.controller.runmanifests import manifests_of
from trainseal.controller.sealing import LABEL_JOB
from trainseal.controller.world import World
from trainseal.engines.podtemplate import RESUME_SOURCE, ResumeInputs
from trainseal.provenance.boundseals import bound_roles
from trainseal.provenance.canonical import CanonicalError
from trainseal.provenance.checkpointformats import accepted, not_accepted
from trainseal.provenance.checkpointmanifests import barring, verify
from trainseal.provenance.keyrings import UntrustedError
from trainseal.provenance.requesters import Requester
from trainseal.provenance.resumepoints import Item, NoPointError, Point, latest

SEALS = "sealedruns"
#: Seconds until it is looked again whether the run has ended.
WAITING_AGAIN = 10.0


class NotResumedError(Exception):
    """The job cannot go on from what it names; ``reason`` is one word for it. ``waiting``: it may
    yet, without anybody doing anything.
    """

    def __init__(self, reason: str, words: str, *, waiting: bool = False) -> None:
        self.reason = reason
        self.waiting = waiting
        super().__init__(words)


@dataclass(frozen=True, slots=True)
class Resumed:
    """What was chosen: for the seal, and for the gate."""

    sealed: SealedResume
    inputs: ResumeInputs


async def choose(
    world: World, identity: Metadata, job: TrainingJob, requester: Requester
) -> Resumed | None:
    """None where the job names no run. Raises NotResumedError, KubeError."""
    resume = job.spec.checkpoints.resume if job.spec.checkpoints else None
    if resume is None:
        return None
    namespace = identity.namespace
    sealed = await _run(world, namespace, identity, resume)
    _allowed(world, namespace, sealed, requester)
    name = sealed.metadata.name
    if sealed.status is None or not sealed.status.statement:
        raise NotResumedError(
            "ResumeFromLiveRun",
            f"waiting: run {name} is on, or its last checkpoints are being signed, which takes a "
            "minute or two after its end",
            waiting=True,
        )
    items = [_item(world, obj) async for obj in manifests_of(world.kube, namespace, name)]
    try:
        complete = job.spec.checkpoints.complete if job.spec.checkpoints else None
        point = latest(items, complete.marker if complete else "")
    except NoPointError as error:
        raise NotResumedError("NothingToResume", f"run {name}: {error}") from None
    _loadable(world, namespace, job, name, point)
    await _same_claim(world, namespace, point)
    plan = PlannedResume(
        source=RESUME_SOURCE,
        files=[PlannedFile(path=p, digest=d) for p, d in point.files],
        whole=bool(point.folder),
    )
    return Resumed(
        SealedResume(
            sealed_run=name,
            checkpoints=list(point.checkpoints),
            manifest=point.manifest,
            claim=point.claim,
            path=point.place or None,
        ),
        ResumeInputs(point.claim, point.place, plan),
    )


async def tainted_since(world: World, namespace: str, sealed: SealedRun) -> str | None:
    """Why a run that was sealed may not go on from its checkpoint any more; None where it may."""
    resume = sealed.spec.resume
    if resume is None:
        return None
    async for obj in manifests_of(world.kube, namespace, resume.sealed_run):
        name = json_object(obj.get("metadata")).get("name")
        if name in resume.checkpoints and not _item(world, obj).good:
            tainted = json_object(json_object(obj.get("status")).get("tainted"))
            why = f"tainted: {tainted.get('finding')}: {tainted.get('message')}"
            return (
                f"Checkpoint {name}, which it goes on from, is "
                f"{why if tainted else 'not as the operator signed it'}; have it signed off, or "
                "sign a job that goes on from another"
            )
    return None


async def _run(world: World, namespace: str, own: Metadata, resume: Resume) -> SealedRun:
    """The verified seal of the run that is named; of a job, that of its last other run."""
    name = resume.from_.run
    path = path_of(API_VERSION, SEALS, namespace)
    try:
        found = [await world.kube.get(f"{path}/{name}")]
    except NotFoundError:
        page = await world.kube.request("GET", path, query={"labelSelector": f"{LABEL_JOB}={name}"})
        found = json_objects(page.get("items"))
    seals = []
    for seal in found:
        try:
            sealed = SealedRun.parse(seal)
        except InvalidObjectError:
            continue
        if sealed.spec.job.uid != own.uid and _is_ours(world, namespace, seal):
            seals.append(sealed)
    if not seals:
        raise NotResumedError(
            "NothingToResume",
            f"found no run {name} in namespace {namespace}, expected the name of a seal or of a "
            "job that ran; `kubectl get sealedruns` lists them",
        )
    return max(seals, key=lambda s: (s.spec.sealed_at, s.metadata.name))


def _is_ours(world: World, namespace: str, seal: JsonObject) -> bool:
    """Whether it is bound, and the operator's."""
    try:
        roles = bound_roles(
            world.seal_keyring(),
            cluster=world.cluster,
            namespace=namespace,
            name=metadata_name(seal),
            seal=seal,
        )
    except (UntrustedError, CanonicalError):
        return False
    return bool(roles)


def _allowed(world: World, namespace: str, sealed: SealedRun, requester: Requester) -> None:
    asked = sealed.spec.requester.username
    if requester.username == asked:
        return
    for policy in world.policies(namespace):
        if requester.is_named(policy.may_resume_users, policy.may_resume_groups):
            return
    raise NotResumedError(
        "ResumeNotAllowed",
        f"run {sealed.metadata.name} was asked for by {asked}: found {requester.username}, "
        "expected them, or somebody whom a policy names in checkpoints.mayResume; ask them to "
        "submit the job",
    )


def _loadable(world: World, namespace: str, job: TrainingJob, run: str, point: Point) -> None:
    """Raises NotResumedError where a file is of a format that may not be gone on from."""
    enforced = [p.checkpoint_formats for p in world.policies(namespace) if p.mode == "Enforce"]
    declared = job.spec.checkpoints.format if job.spec.checkpoints else None
    formats = accepted(enforced, declared)
    wrong = [words for entry in point.entries if (words := not_accepted(entry, formats))]
    if not wrong:
        return
    more = f", and {len(wrong) - 1} more files" if len(wrong) > 1 else ""
    wanted = " or ".join(sorted(formats)) or "nothing: job and policies accept none in common"
    raise NotResumedError(
        "CheckpointFormat",
        f"run {run}, its last checkpoint: {wrong[0]}{more}; expected {wanted}; write it in such a "
        "format, or have it named by the policies' checkpoints.formats and, where the job names "
        "formats, by the job",
    )


def _item(world: World, obj: JsonObject) -> Item:
    try:
        verify(world.seal_keyring(), obj)
    except UntrustedError:
        return Item(obj, good=False)
    return Item(obj, good=not barring(json_object(obj.get("status"))))


async def _same_claim(world: World, namespace: str, point: Point) -> None:
    claim = await read_claim(world.kube, namespace, point.claim)
    uid = json_object((claim or {}).get("metadata")).get("uid")
    if not point.claim_uid or uid != point.claim_uid:
        raise NotResumedError(
            "NothingToResume",
            f"its checkpoint {point.folder} lies on claim {point.claim}, which "
            + ("is gone" if claim is None else "was made anew since"),
        )
