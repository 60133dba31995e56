"""What was decided about one artifact, and in words a person can act on.

Three outcomes, never mixed up (a throttled registry is not "no signature"):

* ``verified``: evidence was read and satisfies the policy;
* ``refuted``: evidence was read and does not satisfy the policy;
* ``undetermined``: evidence could not be read (registry down, trust root expired). Denied under
  Enforce, said as such, and never cached.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from trainseal.api.trainingjob import ArtifactKind


class Outcome(StrEnum):
    """The three outcomes of a verification."""

    VERIFIED = "verified"
    REFUTED = "refuted"
    UNDETERMINED = "undetermined"


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of a whole: refuted beats undetermined beats verified.

    A refutation is final whatever a registry would still have said; so it wins. The outcome of
    nothing is ``verified``.
    """
    result = Outcome.VERIFIED
    for outcome in outcomes:
        if outcome is Outcome.REFUTED:
            return Outcome.REFUTED
        if outcome is Outcome.UNDETERMINED:
            result = Outcome.UNDETERMINED
    return result


@dataclass(frozen=True, slots=True)
class Signer:
    """Who signed, as a policy's authority names them.

    ``person`` is what thresholds count; ``identity`` is what the evidence carried: a key id
    (``sha256:…`` of the DER SubjectPublicKeyInfo) or a certificate's subject alternative name.
    ``signed_at`` is trusted time (timestamp authority or transparency log), never the signer's
    own clock; None where the evidence has none.
    """

    authority: str
    person: str
    identity: str
    issuer: str | None = None
    signed_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Unusable:
    """A piece of evidence that was there and could not be used; ``words`` say why.

    ``undetermined`` where it was not read to its end, ``refuted`` where it was read and is nothing.
    """

    outcome: Outcome
    words: str


@dataclass(frozen=True, slots=True)
class Lack:
    """Signatures that are still wanted: so many, of persons among these."""

    number: int
    persons: tuple[str, ...]

    def __str__(self) -> str:
        if self.number == len(self.persons):
            return " and ".join(self.persons)
        if self.number == 1:
            return f"one of {', '.join(self.persons)}"
        return f"{self.number} of {', '.join(self.persons)}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """One artifact's verdict.

    ``artifact`` is its kind, ``name`` its place in the job
    (``roles[worker].containers[trainer]``), ``subject`` what was judged (a digest or reference).
    ``reason`` is a PascalCase code, stable for machines; ``found``, ``wanted`` and ``remedy`` are
    for people: what was found, what the policy wants, what to do. ``lack`` is set only where it is
    refuted because signatures are missing that could still be given, and for nothing else.
    """

    artifact: ArtifactKind
    name: str
    subject: str
    outcome: Outcome
    reason: str
    found: str
    wanted: str = ""
    remedy: str = ""
    signers: tuple[Signer, ...] = ()
    policy: str = ""
    lack: Lack | None = None

    def sentence(self) -> str:
        """One line for a denial or a terminal."""
        parts = [f"{self.artifact} {self.name}: {self.outcome}: {self.found}"]
        if self.wanted:
            parts.append(f"policy {self.policy or '-'} wants {self.wanted}")
        if self.remedy:
            parts.append(self.remedy)
        return "; ".join(parts)
