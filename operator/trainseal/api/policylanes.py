"""Lanes of a ProvenancePolicy: GPUs for interactive work, without a seal and within limits."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from trainseal.api.model import DnsLabel, DnsSubdomain, Model, NamespacePattern, ShortText
from trainseal.api.signers import Requirement

#: A pod that runs in a lane bears its name under this label; the webhook gives it.
LABEL_LANE = "trainseal.dev/lane"

ClaimPattern = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9*]([-.a-z0-9*]*[a-z0-9*])?$", max_length=253)
]


class Lane(Model):
    """Notebooks: bare pods, StatefulSets and Deployments on GPUs, never Jobs.

    A lane is open in a namespace where every policy that enforces there has one of this name; of
    their limits the smallest counts.
    """

    name: DnsLabel
    """Unique among the policy's lanes."""
    reason: ShortText
    """What it is for, for who reads the policy."""
    namespaces: list[NamespacePattern] = Field(min_length=1, max_length=16)
    """Where it is open, of the policy's own namespaces."""
    image: Requirement
    """Who must have signed each container's image."""
    max_pods: int = Field(ge=1, le=1000)
    """Pods at once in each namespace."""
    max_gpus: int = Field(alias="maxGPUs", ge=1, le=10000)
    """GPUs at once in each namespace, of all its pods together."""
    max_duration_seconds: int = Field(ge=60, le=604800)
    """How long a pod runs; it is then ended."""
    scratch_claims: list[ClaimPattern] | None = Field(
        default=None,
        max_length=16,
        description="Volume claims, by name or glob, that its pods may write to. No sealed run of "
        "the namespace mounts one. Absent: none; others are mounted read-only.",
    )
    secrets: list[DnsSubdomain] | None = Field(default=None, max_length=32)
    """Secrets that its pods may read, by name. Absent: none."""
