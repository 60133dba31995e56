"""SealedRun (``seal``): the record of one admitted run; immutable, and signed by the operator.

``spec`` is written once. ``status.binding`` carries the operator's signature over the digest of
the spec and the UIDs of the engine's objects, made while those objects are still suspended. An
edited or forged seal fails that signature, whoever could write the object. It carries no owner
reference: evidence outlives the job.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from trainseal.api.driftreport import FindingName
from trainseal.api.findings import Severity
from trainseal.api.model import (
    MAX_COUNT_32,
    OPAQUE,
    Condition,
    Count,
    Digest,
    DnsLabel,
    DnsSubdomain,
    JsonObject,
    Model,
    Resource,
    ShortText,
    SubPath,
    Text,
    Uid,
)
from trainseal.api.trainingjob import MAX_REPLICAS, ArtifactStatus, DriftSummary, EngineName

PLURAL = "sealedruns"
#: Findings of one run that are kept track of one by one. Those beyond are counted.
MAX_MARKS = 4096

#: BreakGlasses of one run that wait for review at one time; those beyond taint it for good.
MAX_BROKEN_GLASS = 8

#: The engine's objects of one run: one a role, and what they are made from, three at the most.
MAX_BOUND = 11

#: Images of one job, each named as the job names it.
MAX_IMAGES = 64

#: Runs whose checkpoints lay where a run reads, each named; those beyond are not.
MAX_EARLIER = 16

#: Manifests of one checkpoint that a run goes on from: each rank has its own.
MAX_RESUMED = 256

#: Memberships of one run that are told one by one, the last ones.
MAX_EPOCHS = 6

#: Of what the pods name, what a seal keeps in sight.
MAX_CLAIM_TEMPLATES = 64
MAX_SECRETS = 64

#: Sixteen hexadecimal digits.
Mark = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{16}$", max_length=16)]


class JobIdentity(Model):
    """The TrainingJob that was admitted."""

    name: DnsSubdomain
    """`metadata.name`."""
    uid: ShortText
    """`metadata.uid`."""
    digest: Digest
    """The job digest: what the approvers signed."""


class Requester(Model):
    """Who asked, as the API server saw them; from the webhook's signed ticket."""

    username: ShortText
    """User name."""
    uid: ShortText | None = None
    """UID of the user, where the authenticator gives one."""
    groups: list[ShortText] | None = Field(default=None, max_length=64)
    """Groups of the user, where a rule may ask about them. Absent: none."""
    time: datetime
    """When the request was admitted."""


class PolicyRecord(Model):
    """A policy as it was: its name and the digest of its spec."""

    name: DnsSubdomain
    """Name of the policy."""
    digest: Digest
    """SHA-256 of its canonical spec."""
    mode: Literal["Enforce", "Audit"]
    """Its mode."""


class PlatformImage(Model):
    """One platform's image: the digests by which runtimes know it."""

    platform: ShortText
    """As in `linux/amd64`."""
    manifest: Digest
    """Digest of the platform's manifest."""
    config: Digest
    """Digest of the image's configuration: the image ID."""


class SealedImage(Model):
    """An image by every digest that a runtime may report."""

    reference: Text
    """As the job names it."""
    digest: Digest
    """Digest of the index or manifest."""
    platforms: list[PlatformImage] = Field(max_length=64)
    """The images it stands for."""


class SealedCode(Model):
    """A code artifact, the digest of its tree, and the signature the gate compares it with."""

    name: DnsLabel
    """The code mount's name."""
    reference: Text
    """As the job names it."""
    tree_digest: Digest
    """Digest of the tree's manifest."""
    bundle: Digest = Field(description="Digest of the Sigstore bundle's blob in the repository.")


class SealedRole(Model):
    """What each pod of a role must look like: the template after the API server's defaulting."""

    name: DnsLabel
    """The role."""
    replicas: int = Field(ge=1, le=MAX_REPLICAS)
    """Pods that the engine's object runs; of a role with a range, the most."""
    min_replicas: int | None = Field(default=None, ge=1, le=MAX_REPLICAS)
    """The least, of a role with a range. Absent: the role has one size."""
    object_name: DnsSubdomain = Field(description="Name of the engine's object.")
    template: JsonObject = Field(max_length=4, json_schema_extra=OPAQUE)
    """A PodTemplateSpec, defaulted."""


class SealedAccount(Model):
    """A service account that pods of the run are to run as."""

    name: DnsSubdomain
    """`metadata.name`."""
    uid: Uid
    """`metadata.uid`."""


class SealedClaimTemplate(Model):
    """A ResourceClaimTemplate by which pods of the run get devices."""

    name: DnsSubdomain
    """`metadata.name`."""
    digest: Digest
    """SHA-256 of its spec, as JSON with its keys in order."""


class SealedSecret(Model):
    """A Secret that pods of the run read: which it was, and never what is in it."""

    name: DnsSubdomain
    """`metadata.name`."""
    uid: Uid
    """`metadata.uid`."""
    resource_version: Annotated[str, StringConstraints(pattern=r"^[0-9]+$", max_length=40)]
    """`metadata.resourceVersion`: another one once anything of it was changed."""


class SealedReferences(Model):
    """What the pods name and others keep, as it was when the run was sealed."""

    service_accounts: list[SealedAccount] | None = Field(default=None, max_length=8)
    """Absent: none was there."""
    claim_templates: list[SealedClaimTemplate] | None = Field(
        default=None, max_length=MAX_CLAIM_TEMPLATES
    )
    """Absent: none is named."""
    secrets: list[SealedSecret] | None = Field(default=None, max_length=MAX_SECRETS)
    """Absent: none is named that the controller may ask about (the chart's `followedSecrets`)."""


class EarlierRun(Model):
    """A run with checkpoints in a directory that this one mounts, or above or below it."""

    in_namespace: DnsLabel
    """Its own: one volume can have claims in several."""
    sealed_run: DnsSubdomain
    """Name of its seal."""
    checkpoints: int = Field(ge=1, le=MAX_COUNT_32)
    """How many of them had a manifest."""
    newest: DnsSubdomain
    """Name of the Checkpoint that was completed last."""


class SealedResume(Model):
    """The checkpoint that a run goes on from, as it was chosen when the run was sealed."""

    sealed_run: DnsSubdomain
    """Name of the seal of the run that wrote it, in this namespace."""
    checkpoints: list[DnsSubdomain] = Field(min_length=1, max_length=MAX_RESUMED)
    """Names of the Checkpoints that list its files, the one completed last first."""
    manifest: Digest
    """SHA-256 over its files' paths and digests, as canonical JSON."""
    claim: DnsSubdomain
    """The PersistentVolumeClaim that it lies on."""
    path: SubPath | None = Field(default=None, description="Directory of it within the volume.")


class SealedLaunch(Model):
    """The template that a run was made from, and what was asked of it."""

    template: DnsLabel
    """`metadata.name` of the TrainingTemplate."""
    digest: Digest
    """Its digest: what its approvers signed."""
    asked: Digest
    """Digest of the TrainingJob as it was submitted."""
    parameters: JsonObject | None = Field(
        default=None,
        max_length=64,
        description="The parameters that it gave. Absent: none.",
        json_schema_extra=OPAQUE,
    )
    job: JsonObject = Field(
        max_length=16, description="The whole job that was made.", json_schema_extra=OPAQUE
    )


class SealedRunSpec(Model):
    """The seal."""

    job: JobIdentity
    """The job that was admitted."""
    launch: SealedLaunch | None = None
    """Absent: the job was signed itself."""
    cluster: ShortText = Field(description="UID of the kube-system namespace.")
    run: int = Field(
        ge=1,
        le=MAX_COUNT_32,
        description="Which run of this job digest this is; of one that was made from a template, "
        "which run of it.",
    )
    engine: EngineName
    """What runs the pods."""
    requester: Requester
    """Who asked."""
    policies: list[PolicyRecord] = Field(max_length=64)
    """The policies that held."""
    artifacts: list[ArtifactStatus] = Field(max_length=128)
    """The verdicts, artifact by artifact."""
    images: list[SealedImage] = Field(max_length=MAX_IMAGES)
    """The images, by every digest."""
    code: list[SealedCode] = Field(max_length=16)
    """The code."""
    config_digest: Digest | None = None
    """Digest over the digests of the gate's config files. Absent: there are none."""
    roles: list[SealedRole] = Field(min_length=1, max_length=8)
    """What the pods must look like."""
    references: SealedReferences | None = None
    """Absent: nothing of it was there, or the seal is of a release that did not look."""
    earlier: list[EarlierRun] | None = Field(default=None, max_length=MAX_EARLIER)
    """What the run could go on from, the newest first. Absent: nothing that has a manifest, or the
    seal is of a release that did not look."""
    resume: SealedResume | None = None
    """Absent: the job names no run to go on from."""
    sealed_at: datetime
    """When the seal was written."""


class BoundObject(Model):
    """One of the engine's objects, bound to the seal by UID."""

    role: Annotated[
        str, StringConstraints(pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?)?$", max_length=63)
    ] = Field(
        description="The role whose pods it owns. Empty: the objects of all roles are made from it."
    )
    kind: Literal[EngineName, "TrainingRuntime"]
    """Its kind."""
    name: DnsSubdomain
    """`metadata.name`."""
    uid: ShortText
    """`metadata.uid`."""


class Member(Model):
    """How many pods of a role belong to the run: those with the indexes below."""

    role: DnsLabel
    """The role."""
    replicas: int = Field(ge=1, le=MAX_REPLICAS)
    """Its pods."""


class Binding(Model):
    """The operator's signature over cluster, namespace, seal digest and object UIDs; of a run with
    an elastic role also over who is a member now.
    """

    seal_digest: Digest
    """SHA-256 over the seal's canonical namespace, name and spec."""
    objects: list[BoundObject] = Field(min_length=1, max_length=MAX_BOUND)
    """The engine's objects."""
    epoch: int | None = Field(default=None, ge=1, le=MAX_COUNT_32)
    """Which membership this is, counted from 1. Absent: no role is elastic."""
    epoch_since: datetime | None = None
    """When it was signed. Absent: as `epoch`."""
    members: list[Member] | None = Field(default=None, max_length=8)
    """The elastic roles' pods. Absent: as `epoch`."""
    key_id: ShortText = Field(alias="keyID")
    """Which key of the operator's keyring signed."""
    signature: Annotated[str, StringConstraints(max_length=1024)] = Field(description="Base64.")
    bound_at: datetime
    """When the run was bound, and this was signed; with an `epoch`, that was when this began."""


class Epoch(Model):
    """A membership that the run has, or had: of the last ones each."""

    number: int = Field(ge=1, le=MAX_COUNT_32)
    """Counted from 1; the binding is of the last."""
    since: datetime
    """When it was signed: pods come and go a moment later."""
    members: list[Member] = Field(min_length=1, max_length=8)
    """The elastic roles' pods."""
    user: ShortText | None = None
    """Who asked for it, as the API server saw them. Absent: it is what was signed, or the webhook
    did not see it."""


class Hold(Model):
    """What keeps a run from going on after a finding. A HoldRelease lifts it, and no edit does."""

    id: Mark
    """What a HoldRelease names: it changes with the findings that the hold stands for."""
    response: Literal["Freeze", "Suspend", "Quarantine", "Terminate"]
    """What the policy asks for. `Quarantine` comes too late for a run that is suspended: its pods
    are gone. `Terminate` is final."""
    since: datetime
    """When the run was first held."""
    response_since: datetime | None = None
    """Since when by this response. Absent: the hold is of a release that did not say."""
    findings: list[Mark] = Field(min_length=1, max_length=MAX_MARKS)
    """The findings, each by a mark over its report and key."""
    reason: FindingName
    """Id of the most severe finding."""
    severity: Severity
    """Its severity."""
    message: Text
    """It, in words."""
    waiting: Text | None = None
    """Why a release has not lifted it. Absent: none asks for it."""


class HeldTime(Model):
    """How long a run was held by one response, in what is over of its holds."""

    response: Literal["Freeze", "Suspend", "Quarantine", "Terminate"]
    """The response."""
    seconds: Count
    """Of all its holds together."""


class FreezeOrder(Model):
    """What the agents do with the run's pods."""

    state: Literal["Frozen", "Thawed"]
    """`Frozen`: every process of the run's pods is stopped."""
    since: datetime
    """When it was ordered."""
    until: datetime | None = None
    """When the policy's next response follows. Absent: never by itself."""
    order: Annotated[str, StringConstraints(max_length=2048)]
    """State, times and seal, signed by the operator: agents obey this and nothing else."""


class Lifted(Model):
    """The last hold that a person lifted."""

    hold: Mark
    """Its id."""
    release: DnsSubdomain
    """Name of the HoldRelease."""
    user: ShortText
    """Who lifted it."""
    reason: Text
    """Why."""
    time: datetime
    """When the run was let go."""


class RunTaint(Model):
    """The first finding after which the run's checkpoints need a person's word."""

    since: datetime
    """Checkpoints that are not known to be older than this are tainted."""
    finding: FindingName
    """Id of the finding."""
    severity: Severity
    """Its severity."""
    message: Text
    """It, in words."""
    users: list[ShortText] | None = Field(default=None, max_length=32)
    """Whom findings on the run name: they sign nothing of it off."""


class BrokenGlass(Model):
    """A BreakGlass by which somebody got in, and that nobody else has reviewed since."""

    name: DnsSubdomain
    """Of the BreakGlass."""
    user: ShortText
    """Who got in by it."""
    since: datetime
    """When they first did."""
    last_use: datetime
    """When they last did, as far as it was seen."""


class SealedRunStatus(Model):
    """The binding, what was found while it ran, and how the run ended."""

    binding: Binding | None = None
    """Absent: not bound yet; its pods are not admitted."""
    epochs: list[Epoch] | None = Field(default=None, max_length=MAX_EPOCHS)
    """Memberships of a run with an elastic role, the last one at the end. Absent: it has none."""
    signed: JsonObject | None = Field(
        default=None,
        max_length=16,
        description="What the approvers signed of the job's `spec`: the one whose digest "
        "`spec.job` has. Absent: `spec.launch` has the job, it is too long to be kept, or the seal "
        "is of a release that did not keep it.",
        json_schema_extra=OPAQUE,
    )
    phase: Literal["Sealed", "Bound", "Succeeded", "Failed", "Deleted"] | None = None
    """How far the run is."""
    completion_time: datetime | None = None
    """When the run ended."""
    message: Text | None = None
    """How it ended, for people."""
    drift: DriftSummary | None = None
    """Findings on the run. Absent: none."""
    hold: Hold | None = None
    """Absent: the run is not held."""
    held_time: list[HeldTime] | None = Field(default=None, max_length=4)
    """Until it was lifted, or another response followed. Absent: nothing is over."""
    freeze: FreezeOrder | None = None
    """Absent: it never was frozen."""
    isolated_since: datetime | None = None
    """When its NetworkPolicy became one that allows nothing. Absent: it is the ordinary one."""
    lifted: Lifted | None = None
    """Absent: no hold was lifted."""
    handled: list[Mark] | None = Field(default=None, max_length=MAX_MARKS)
    """Marks of the findings that a person let the run go on after."""
    taint: RunTaint | None = None
    """Absent: nothing was found that taints checkpoints. It stays, whatever a person lets go on."""
    broken_glass: list[BrokenGlass] | None = Field(default=None, max_length=MAX_BROKEN_GLASS)
    """They taint the run's checkpoints until they are reviewed. Absent: none."""
    told: list[Mark] | None = Field(default=None, max_length=MAX_MARKS)
    """Marks of the findings that events and alerts have told of."""
    reports: list[Uid] | None = Field(default=None, max_length=MAX_MARKS)
    """UIDs of the DriftReports whose pod was seen to run where they say."""
    statement: Digest | None = None
    """SHA-256 of the payload of the run's RunStatement. Absent: it was not made yet."""
    conditions: list[Condition] | None = Field(default=None, max_length=8)
    """How far the run is, for programs."""


class SealedRun(Resource):
    """A SealedRun object."""

    spec: SealedRunSpec
    status: SealedRunStatus | None = None
