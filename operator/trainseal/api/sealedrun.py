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

from trainseal.api.model import (
    OPAQUE,
    Condition,
    Digest,
    DnsLabel,
    DnsSubdomain,
    JsonObject,
    Model,
    Resource,
    ShortText,
    Text,
)
from trainseal.api.trainingjob import ArtifactStatus

PLURAL = "sealedruns"


class JobIdentity(Model):
    """The TrainingJob that was admitted."""

    name: DnsSubdomain
    uid: ShortText
    digest: Digest


class Requester(Model):
    """Who asked, as the API server saw them; from the webhook's signed ticket."""

    username: ShortText
    uid: ShortText | None = None
    time: datetime


class PolicyRecord(Model):
    """A policy as it was: its name and the digest of its spec."""

    name: DnsSubdomain
    digest: Digest
    mode: Literal["Enforce", "Audit"]


class PlatformImage(Model):
    """One platform's image: the digests by which runtimes know it."""

    platform: ShortText
    manifest: Digest
    config: Digest


class SealedImage(Model):
    """An image by every digest that a runtime may report."""

    reference: Text
    digest: Digest
    platforms: list[PlatformImage] = Field(max_length=64)


class SealedCode(Model):
    """A code artifact, the digest of its tree, and the signature the gate compares it with."""

    name: DnsLabel
    reference: Text
    tree_digest: Digest
    bundle: Digest = Field(description="Digest of the Sigstore bundle's blob in the repository.")


class SealedRole(Model):
    """What each pod of a role must look like: the template after the API server's defaulting."""

    name: DnsLabel
    replicas: int = Field(ge=1)
    object_name: DnsSubdomain = Field(description="Name of the engine's object.")
    template: JsonObject = Field(max_length=4, json_schema_extra=OPAQUE)


class SealedRunSpec(Model):
    """The seal."""

    job: JobIdentity
    cluster: ShortText = Field(description="UID of the kube-system namespace.")
    run: int = Field(ge=1, description="Which run of this job digest this is.")
    engine: Literal["Job"]
    requester: Requester
    policies: list[PolicyRecord] = Field(max_length=64)
    artifacts: list[ArtifactStatus] = Field(max_length=128)
    images: list[SealedImage] = Field(max_length=64)
    code: list[SealedCode] = Field(max_length=16)
    config_digest: Digest | None = None
    roles: list[SealedRole] = Field(min_length=1, max_length=8)
    sealed_at: datetime


class BoundObject(Model):
    """One of the engine's objects, bound to the seal by UID."""

    role: DnsLabel
    kind: ShortText
    name: DnsSubdomain
    uid: ShortText


class Binding(Model):
    """The operator's signature over cluster, namespace, seal digest and object UIDs."""

    seal_digest: Digest
    objects: list[BoundObject] = Field(min_length=1, max_length=8)
    key_id: ShortText = Field(alias="keyID")
    signature: Annotated[str, StringConstraints(max_length=1024)] = Field(description="Base64.")
    bound_at: datetime


class SealedRunStatus(Model):
    """The binding, and how the run ended."""

    binding: Binding | None = None
    phase: Literal["Sealed", "Bound", "Succeeded", "Failed", "Deleted"] | None = None
    completion_time: datetime | None = None
    message: Text | None = None
    conditions: list[Condition] | None = Field(default=None, max_length=16)


class SealedRun(Resource):
    """A SealedRun object."""

    spec: SealedRunSpec
    status: SealedRunStatus | None = None
