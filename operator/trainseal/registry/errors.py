"""What can go wrong with a registry, kept apart as a verdict needs it.

Each error carries the outcome that a verdict about the artifact gets when nothing else is known:
``undetermined`` where evidence could not be read, ``refuted`` where it was read and is not what
it claims to be. A registry that is down, throttles, refuses us or talks nonsense says nothing
about the artifact; only an authentic "there is no such thing" and wrong bytes do.
"""

from __future__ import annotations

from typing import ClassVar

from trainseal.provenance.verdicts import Outcome

LONGEST_QUOTE = 200


def quoted(text: str) -> str:
    """Untrusted text, fit for a message: one line, printable, at most 200 characters."""
    printable = "".join(char if char.isprintable() else " " for char in text[: LONGEST_QUOTE * 2])
    single = " ".join(printable.split())
    return single if len(single) <= LONGEST_QUOTE else single[: LONGEST_QUOTE - 1] + "…"


class RegistryError(Exception):
    """Base of all errors here.

    ``subject`` is what was asked for (a reference or URL), ``found`` what came instead,
    ``expected`` what should have, ``remedy`` what a person can do. ``reason`` is a stable
    PascalCase code for machines. None of them ever holds a credential.
    """

    outcome: ClassVar[Outcome] = Outcome.UNDETERMINED
    reason: ClassVar[str] = "RegistryError"

    def __init__(self, subject: str, found: str, *, expected: str = "", remedy: str = "") -> None:
        self.subject = subject
        self.found = found
        self.expected = expected
        self.remedy = remedy
        super().__init__(subject, found, expected, remedy)

    def __str__(self) -> str:
        parts = [f"{self.subject}: {self.found}"]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.remedy:
            parts.append(self.remedy)
        return "; ".join(parts)


class RegistryUnavailable(RegistryError):
    """No usable answer: network, TLS, 5xx, 429 after patience, or a deadline. Undetermined."""

    reason: ClassVar[str] = "RegistryUnavailable"


class RegistryMisbehaved(RegistryUnavailable):
    """An answer that no registry should give: redirect loops, a page where JSON belongs.

    Undetermined: it speaks about the registry (or a proxy before it), not about the artifact.
    """

    reason: ClassVar[str] = "RegistryMisbehaved"


class AccessDenied(RegistryError):
    """The registry refused us (401, 403), or asked for credentials it must not get. Undetermined.

    Several registries answer so for a repository that does not exist.
    """

    reason: ClassVar[str] = "RegistryAccessDenied"


class TooLarge(RegistryError):
    """More bytes or entries than are read. Undetermined: it was not read to its end."""

    reason: ClassVar[str] = "EvidenceTooLarge"


class NotFound(RegistryError):
    """The registry itself said that there is no such thing: evidence is absent. Refuted."""

    outcome: ClassVar[Outcome] = Outcome.REFUTED
    reason: ClassVar[str] = "NotFound"


class ContentMismatch(RegistryError):
    """Bytes whose digest or size is not the one they were asked for by. Refuted."""

    outcome: ClassVar[Outcome] = Outcome.REFUTED
    reason: ClassVar[str] = "ContentMismatch"


class MalformedContent(RegistryError):
    """Bytes with the right digest that are not what they must be: no manifest, say. Refuted."""

    outcome: ClassVar[Outcome] = Outcome.REFUTED
    reason: ClassVar[str] = "MalformedContent"
