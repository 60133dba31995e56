"""Checkpoint (``ckpt``): files that a run completed in its checkpoints mount, with their digests.

The agent of the node creates one for the files that were completed together, and never changes it.
The controller signs it in ``status``, says there whether the run was tainted by then, and who
signed off what is. It has no owner reference: evidence outlives the job. It bears the labels
``trainseal.dev/seal``, ``trainseal.dev/node`` and, where the mount is a claim,
``trainseal.dev/claim``, by which an agent asks which files have a manifest already; nothing is
believed of them.
"""

from __future__ import annotations

import hashlib
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from trainseal.api.driftreport import FindingName, PodIdentity
from trainseal.api.model import (
    MAX_COUNT,
    Digest,
    DnsSubdomain,
    Model,
    Resource,
    ShortText,
    SubPath,
    Text,
)

PLURAL = "checkpoints"
LABEL_CLAIM = "trainseal.dev/claim"
MAX_FILES = 256
MAX_PATH = 512

FilePath = Annotated[str, StringConstraints(min_length=1, max_length=MAX_PATH)]
Writer = Literal["Trainer", "Container", "Session", "Unwatched", "Outside"]
FileFormat = Literal["safetensors", "dcp", "pickle", "text", "unknown"]
MAX_IMPORTS, MAX_IMPORT = 16, 160
ImportName = Annotated[str, StringConstraints(min_length=1, max_length=MAX_IMPORT)]
Standing = Literal["Signed", "Unread", "Unproved", "Dropped"]


def claim_label(claim: str) -> str:
    """The label's value for a claim: names may be longer than labels."""
    return hashlib.sha256(claim.encode()).hexdigest()[:32]


class CheckpointFile(Model):
    """One file, as it was when it was complete."""

    path: FilePath
    """Within the checkpoints mount."""
    size: int = Field(ge=0, le=MAX_COUNT)
    """Bytes."""
    digest: Digest | None = None
    """SHA-256 of its content. Absent: the volume was taken off the node before it was read."""
    changed: datetime
    """When it was last changed, by the file system's clock."""
    writer: Writer
    """Who wrote it: `Trainer`, a process that descends from the container's first; `Session`, one
    that came in by exec or from the node; `Container`, one that was gone before it could be looked
    at; `Unwatched`, somebody while no events were told; `Outside`, nobody in the pod."""
    format: FileFormat | None = None
    """What its bytes are, whatever its name: `safetensors`; `dcp`, part of a distributed checkpoint
    of PyTorch, by name too; `pickle`; `text`; `unknown`, none of these or not to be told. Absent:
    nobody looked."""
    imports: list[ImportName] | None = Field(default=None, max_length=MAX_IMPORTS)
    """What a pickle would import, as `module.name`, those first that no distributed checkpoint
    needs. Not listed for `dcp`, which imports what these need, and nothing else."""
    more_imports: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    """Imports beyond these."""
    doubt: ShortText | None = None
    """What could not be told of it."""
    user: ShortText | None = None
    """The Kubernetes user who opened that session, where known."""


class CheckpointVolume(Model):
    """Where the mount's bytes are, as the seal has it."""

    claim: DnsSubdomain | None = None
    """Name of the PersistentVolumeClaim. Absent: a directory that goes with the pod."""
    path: SubPath | None = Field(default=None, description="Directory within the volume.")


class CheckpointSpec(Model):
    """What the agent saw."""

    sealed_run: DnsSubdomain
    """Name of the seal."""
    node: DnsSubdomain
    """The agent's own node."""
    pod: PodIdentity
    """The pod whose mount it is."""
    volume: CheckpointVolume
    completed: datetime
    """When the last of the files was completed, by the node's clock."""
    files: list[CheckpointFile] = Field(max_length=MAX_FILES)
    """The files that were completed together."""
    removed: list[FilePath] | None = Field(default=None, max_length=MAX_FILES)
    """Files of earlier manifests of this pod that are gone by now."""
    unlisted: int | None = Field(default=None, ge=1, le=MAX_COUNT)
    """Completed files beyond the agent's bounds: counted and not listed."""


class Attested(Model):
    """What the controller adds to the agent's word."""

    cluster: ShortText
    """UID of the kube-system namespace."""
    seal_digest: Digest
    """Digest of the seal, as its binding has it."""
    job: DnsSubdomain
    """Name of the TrainingJob."""
    job_digest: Digest
    """The job digest."""
    created: datetime
    """When the API server stored this object."""
    claim_uid: ShortText | None = Field(default=None, alias="claimUID")
    """UID of the claim. Absent: no claim, or it was gone."""
    persistent_volume: DnsSubdomain | None = None
    """The volume that the claim is bound to."""


class Taint(Model):
    """Why nobody should go on from these files without looking."""

    finding: FindingName
    """The finding that taints them."""
    since: datetime | None = None
    """From when on what the run writes is tainted. Absent: these files are, whenever."""
    message: Text
    """It, in words."""


class Acceptance(Model):
    """A person who signed the tainted files off."""

    release: DnsSubdomain
    """Name of the HoldRelease."""
    user: ShortText
    """Who."""
    reason: Text
    """Why."""


class ManifestSignature(Model):
    """The operator's signature over the in-toto statement that this object amounts to."""

    key_id: ShortText = Field(alias="keyID")
    """Which key of the operator's keyring signed."""
    signed_at: datetime
    """When."""
    signature: Annotated[str, StringConstraints(max_length=1024)] = Field(description="Base64.")


class OutputSignature(Model):
    """A signature for OpenSSF Model Signing over the same files."""

    key_id: ShortText = Field(alias="keyID")
    """Which key of the operator's keyring signed."""
    signature: Annotated[str, StringConstraints(max_length=1024)] = Field(description="Base64.")


class CheckpointStatus(Model):
    """What the controller makes of it."""

    standing: Standing | None = None
    """`Signed`; `Unread`, no file of it has a digest; `Unproved`, the pod was gone before it could
    be looked at; `Dropped`, it is not the word of the agent that watched the pod."""
    message: Text | None = None
    """Why it is not signed."""
    attested: Attested | None = None
    tainted: Taint | None = None
    """Absent: nothing was found on the run by then."""
    accepted: Acceptance | None = None
    """Absent: nobody signed it off."""
    refused: Text | None = None
    """Why a release that names it does not sign it off."""
    signature: ManifestSignature | None = None
    """Absent: not signed."""
    bundle: OutputSignature | None = None
    """Absent: tainted and not signed off, not signed, or with names that `model_signing` has no
    place for."""


class Checkpoint(Resource):
    """A Checkpoint object."""

    spec: CheckpointSpec
    status: CheckpointStatus | None = None
