"""What is said of a template that breaks a rule, and what templates are judged against."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Refusal:
    """One thing a template may not hold: a PascalCase reason, its field path, and words."""

    reason: str
    path: str
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.path}: {self.found}; {self.remedy}"


@dataclass(frozen=True, slots=True)
class TemplateContext:
    """What a template is judged against.

    ``writable`` are the mount paths whose bytes nobody signed (checkpoints, scratch, unverified
    data); ``mounts`` all of them; ``kept`` those that others may have filled before the pod starts;
    ``allowed_secrets`` the Secrets a policy lets a template read keys of.
    """

    writable: tuple[str, ...] = ()
    mounts: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    allowed_secrets: frozenset[str] = frozenset()
    require_digests: bool = True
