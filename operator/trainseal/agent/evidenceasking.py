"""What reports ask of whoever takes evidence of their findings."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Literal, Protocol

from trainseal.agent.observed import Observation
from trainseal.api.driftreport import Finding

if TYPE_CHECKING:
    from trainseal.agent.reports import Subject

#: What came of asking for evidence: it is being taken, there is no room, or it deserves none.
Asked = Literal["Taken", "Refused", "None"]


class Evidence(Protocol):
    """Takes it, and says `evidence_kept` or `evidence_lost` to the reports in the end."""

    def ask(self, subject: Subject, finding: Finding, seen: Observation) -> Asked:
        """Asks for evidence of a finding that was told just now; returns at once."""

    def known(self, subject: Subject, kept: AbstractSet[str], same: Mapping[str, Finding]) -> None:
        """What an earlier agent wrote is known: keys of findings with evidence, and findings that
        are the same as one asked for, by the key that this had.
        """

    def forget(self, uid: str) -> None:
        """The pod's report is no longer kept."""
