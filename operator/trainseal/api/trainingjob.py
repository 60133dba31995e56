"""TrainingJob (``tj``): what to run, and who signed for it; or a signed template, and with what.

The CRD carries no defaults inside ``spec``: an upgrade would void signatures. What a field means
when it is absent is said with the field.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import AwareDatetime, Field, JsonValue, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from trainseal.api.model import (
    MAX_COUNT_32,
    OPAQUE,
    Condition,
    Count,
    Count32,
    Digest,
    DnsLabel,
    DnsSubdomain,
    JsonObject,
    LabelKey,
    Model,
    MountPath,
    QualifiedName,
    Quantity,
    Resource,
    ShortText,
    SubPath,
    Text,
)

PLURAL = "trainingjobs"
MAX_REPLICAS = 16384
#: What in ``checkpoints.path`` stands for the name of the run's seal.
RUN = "{run}"
#: A key of a map that must be the name of one in a list, which says what form it has.
ListedName = Annotated[str, StringConstraints(max_length=63)]
ReplicaCount = Annotated[int, Field(ge=1, le=MAX_REPLICAS, strict=True)]
MAX_SIGNATURES = 16
MAX_SIGNERS = 16

#: An object of the core API that a pod carries, as Kubernetes defines it.
PodPart = Annotated[JsonObject, Field(max_length=16, json_schema_extra=OPAQUE)]


class OciSource(Model):
    """An OCI artifact. Under Enforce the reference carries a digest."""

    reference: Annotated[str, StringConstraints(min_length=1, max_length=512)] = Field(
        description="Repository and digest: registry.example/team/code@sha256:…"
    )


class CodeMount(Model):
    """A signed tree of code, mounted read-only in every container."""

    name: DnsLabel
    """Unique among the job's code."""
    mount_path: MountPath
    """Where the containers find it."""
    oci: OciSource


class Config(Model):
    """The run's configuration; the gate writes it as config.yaml and config.json."""

    mount_path: MountPath
    """Directory of the two files."""
    parameters: dict[str, JsonValue] = Field(
        max_length=1024,
        description="The parameters, as the trainer reads them.",
        json_schema_extra=OPAQUE,
    )


class ClaimSource(Model):
    """A PersistentVolumeClaim of the job's namespace."""

    claim_name: DnsSubdomain
    """Name of the claim."""


class EmptyDirSource(Model):
    """A directory that lives as long as the pod."""

    medium: Literal["", "Memory"] | None = None
    """`Memory` for a tmpfs; absent or empty for the node's disk."""
    size_limit: Quantity | None = None
    """Bytes, as a quantity. Absent: no limit of its own."""


class Volume(Model):
    """Where bytes come from: exactly one of the sources."""

    persistent_volume_claim: ClaimSource | None = None
    empty_dir: EmptyDirSource | None = None

    @model_validator(mode="after")
    def _one_source(self) -> Volume:
        if (self.persistent_volume_claim is None) == (self.empty_dir is None):
            raise ValueError("exactly one of persistentVolumeClaim, emptyDir")
        return self


class DataMount(Model):
    """A dataset, mounted read-only."""

    name: DnsLabel
    """Unique among the job's datasets."""
    mount_path: MountPath
    """Where the containers find it."""
    volume: Volume
    path: SubPath | None = Field(default=None, description="Directory within the volume.")


CheckpointFormat = Literal["safetensors", "dcp", "pickle"]
"""`safetensors`; `dcp`, PyTorch's distributed checkpoints, whose pickles import nothing else than
these need; `pickle`, everything else that may be a program to who loads it."""


class Complete(Model):
    """By what a whole checkpoint is told from one that was cut short."""

    marker: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z0-9._-]+$", min_length=1, max_length=64)
    ] = Field(description="Name of a file in its directory that the trainer writes last: `.done`.")


class ResumeFrom(Model):
    """Which checkpoint: the controller chooses it when the run is sealed."""

    run: DnsSubdomain
    """Name of a run's seal in the job's namespace, or of a TrainingJob, then its last run."""
    select: Literal["LatestUntainted"]
    """`LatestUntainted`: the last whose files are all signed, and not tainted or signed off."""


class Resume(Model):
    """Goes on from another run. The gate compares each file before the trainer starts."""

    from_: ResumeFrom = Field(alias="from", description="Which checkpoint of which run.")
    mount_path: MountPath
    """Where the containers find the checkpoint, read-only."""


class Checkpoints(Model):
    """Where the trainer writes checkpoints: one of the two writable roles."""

    mount_path: MountPath
    """Where the containers find it."""
    volume: Volume
    path: SubPath | None = Field(
        default=None,
        description="Directory within the volume. In it `{run}` stands for the name of the run's "
        "seal: each run then has a directory of its own.",
    )

    complete: Complete | None = None
    """Absent: a checkpoint is whole once each file of it was closed and left alone."""
    format: list[CheckpointFormat] | None = Field(default=None, min_length=1, max_length=3)
    """Of which formats its checkpoints are: by `resume` it goes on from no other. Absent: from
    those that the policies of the namespace accept."""
    resume: Resume | None = None
    """Absent: the run goes on from no other."""

    def path_of(self, run: str) -> str:
        """The directory of a run, by the name of its seal; empty: the volume's top."""
        return (self.path or "").replace(RUN, run)


class Scratch(Model):
    """A writable directory that is gone with the pod: one of the two writable roles."""

    mount_path: MountPath
    """Where the containers find it."""
    medium: Literal["", "Memory"] | None = None
    """`Memory` for a tmpfs; absent or empty for the node's disk."""
    size_limit: Quantity | None = None
    """Bytes, as a quantity. Absent: no limit of its own."""


class ReplicaRange(Model):
    """An elastic size: ``spec.scheduling.replicas`` says which within it, and may change while the
    run is on. Absent there, and by engines without elasticity, it is ``max``.
    """

    min: int = Field(ge=1, le=MAX_REPLICAS)
    """Pods without which it does not run."""
    max: int = Field(ge=1, le=MAX_REPLICAS)
    """Pods that it runs at most."""

    @model_validator(mode="after")
    def _ordered(self) -> ReplicaRange:
        if self.min > self.max:
            raise ValueError("min not above max")
        return self


#: Kinds of what runs the pods.
EngineName = Literal["Job", "JobSet", "PyTorchJob", "TrainJob"]


class Role(Model):
    """Pods of one kind; ``template`` is a PodTemplateSpec, opaque to the schema, signed whole."""

    name: DnsLabel
    """Unique among the job's roles, such as `worker`."""
    replicas: ReplicaCount | ReplicaRange = Field(
        description="A number, or {min, max}.", json_schema_extra=OPAQUE
    )
    template: JsonObject = Field(
        max_length=4, description="A PodTemplateSpec.", json_schema_extra=OPAQUE
    )

    @property
    def size(self) -> int:
        """Pods that it runs at most."""
        return self.replicas if isinstance(self.replicas, int) else self.replicas.max

    @property
    def least(self) -> int | None:
        """Pods without which it does not run; None of a role of one size."""
        return None if isinstance(self.replicas, int) else self.replicas.min


class SchedulingGate(Model):
    """What a pod waits for, until the controller whose gate it is takes it away."""

    name: QualifiedName
    """Name of the gate, such as `kueue.x-k8s.io/topology`."""


class Scheduling(Model):
    """Where and when, never what: not signed, and changeable while the job lives.

    Of a run that is on, a change counts from its next start on, but for `replicas`; the condition
    `Placed` says so.
    """

    queue_name: ShortText | None = None
    """The queue that starts the run, under Kueue's label: TrainSeal then only suspends."""
    priority_class_name: DnsSubdomain | None = None
    """PriorityClass of the pods."""
    node_selector: dict[LabelKey, ShortText] | None = Field(default=None, max_length=32)
    """Labels that a node must have, beyond those the template asks for."""
    tolerations: list[PodPart] | None = Field(default=None, max_length=32)
    """Tolerations, beyond the template's."""
    affinity: PodPart | None = None
    """Affinity of the pods."""
    topology_spread_constraints: list[PodPart] | None = Field(default=None, max_length=16)
    """How the pods are spread over the nodes."""
    scheduling_gates: list[SchedulingGate] | None = Field(default=None, max_length=16)
    """What the pods wait for before they are scheduled. Kubernetes only ever takes gates away."""
    replicas: dict[ListedName, ReplicaCount] | None = Field(default=None, max_length=8)
    """Pods of a role whose signed `replicas` are a range, within it. Counts at once, also of a run
    that is on. Absent: as many as the range allows."""


class Validity(Model):
    """Bounds on submitting the same signed job again; signed."""

    not_after: AwareDatetime | None = Field(
        default=None, description="No run starts after this time, and no suspended one goes on."
    )
    max_runs: int | None = Field(default=None, ge=1, le=100000)
    """How often the job runs at most; runs are counted in retained seals."""
    cluster: ShortText | None = Field(
        default=None,
        description="UID of the kube-system namespace of the one cluster it may run in.",
    )


class SignatureEntry(Model):
    """One signer's Sigstore bundle over the canonical job."""

    bundle: JsonObject = Field(
        max_length=16, description="A Sigstore bundle.", json_schema_extra=OPAQUE
    )


class JobParts(Model):
    """What a job may have beside its engine and its pods; signed."""

    code: list[CodeMount] | None = Field(default=None, max_length=16)
    """Signed trees of code."""
    config: Config | None = None
    data: list[DataMount] | None = Field(default=None, max_length=16)
    """Datasets."""
    checkpoints: Checkpoints | None = None
    scratch: list[Scratch] | None = Field(default=None, max_length=16)
    """Writable directories that are not kept."""
    validity: Validity | None = None


class WholeJob(JobParts):
    """What to run."""

    engine: EngineName
    """What runs the pods: `Job` is Kubernetes' own Indexed Job; another engine's kind where the
    chart has it."""
    roles: list[Role] = Field(min_length=1, max_length=8)
    """The pods, by role."""


class TrainingJobSpec(WholeJob):
    """A whole job: signed itself, or made from a signed template."""

    scheduling: Scheduling | None = None
    suspend: bool | None = None
    """Whether the job waits. Not signed. Absent: it runs."""
    signatures: list[SignatureEntry] | None = Field(default=None, max_length=MAX_SIGNATURES)
    """Who signed. Not under the job digest itself, which is what they sign."""


class TemplateRef(Model):
    """A TrainingTemplate of the job's namespace, as it was when somebody chose it."""

    name: DnsLabel
    """Its name."""
    digest: Digest
    """Its digest: what its approvers signed. A template of another digest is not run."""


class CodeReference(Model):
    """Newer code for one of the template's mounts."""

    name: DnsLabel
    """The mount, by its name in the template."""
    reference: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    """Repository and digest: registry.example/team/code@sha256:…"""


#: Fields that a whole job alone has, and those that stand beside a template alone.
WHOLE = ("engine", "roles", *JobParts.model_fields, "signatures")
LEFT_OPEN = ("parameters", "replicas", "code_references", "resume_from")


class SubmittedJobSpec(JobParts):
    """What to run: a whole job with its signatures, or a template and what it leaves open."""

    engine: EngineName | None = None
    """What runs the pods: `Job` is Kubernetes' own Indexed Job; another engine's kind where the
    chart has it."""
    roles: list[Role] | None = Field(default=None, min_length=1, max_length=8)
    """The pods, by role."""
    template_ref: TemplateRef | None = None
    """Absent: the job is whole, and signed itself."""
    parameters: dict[str, JsonValue] | None = Field(
        default=None,
        max_length=64,
        description="Values for parameters that the template leaves open: `optim.lr: 0.0003`. "
        "Absent: the template's own.",
        json_schema_extra=OPAQUE,
    )
    replicas: dict[ListedName, ReplicaCount] | None = Field(default=None, max_length=8)
    """Pods of a role, within what the template leaves open. Absent: the template's own."""
    code_references: list[CodeReference] | None = Field(default=None, max_length=16)
    """Newer code, where the template lets somebody sign it. Absent: the template's own."""
    resume_from: ResumeFrom | None = None
    """Goes on from another run, where the template lets its runs. Absent: it starts anew."""
    scheduling: Scheduling | None = None
    suspend: bool | None = None
    """Whether the job waits. Not signed. Absent: it runs."""
    signatures: list[SignatureEntry] | None = Field(default=None, max_length=MAX_SIGNATURES)
    """Who signed a whole job. Not under the job digest itself, which is what they sign."""

    @model_validator(mode="after")
    def _one_form(self) -> SubmittedJobSpec:
        whole = self.template_ref is None
        if whole and not (self.engine and self.roles):
            raise ValueError("engine and roles, or templateRef")
        wrong = [f for f in (LEFT_OPEN if whole else WHOLE) if getattr(self, f) is not None]
        if wrong:
            names = ", ".join(sorted(to_camel(name) for name in wrong))
            raise ValueError(f"no {names} {'without' if whole else 'beside'} templateRef")
        return self


class SignerStatus(Model):
    """A signer as the policy's authority names them."""

    authority: ShortText
    """Name of the policy's authority."""
    person: ShortText
    """Who that is."""
    identity: Text
    """Key id, or subject of the certificate."""
    issuer: Text | None = None
    """Issuer of the identity, for keyless signatures."""
    signed_at: datetime | None = None
    """Time that a timestamp or log proves."""


#: What a verdict can be on. `config` and `data` are parts of a job that are refused by themselves;
#: `policy` is one that cannot be used, and so stops every job; `template` is what a job was made
#: from. Seals hold these: none ever goes.
ArtifactKind = Literal["job", "image", "code", "config", "data", "policy", "template"]


class ArtifactStatus(Model):
    """One artifact's verdict."""

    artifact: ArtifactKind
    """What it is on."""
    name: ShortText
    """Name within the job."""
    subject: Text
    """What was looked at: a reference or a digest."""
    outcome: Literal["verified", "refuted", "undetermined"]
    """`refuted`: evidence was read and is not enough. `undetermined`: it could not be read."""
    reason: ShortText
    """One word for why, for programs."""
    message: Annotated[str, StringConstraints(max_length=4096)] = ""
    """What was found and what the policy wants."""
    signers: list[SignerStatus] = Field(default_factory=list, max_length=MAX_SIGNERS)
    """Whose signatures count; as many as a threshold can ask for."""


class RoleStatus(Model):
    """Pod counts of one role, as the engine's object reports them."""

    name: DnsLabel
    """The role."""
    replicas: Count32 = 0
    """Pods wanted."""
    active: Count32 = 0
    """Pods that neither succeeded nor failed."""
    ready: Count32 = 0
    """Pods that are ready."""
    succeeded: Count32 = 0
    """Pods that ended well."""
    failed: Count32 = 0
    """Pods that failed; less those that the cluster ended, or whose gate could not tell."""


class DriftSummary(Model):
    """Findings on a run, counted by severity."""

    critical: Count = 0
    """Findings of severity `Critical`."""
    warning: Count = 0
    """Findings of severity `Warning`."""
    info: Count = 0
    """Findings of severity `Info`."""
    first_time: datetime | None = None
    """When the first was seen."""
    last_time: datetime | None = None
    """When the last was seen."""


Phase = Literal["Pending", "Refused", "Sealed", "Running", "Suspended", "Succeeded", "Failed"]


class TrainingJobStatus(Model):
    """What the controller saw; nothing in it is believed by admission."""

    observed_generation: Count | None = None
    """The `metadata.generation` that this status is about."""
    phase: Phase | None = None
    """Where the job is, in one word."""
    verified: Literal["verified", "refuted", "undetermined", "pending"] | None = None
    """The verdict on all artifacts together. `pending`: all is well but for signatures that may
    still come."""
    message: Annotated[str, StringConstraints(max_length=4096)] | None = None
    """What the job waits for or why it ended."""
    job_digest: Digest | None = None
    """What the approvers sign: SHA-256 of the canonical job."""
    sealed_run: DnsSubdomain | None = None
    """Name of the run's seal."""
    template: DnsLabel | None = None
    """The template that it was made from. Absent: none, or it was not looked at yet."""
    run: int | None = Field(default=None, ge=1, le=MAX_COUNT_32)
    """Which run of this job digest this is."""
    requester: ShortText | None = None
    """Who asked for the run."""
    signers: Text | None = Field(default=None, description="The persons who signed, for kubectl.")
    missing: ShortText | None = Field(
        default=None, description="The persons who have yet to sign, for kubectl."
    )
    ready: ShortText | None = Field(default=None, description="Ready pods of wanted, for kubectl.")
    artifacts: list[ArtifactStatus] | None = Field(default=None, max_length=128)
    """The verdicts, artifact by artifact."""
    roles: list[RoleStatus] | None = Field(default=None, max_length=8)
    """Pod counts, by role."""
    drift: DriftSummary | None = None
    """Absent: nothing was found."""
    drifted: ShortText | None = None
    """The findings in a few words, for kubectl."""
    scheduling: Scheduling | None = None
    """The `spec.scheduling` that the run goes by now."""
    start_time: datetime | None = None
    """When the first worker was seen at work."""
    completion_time: datetime | None = None
    """When the run ended."""
    conditions: list[Condition] | None = Field(default=None, max_length=16)
    """Where the job is, for programs."""


class TrainingJob(Resource):
    """A TrainingJob that is whole."""

    spec: TrainingJobSpec
    status: TrainingJobStatus | None = None


class SubmittedJob(Resource):
    """A TrainingJob object as people write it, of either form."""

    kind_name = "TrainingJob"

    spec: SubmittedJobSpec
    status: TrainingJobStatus | None = None
