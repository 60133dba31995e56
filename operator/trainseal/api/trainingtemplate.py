"""TrainingTemplate (``tmpl``): a job that is signed once, with bounds, and run many times.

What is not left open (``parameters``, ``replicas``, ``code``) is literal. A TrainingJob that names
the template and its digest (``templateRef``) needs no signature of its own; who may make one, how
many run at a time and until when stands in ``launch``, and is signed as well. ``spec`` cannot be
changed, but for signatures, which are added, and ``revoked``, which stays once it is there.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StringConstraints,
    model_validator,
)

from trainseal.api.model import OPAQUE, DnsLabel, Model, MountPath, Resource, ShortText, Text
from trainseal.api.trainingjob import (
    MAX_SIGNATURES,
    ListedName,
    ReplicaRange,
    SignatureEntry,
    WholeJob,
)

PLURAL = "trainingtemplates"
KIND = "TrainingTemplate"

_PATH = re.compile(r"[A-Za-z][A-Za-z0-9_-]*(\.[A-Za-z][A-Za-z0-9_-]*)*")


def _is_path(text: str) -> str:
    if not _PATH.fullmatch(text):
        raise ValueError(
            "names of letters, digits, _ and -, each beginning with a letter, and dots"
        )
    return text


#: Path of a value within `config.parameters`: names with dots between them.
ParameterPath = Annotated[
    str, StringConstraints(min_length=1, max_length=128), AfterValidator(_is_path)
]

Scalar = Annotated[
    StrictBool | StrictInt | StrictFloat | Annotated[str, StringConstraints(max_length=256)],
    Field(json_schema_extra=OPAQUE),
]


class Parameter(Model):
    """What one parameter may be. A number has both bounds, a string its values or a length."""

    type: Literal["number", "integer", "boolean", "string"]
    """`integer` takes whole numbers alone."""
    minimum: float | None = None
    """The least of a number."""
    maximum: float | None = None
    """The most of a number."""
    enum: list[Scalar] | None = Field(default=None, min_length=1, max_length=64)
    """The values that it may have, all of its type. Absent: any within the bounds."""
    max_length: int | None = Field(
        default=None,
        ge=1,
        le=256,
        description="Of a string that is a mere name: letters, digits, `.`, `_` and `-`, and begins"
        " with a letter or digit.",
    )


class CodeChoice(Model):
    """Newer code for one of the job's mounts, if this authority signed it."""

    repository: Annotated[str, StringConstraints(min_length=1, max_length=384)]
    """Where it must lie: registry.example/research/trainer"""
    authority: DnsLabel
    """An authority among those that the policies require for code: it must be among the signers."""


class TemplateResume(Model):
    """A run may name one that it goes on from: whoever starts it asked for that one too, or is
    named by a policy."""

    mount_path: MountPath
    """Where the containers find the checkpoint, read-only."""


class LaunchRequester(Model):
    """Who may start runs: a user or a group, as the API server sees them, or an authority."""

    user: ShortText | None = None
    """User name; service accounts too, such as a workflow engine's. Who can act as such an account
    can start runs within the template's bounds."""
    group: ShortText | None = None
    """A group."""
    authority: DnsLabel | None = None
    """An authority of kind `kubernetes`, of every policy that names the namespace."""

    @model_validator(mode="after")
    def _one(self) -> LaunchRequester:
        if [self.user, self.group, self.authority].count(None) != 2:
            raise ValueError("exactly one of user, group, authority")
        return self


class LaunchRules(Model):
    """Who may start runs from it, how many at a time and until when."""

    requesters: list[LaunchRequester] = Field(min_length=1, max_length=64)
    """Whoever one of them names may."""
    max_concurrent: int | None = Field(default=None, ge=1, le=100_000)
    """Runs at a time; those beyond wait. Absent: any number."""
    not_after: AwareDatetime | None = Field(
        default=None, description="No run starts after this time, and no suspended one goes on."
    )


class Revocation(Model):
    """Why nothing starts from the template any more."""

    reason: Text
    """For whoever tries."""


class TrainingTemplateSpec(Model):
    """The job, what is left open, and who may fill it in."""

    parameters: dict[ParameterPath, Parameter] | None = Field(default=None, max_length=64)
    """Parameters that a run may set, by their path in the job's `config.parameters`. Absent: none.
    """
    replicas: dict[ListedName, ReplicaRange] | None = Field(default=None, max_length=8)
    """Roles whose size a run may set, and the bounds. Absent: none."""
    code: dict[ListedName, CodeChoice] | None = Field(default=None, max_length=16)
    """Code mounts for which a run may name newer code. Absent: none."""
    resume: TemplateResume | None = None
    """Absent: no run goes on from another, unless `job.checkpoints.resume` names it."""
    launch: LaunchRules
    job: WholeJob
    revoked: Revocation | None = None
    """Not signed: whoever may edit the template may set it, and nobody takes it away. Absent: it is
    in force."""
    signatures: list[SignatureEntry] | None = Field(default=None, max_length=MAX_SIGNATURES)
    """Who signed. Not under the template's digest itself, which is what they sign."""


class TrainingTemplate(Resource):
    """A TrainingTemplate object."""

    spec: TrainingTemplateSpec
