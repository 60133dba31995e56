"""GatePlan: what the gate must find before it lets a trainer start.

It stands in the gate container's own arguments, which are part of the sealed pod; so everything
it names by digest is as trusted as the seal. What it holds in full is: the platform's registry
authorities, which no editor of the namespace can exchange here as they could in a ConfigMap.

What is *not* covered by it are the pull secrets' contents. They, like the authorities, decide
whether bytes can be had and who sees the credentials on the way, never which bytes are taken.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, StringConstraints

from trainseal.api.model import Digest, DnsLabel, DnsSubdomain, Model, Text

#: A plan is one argument of a process, which Linux holds to 128 KiB, and stands in every pod and,
#: once a role, in the seal.
MAX_REGISTRY_CA_BYTES = 16 * 1024
MAX_PULL_SECRETS = 16
MAX_RESUME_FILES = 256
#: Of the files' entries, as JSON.
MAX_RESUME_BYTES = 48 * 1024


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


class PlannedPullSecret(Model):
    """A Secret of the job's namespace, and where its docker config is; it need not be there."""

    name: DnsSubdomain
    file: Text


class PlannedFile(Model):
    """A file of a checkpoint that the run goes on from."""

    path: Text
    digest: Digest


class PlannedResume(Model):
    """A checkpoint that the run goes on from, each file by digest."""

    source: Text = Field(description="Directory with the checkpoint.")
    files: list[PlannedFile] = Field(min_length=1, max_length=MAX_RESUME_FILES)
    whole: bool = Field(description="Whether nothing else may lie there.")


class PlannedOwn(Model):
    """The run's own checkpoints, when a worker is tried again."""

    source: Text = Field(description="Directory with them.")
    signed: Text = Field(description="File with the signed list of what they are.")
    key: Text = Field(description="The public key (PEM) that signs it.")
    namespace: DnsLabel
    run: DnsSubdomain = Field(description="Name of the seal.")
    marker: Text = Field(description="Name of a file that makes a directory a whole checkpoint.")
    mount_path: Text = Field(description="Where the trainer finds them.")


class GatePlan(Model):
    """All of it."""

    code: list[PlannedCode] = Field(default_factory=list, max_length=16)
    config: PlannedConfig | None = None
    plain_http: list[Text] = Field(
        default_factory=list, max_length=16, description="Registry hosts spoken to without TLS."
    )
    registry_ca: Annotated[str, StringConstraints(max_length=MAX_REGISTRY_CA_BYTES)] | None = Field(
        default=None, description="Certificates (PEM) that registries' own may be signed by, too."
    )
    pull_secrets: list[PlannedPullSecret] = Field(
        default_factory=list,
        max_length=MAX_PULL_SECRETS,
        description="In the order in which they are asked.",
    )
    resume: PlannedResume | None = None
    own: PlannedOwn | None = None
