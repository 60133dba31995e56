"""RunStatement (``stmt``): what a run was and what came of it, signed once it has ended.

The controller makes one for each run that was bound to its seal, of the same name. The status's
``payload`` is an in-toto statement, byte for byte as it was signed (``provenance.runstatements``):
nothing else in the object is believed. It is signed anew, with the next number, where what it says
is known to be otherwise by then: a late finding, a person who signs a checkpoint off. It has no
owner reference: evidence outlives the job.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import Field, StringConstraints

from trainseal.api.checkpoint import OutputSignature
from trainseal.api.model import MAX_COUNT_32, DnsSubdomain, Model, Resource, ShortText

PLURAL = "runstatements"
#: Characters. What is signed is shorter by far (``provenance.runstatements.MAX_PAYLOAD_BYTES``).
MAX_PAYLOAD = 512 * 1024


class RunStatementSpec(Model):
    """Which run it is about."""

    sealed_run: DnsSubdomain
    """Name of the seal, and of this object."""


class RunStatementStatus(Model):
    """The statement."""

    payload: Annotated[str, StringConstraints(max_length=MAX_PAYLOAD)]
    """The in-toto statement, in JSON: these bytes are what is signed."""
    key_id: ShortText = Field(alias="keyID")
    """Which key of the operator's keyring signed."""
    signed_at: datetime
    """When."""
    signature: Annotated[str, StringConstraints(max_length=1024)] = Field(
        description="Base64, over the payload as DSSE has it."
    )
    outputs: OutputSignature | None = None
    """Absent: no output can be named to `model_signing`."""
    outcome: ShortText | None = None
    """How the run ended, for kubectl."""
    findings: ShortText | None = None
    """What was found on it, for kubectl."""
    number: int | None = Field(default=None, ge=1, le=MAX_COUNT_32)
    """How often it was signed, for kubectl."""


class RunStatement(Resource):
    """A RunStatement object."""

    spec: RunStatementSpec
    status: RunStatementStatus | None = None
