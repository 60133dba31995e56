"""What the gate can end with besides success.

Never mixed up: *refused* means that bytes were read and are not what was signed; *undetermined*
means that they could not be read, or not be written. Either ends the pod.
"""

from __future__ import annotations

from typing import ClassVar


class GateError(Exception):
    """Base. ``subject`` is the file or artifact, then what was found, expected, and what to do."""

    exit_code: ClassVar[int]
    word: ClassVar[str]

    def __init__(self, subject: str, found: str, *, expected: str = "", remedy: str = "") -> None:
        self.subject = subject
        self.found = found
        self.expected = expected
        self.remedy = remedy
        super().__init__(subject, found, expected, remedy)

    def within(self, artifact: str) -> GateError:
        """The same, said of something within ``artifact``."""
        return type(self)(
            f"{artifact}: {self.subject}", self.found, expected=self.expected, remedy=self.remedy
        )

    def __str__(self) -> str:
        parts = [f"{self.subject}: {self.found}"]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.remedy:
            parts.append(self.remedy)
        return "; ".join(parts)


class RefusedError(GateError):
    """The bytes were read and are not what was signed."""

    exit_code = 1
    word = "refuted"


class UndeterminedError(GateError):
    """The bytes could not be read (registry down) or not be kept (disk full)."""

    exit_code = 2
    word = "undetermined"
