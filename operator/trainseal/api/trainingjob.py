"""TrainingJob (``tj``): what to run, and who signed for it.

The CRD carries no defaults inside ``spec``: an upgrade would void signatures. What a field means
when it is absent is said with the field.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, JsonValue, StringConstraints, model_validator

from trainseal.api.model import (
    OPAQUE,
    Condition,
    Digest,
    DnsLabel,
    DnsSubdomain,
    JsonObject,
    Model,
    MountPath,
    Quantity,
    Resource,
    ShortText,
    SubPath,
    Text,
)

PLURAL = "trainingjobs"
MAX_REPLICAS = 16384

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
    mount_path: MountPath
    oci: OciSource


class Config(Model):
    """The run's configuration; the gate writes it as config.yaml and config.json."""

    mount_path: MountPath
    parameters: dict[str, JsonValue] = Field(
        max_length=1024,
        description="The parameters, as the trainer reads them.",
        json_schema_extra=OPAQUE,
    )


class ClaimSource(Model):
    """A PersistentVolumeClaim of the job's namespace."""

    claim_name: DnsSubdomain


class EmptyDirSource(Model):
    """A directory that lives as long as the pod."""

    medium: Literal["", "Memory"] | None = None
    size_limit: Quantity | None = None


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
    mount_path: MountPath
    volume: Volume
    path: SubPath | None = Field(default=None, description="Directory within the volume.")


class Checkpoints(Model):
    """Where the trainer writes checkpoints: one of the two writable roles."""

    mount_path: MountPath
    volume: Volume
    path: SubPath | None = Field(default=None, description="Directory within the volume.")


class Scratch(Model):
    """A writable directory that is gone with the pod: one of the two writable roles."""

    mount_path: MountPath
    medium: Literal["", "Memory"] | None = None
    size_limit: Quantity | None = None


class ReplicaRange(Model):
    """An elastic size. Engines without elasticity run ``max``."""

    min: int = Field(ge=1, le=MAX_REPLICAS)
    max: int = Field(ge=1, le=MAX_REPLICAS)

    @model_validator(mode="after")
    def _ordered(self) -> ReplicaRange:
        if self.min > self.max:
            raise ValueError("min not above max")
        return self


class Role(Model):
    """Pods of one kind; ``template`` is a PodTemplateSpec, opaque to the schema, signed whole."""

    name: DnsLabel
    replicas: Annotated[int, Field(ge=1, le=MAX_REPLICAS, strict=True)] | ReplicaRange = Field(
        description="A number, or {min, max}.", json_schema_extra=OPAQUE
    )
    template: JsonObject = Field(
        max_length=4, description="A PodTemplateSpec.", json_schema_extra=OPAQUE
    )

    @property
    def size(self) -> int:
        """Pods that an engine without elasticity runs."""
        return self.replicas if isinstance(self.replicas, int) else self.replicas.max


class Scheduling(Model):
    """Where and when, never what: not signed, and changeable while the job lives."""

    queue_name: ShortText | None = None
    priority_class_name: DnsSubdomain | None = None
    node_selector: dict[str, ShortText] | None = Field(default=None, max_length=32)
    tolerations: list[PodPart] | None = Field(default=None, max_length=32)
    affinity: PodPart | None = None
    topology_spread_constraints: list[PodPart] | None = Field(default=None, max_length=16)


class Validity(Model):
    """Bounds on submitting the same signed job again; signed."""

    not_after: datetime | None = Field(default=None, description="No run starts after this time.")
    max_runs: int | None = Field(default=None, ge=1, le=100000)
    cluster: ShortText | None = Field(
        default=None,
        description="UID of the kube-system namespace of the one cluster it may run in.",
    )


class SignatureEntry(Model):
    """One signer's Sigstore bundle over the canonical job."""

    bundle: JsonObject = Field(
        max_length=16, description="A Sigstore bundle.", json_schema_extra=OPAQUE
    )


class TrainingJobSpec(Model):
    """What to run."""

    engine: Literal["Job"]
    code: list[CodeMount] | None = Field(default=None, max_length=16)
    config: Config | None = None
    data: list[DataMount] | None = Field(default=None, max_length=16)
    checkpoints: Checkpoints | None = None
    scratch: list[Scratch] | None = Field(default=None, max_length=16)
    roles: list[Role] = Field(min_length=1, max_length=8)
    scheduling: Scheduling | None = None
    validity: Validity | None = None
    suspend: bool | None = None
    signatures: list[SignatureEntry] | None = Field(default=None, max_length=16)


class SignerStatus(Model):
    """A signer as the policy's authority names them."""

    authority: ShortText
    person: ShortText
    identity: Text
    issuer: Text | None = None
    signed_at: datetime | None = None


class ArtifactStatus(Model):
    """One artifact's verdict."""

    artifact: ShortText
    name: ShortText
    subject: Text
    outcome: Literal["verified", "refuted", "undetermined"]
    reason: ShortText
    message: Annotated[str, StringConstraints(max_length=4096)] = ""
    signers: list[SignerStatus] = Field(default_factory=list, max_length=16)


class RoleStatus(Model):
    """Pod counts of one role, as the engine's object reports them."""

    name: DnsLabel
    replicas: int = 0
    active: int = 0
    ready: int = 0
    succeeded: int = 0
    failed: int = 0


Phase = Literal["Pending", "Refused", "Sealed", "Running", "Suspended", "Succeeded", "Failed"]


class TrainingJobStatus(Model):
    """What the controller saw; nothing in it is believed by admission."""

    observed_generation: int | None = Field(default=None, ge=0)
    phase: Phase | None = None
    verified: Literal["verified", "refuted", "undetermined"] | None = None
    message: Annotated[str, StringConstraints(max_length=4096)] | None = None
    job_digest: Digest | None = None
    sealed_run: DnsSubdomain | None = None
    run: int | None = Field(default=None, ge=1)
    requester: ShortText | None = None
    signers: Text | None = Field(default=None, description="The persons who signed, for kubectl.")
    ready: ShortText | None = Field(default=None, description="Ready pods of wanted, for kubectl.")
    artifacts: list[ArtifactStatus] | None = Field(default=None, max_length=128)
    roles: list[RoleStatus] | None = Field(default=None, max_length=8)
    start_time: datetime | None = None
    completion_time: datetime | None = None
    conditions: list[Condition] | None = Field(default=None, max_length=16)


class TrainingJob(Resource):
    """A TrainingJob object."""

    spec: TrainingJobSpec
    status: TrainingJobStatus | None = None
