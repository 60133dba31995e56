"""What a platform may add to sealed pods, as a policy names it: a part of ProvenancePolicy.

What is not named is not added. A container is named whole: by its images' digests, its command, its
variables, its mounts.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from trainseal.api.model import DnsLabel, DnsSubdomain, Model, ShortText

VariableName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$", max_length=256)
]
ImageByDigest = Annotated[
    str, StringConstraints(pattern=r"^[^@\s]+@sha256:[0-9a-f]{64}$", max_length=512)
]
VolumePattern = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9*]([-a-z0-9*]*[a-z0-9*])?$", max_length=63)
]
Directory = Annotated[str, StringConstraints(pattern=r"^(/[^/:\s]+)+$", max_length=256)]
Word = Annotated[str, StringConstraints(max_length=4096)]


class EnvAddition(Model):
    """An environment variable a platform adds. Variables that load code are refused here."""

    name: VariableName
    """Name of the variable, literally."""
    value_prefix: ShortText | None = Field(
        default=None, description="The value starts with this text. Absent: any value."
    )


class MountAddition(Model):
    """A mount a platform adds."""

    volume: VolumePattern
    """Name of the volume: `*` stands for any text."""
    path: Directory
    """Where it is mounted: at this directory or below. Literal."""
    read_only: bool | None = Field(
        default=None, description="True: only read-only. Absent: written to as well."
    )


class VolumeAddition(Model):
    """A volume a platform adds. Never of the node, a claim or a Secret."""

    name: VolumePattern
    """Name of the volume: `*` stands for any text."""
    kind: Literal["emptyDir", "downwardAPI", "configMap", "projected", "csi"]
    """Of which kind it is."""
    config_maps: list[DnsSubdomain] | None = Field(
        default=None,
        max_length=8,
        description="ConfigMaps that a `configMap` or `projected` one may hold. Absent: none.",
    )
    audiences: list[ShortText] | None = Field(
        default=None,
        max_length=8,
        description="Audiences of the tokens that a `projected` one may hold. Absent: no token.",
    )
    drivers: list[DnsSubdomain] | None = Field(
        default=None, max_length=8, description="Drivers that a `csi` one may be of."
    )


class ContainerAddition(Model):
    """A container a platform adds. What it is not given here it may not have."""

    name: DnsLabel
    """Its name, literally."""
    init: bool | None = Field(
        default=None,
        description="True: it stands among the init containers. Absent: among the others.",
    )
    images: list[ImageByDigest] = Field(min_length=1, max_length=8)
    """It runs one of these: repository and digest, as the pod has them."""
    command: list[Word] | None = Field(
        default=None, max_length=64, description="Exactly. Absent: the image's own."
    )
    args: list[Word] | None = Field(
        default=None, max_length=64, description="Exactly. Absent: the image's own."
    )
    env: list[EnvAddition] | None = Field(default=None, max_length=64)
    """Variables with a value that it may have."""
    fields: list[VariableName] | None = Field(default=None, max_length=64)
    """Variables that it may take from the pod itself (`fieldRef`, `resourceFieldRef`)."""
    mounts: list[MountAddition] | None = Field(
        default=None,
        max_length=16,
        description="What it may mount. The run's own volumes only read-only, whatever this says.",
    )
    hooks: list[Annotated[list[Word], Field(max_length=64)]] | None = Field(
        default=None,
        max_length=8,
        description="Commands that its probes and lifecycle hooks may run, exactly. Absent: none.",
    )
    capabilities: list[Literal["NET_ADMIN", "NET_RAW"]] | None = Field(
        default=None, max_length=2, description="Beyond the runtime's default set. Absent: none."
    )


class Addition(Model):
    """One named platform addition to sealed pods, matched by content."""

    name: DnsLabel
    """What adds it, such as `istio`."""
    reason: ShortText
    """Why it is trusted, for who reads the policy."""
    env: list[EnvAddition] | None = Field(default=None, max_length=64)
    """Environment variables it may add to signed containers."""
    fields: list[VariableName] | None = Field(default=None, max_length=64)
    """Variables of signed containers that it may take from the pod itself (`fieldRef`,
    `resourceFieldRef`)."""
    labels: list[ShortText] | None = Field(default=None, max_length=64)
    """Keys of labels it may add."""
    annotations: list[ShortText] | None = Field(default=None, max_length=64)
    """Keys of annotations it may add."""
    containers: list[ContainerAddition] | None = Field(default=None, max_length=4)
    """Containers it may add."""
    volumes: list[VolumeAddition] | None = Field(default=None, max_length=16)
    """Volumes it may add."""
    mounts: list[MountAddition] | None = Field(default=None, max_length=16)
    """Mounts of such volumes that it may add to signed containers."""
