"""TrustRoot: a Sigstore trusted root, inline or the public good's copy. Cluster-scoped."""

from __future__ import annotations

from pydantic import Field, model_validator

from trainseal.api.model import OPAQUE, Condition, Count, JsonObject, Model, Resource

PLURAL = "trustroots"


class PublicGood(Model):
    """The public-good instance, from the copy that the Sigstore library carries; no network."""


class TrustRootSpec(Model):
    """Exactly one of the two."""

    public_good: PublicGood | None = None
    trusted_root: JsonObject | None = Field(
        default=None,
        max_length=32,
        description="A Sigstore TrustedRoot (trusted_root.json), inline.",
        json_schema_extra=OPAQUE,
    )

    @model_validator(mode="after")
    def _one_root(self) -> TrustRootSpec:
        if (self.public_good is None) == (self.trusted_root is None):
            raise ValueError("exactly one of publicGood, trustedRoot")
        return self


class TrustRootStatus(Model):
    """What the controller saw of the root."""

    observed_generation: Count | None = None
    """The `metadata.generation` that this status is about."""
    conditions: list[Condition] | None = Field(default=None, max_length=16)
    """`Ready`: the root was read and has not expired."""


class TrustRoot(Resource):
    """A TrustRoot object."""

    spec: TrustRootSpec
    status: TrustRootStatus | None = None
