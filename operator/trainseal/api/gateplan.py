"""GatePlan: what the gate must find before it lets a trainer start.

It stands in the gate container's own arguments, which are part of the sealed pod; so everything
it names by digest is as trusted as the seal.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from trainseal.api.model import Digest, DnsLabel, Model, Text


class PlannedCode(Model):
    """A code artifact and the bundle blob (same repository) whose manifest it must equal."""

    name: DnsLabel
    reference: Text = Field(description="registry/repository@sha256:…")
    tree_digest: Digest
    bundle: Digest
    target: Text = Field(description="Directory, inside the gate, that the tree is unpacked into.")


class PlannedConfig(Model):
    """The config files' digests, and where they come from and go."""

    source: Text = Field(description="Directory with the ConfigMap's files.")
    target: Text
    files: dict[Annotated[str, StringConstraints(max_length=64)], Digest] = Field(max_length=4)


class GatePlan(Model):
    """All of it."""

    code: list[PlannedCode] = Field(default_factory=list, max_length=16)
    config: PlannedConfig | None = None
    plain_http: list[Text] = Field(
        default_factory=list, max_length=16, description="Registry hosts spoken to without TLS."
    )
