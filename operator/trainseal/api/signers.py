"""Whose signatures a policy asks for."""

from __future__ import annotations

from pydantic import Field

from trainseal.api.model import DnsLabel, Model


class Requirement(Model):
    """Signatures by at least ``threshold`` different persons among ``authorities``."""

    authorities: list[DnsLabel] = Field(min_length=1, max_length=64)
    """Names of authorities whose signatures count."""
    threshold: int | None = Field(default=None, ge=1, le=16, description="Absent: 1.")
